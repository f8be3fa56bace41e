"""What is to be read out of documents: JSON schemas by name, and how a model is asked for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import orjson
import yaml

MAX_SCHEMA_BYTES = 64 * 1024
UNNAMED = "document"
_DEEPEST = 64
_ASK = (
    "Read the document below and answer with one JSON object as this JSON schema asks, and nothing else. Take every "
    "value as it stands in the document, numbers with a decimal point; null where the document holds no value."
    "\n\nSchema:\n"
)


class SchemaError(Exception):
    """A schema can't be used; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON schema of one object. `name` is the task for calibration and reports. `prompt` stands before the text for
    local models, which may have been trained on it; "": the schema itself is shown to them, as to every other model."""

    name: str
    json_schema: Mapping[str, Any]
    prompt: str = ""

    def messages(self, text: str, *, local: bool) -> list[dict[str, str]]:
        """The chat that asks for the values of a text."""
        if local and self.prompt:
            return [{"role": "user", "content": self.prompt + text}]
        shown = orjson.dumps(self.json_schema).decode()
        return [{"role": "user", "content": f"{_ASK}{shown}\n\nDocument:\n{text}"}]

    def response_format(self) -> dict[str, Any]:
        """The field of a chat body that makes an engine keep to the schema."""
        name = "".join(c if c.isalnum() or c in "_-" else "_" for c in self.name)[:64]
        wanted = {"name": name, "schema": self.json_schema, "strict": _strict(self.json_schema)}
        return {"type": "json_schema", "json_schema": wanted}


def _strict(schema: Any, depth: int = 0) -> bool:
    """Whether every object in it names all its fields and requires them: OpenAI refuses `strict` for any other."""
    if depth > _DEEPEST:
        return False
    if isinstance(schema, list):
        return all(_strict(inner, depth + 1) for inner in schema)
    if not isinstance(schema, Mapping):
        return True
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        required = schema.get("required")
        whole = isinstance(required, list) and set(map(str, required)) == set(properties)
        if not whole or schema.get("additionalProperties") is not False:
            return False
    return all(_strict(inner, depth + 1) for inner in schema.values())


@lru_cache(maxsize=1)
def shipped_schemas() -> Mapping[str, Schema]:
    """The schemas that come with Spillway, by name."""
    folder = files(__package__).joinpath("schemas")
    rows = [yaml.safe_load(f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".yaml")]
    return {row["name"]: Schema(row["name"], row["schema"], row["prompt"]) for row in rows}


def chosen(asked: object, known: Mapping[str, Schema]) -> Schema:
    """The schema that a request names or brings along. Raises SchemaError."""
    if isinstance(asked, str):
        found = known.get(asked)
        if found is None:
            raise SchemaError(
                f"the schema {asked!r} is not known here; use {', '.join(sorted(known))}, or send a schema"
            )
        return found
    if not isinstance(asked, dict):
        raise SchemaError("'schema' must be the name of a schema or a JSON schema object")
    if asked.get("type") != "object" or not isinstance(asked.get("properties"), dict) or not asked["properties"]:
        raise SchemaError("'schema' must describe an object with properties: {type: object, properties: {...}}")
    if len(orjson.dumps(asked)) > MAX_SCHEMA_BYTES:
        raise SchemaError(f"'schema' is larger than {MAX_SCHEMA_BYTES // 1024} KiB")
    title = asked.get("title")
    return Schema(title if isinstance(title, str) and 0 < len(title) <= 64 else UNNAMED, asked)
