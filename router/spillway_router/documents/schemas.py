"""The schemas of documents: JSON schemas by name, and the prompt that asks a model for values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import orjson
import yaml

from spillway_router.documents.captions.book import CaptionBook, book_of_text

MAX_SCHEMA_BYTES = 64 * 1024
UNNAMED = "document"
_MAX_DEPTH = 64
_PROMPT = (
    "Read the document below and answer with one JSON object as this JSON schema asks, and nothing else. Take every "
    "value as it stands in the document, numbers with a decimal point; null where the document holds no value."
    "\n\nSchema:\n"
)


class SchemaError(Exception):
    """A schema is invalid; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON schema of one object.

    `name` is the task for calibration and reports. `prompt` precedes the text for local models, which may have been
    trained on it. If it is "", local models are shown the schema, like every other model.
    """

    name: str
    json_schema: Mapping[str, Any]
    prompt: str = ""

    def captions(self) -> CaptionBook:
        """Return the captions of its fields. The first call for a schema takes milliseconds."""
        return book_of_text(orjson.dumps(self.json_schema))

    def messages(self, text: str, *, local: bool) -> list[dict[str, str]]:
        """Return the chat that asks for the values of a text."""
        if local and self.prompt:
            return [{"role": "user", "content": self.prompt + text}]
        schema = orjson.dumps(without_hints(self.json_schema)).decode()
        return [{"role": "user", "content": f"{_PROMPT}{schema}\n\nDocument:\n{text}"}]

    def response_format(self) -> dict[str, Any]:
        """Return the field of a chat body that makes an engine obey the schema."""
        name = "".join(c if c.isalnum() or c in "_-" else "_" for c in self.name)[:64]
        json_schema = {"name": name, "schema": without_hints(self.json_schema), "strict": _is_strict(self.json_schema)}
        return {"type": "json_schema", "json_schema": json_schema}


def without_hints(schema: Any, depth: int = 0) -> Any:
    """Return a schema without its `x-` keywords, which are for captions: OpenAI rejects keywords that it doesn't know.

    A property may have such a name all the same.
    """
    if isinstance(schema, list):
        return [without_hints(inner, depth + 1) for inner in schema] if depth < _MAX_DEPTH else schema
    if not isinstance(schema, Mapping) or depth >= _MAX_DEPTH:
        return schema
    return {
        key: {name: without_hints(inner, depth + 1) for name, inner in value.items()}
        if key == "properties" and isinstance(value, Mapping)
        else without_hints(value, depth + 1)
        for key, value in schema.items()
        if not key.startswith("x-")
    }


def _is_strict(schema: Any, depth: int = 0) -> bool:
    """Return True if every object in the schema requires all its fields and allows no others.

    OpenAI rejects `strict` for any other schema.
    """
    if depth > _MAX_DEPTH:
        return False
    if isinstance(schema, list):
        return all(_is_strict(inner, depth + 1) for inner in schema)
    if not isinstance(schema, Mapping):
        return True
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        required = schema.get("required")
        whole = isinstance(required, list) and set(map(str, required)) == set(properties)
        if not whole or schema.get("additionalProperties") is not False:
            return False
    return all(_is_strict(inner, depth + 1) for inner in schema.values())


@lru_cache(maxsize=1)
def shipped_schemas() -> Mapping[str, Schema]:
    """Return the schemas that come with Spillway, by name."""
    folder = files(__package__).joinpath("schemas")
    rows = [yaml.safe_load(f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".yaml")]
    return {row["name"]: Schema(row["name"], row["schema"], row["prompt"]) for row in rows}


def select_schema(requested: object, schemas: Mapping[str, Schema]) -> Schema:
    """Return the schema that a request names or contains. Raise SchemaError if it is unknown or invalid."""
    if isinstance(requested, str):
        schema = schemas.get(requested)
        if schema is None:
            raise SchemaError(f"unknown schema {requested!r}; use {', '.join(sorted(schemas))}, or send a schema")
        return schema
    if not isinstance(requested, dict):
        raise SchemaError("'schema' must be the name of a schema or a JSON schema object")
    properties = requested.get("properties")
    if requested.get("type") != "object" or not isinstance(properties, dict) or not properties:
        raise SchemaError("'schema' must describe an object with properties: {type: object, properties: {...}}")
    if len(orjson.dumps(requested)) > MAX_SCHEMA_BYTES:
        raise SchemaError(f"'schema' is larger than {MAX_SCHEMA_BYTES // 1024} KiB")
    title = requested.get("title")
    return Schema(title if isinstance(title, str) and 0 < len(title) <= 64 else UNNAMED, requested)
