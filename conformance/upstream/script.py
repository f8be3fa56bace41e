"""What the scripted upstream says: a tool call, a JSON object or a text, chosen from the request alone.

The protocols differ in how they write a request and an answer, not in what is asked. Each protocol's module turns its
request into an `Asked` and shapes the `Said`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TEXT = "Hello from the scripted upstream: ten plain words of an answer."
PROMPT_TOKENS = 12
OUTPUT_TOKENS = 10
_QUOTED = re.compile(r"'([^']+)'")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the request offers, with the JSON schema of its arguments."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. `text` is the user's last turn; `forced` names the tool that must be called, "*" stands for any."""

    text: str
    tools: tuple[Tool, ...] = ()
    forced: str = ""
    has_result: bool = False
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: a text, or the call of `tool` with `arguments` as JSON."""

    text: str = ""
    tool: str = ""
    arguments: str = ""


def answer(asked: Asked) -> Said:
    """Answer a request. The same request always has the same answer."""
    if asked.forced or (asked.tools and not asked.has_result):
        tool = next((tool for tool in asked.tools if asked.forced in ("", "*", tool.name)), None)
        if tool is not None:
            arguments = json.dumps(sample(tool.schema, asked.text), ensure_ascii=False)
            return Said(tool=tool.name, arguments=arguments)
    if asked.schema is not None:
        return Said(text=json.dumps(sample(asked.schema, asked.text), ensure_ascii=False))
    return Said(text=TEXT)


def pieces(text: str, count: int = 4) -> Sequence[str]:
    """Cut a text into at most `count` pieces, as a stream brings it."""
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]


def sample(schema: Any, text: str) -> Any:
    """Return a value that is valid under the schema, with words and numbers from the text where it has them."""
    if not isinstance(schema, Mapping):  # the SDKs' own examples of a schema are no schemas
        return "a sample"
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return sample(schema[union][0], text)
    if "const" in schema or schema.get("enum"):
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind in ("integer", "number"):
        digits = re.search(r"\d+", text)
        return int(digits[0]) if digits else 3
    if kind == "boolean":
        return True
    if kind == "array":
        return [sample(schema.get("items", {}), text)]
    if kind == "string":
        quoted = _QUOTED.search(text)
        return quoted[1] if quoted else "a sample"
    properties: Mapping[str, Any] = schema.get("properties", {})
    return {name: sample(part, text) for name, part in properties.items()}


def named_in(text: str) -> Mapping[str, Any]:
    """Return a schema of the keys that a request for a free JSON object names in quotation marks."""
    names = _QUOTED.findall(text) or ["answer"]
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}}


def plain_text(content: Any) -> str:
    """Return the text of a message's content, whether it is a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part["text"]) for part in parts if isinstance(part, dict) and "text" in part)
