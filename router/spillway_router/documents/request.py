"""What a request to `POST /v1/documents/extract` asks to read; a mistake in it is a 400 that says what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spillway_router.core.routing.model import Refusal
from spillway_router.documents.extract import ExtractionRequest
from spillway_router.documents.schemas import Schema, SchemaError, chosen
from spillway_router.documents.services import DocumentRules, DocumentServices

_FIELDS = frozenset({"text", "messages", "schema", "parser", "min_confidence", "model", "metadata", "review"})


def read_extraction_request(desk: DocumentServices, body: Mapping[str, Any], rules: DocumentRules) -> ExtractionRequest:
    """What a request asks to read. Raises a 400."""
    unknown = sorted(body.keys() - _FIELDS)
    if unknown:
        raise desk.bad(f"'{unknown[0]}' is not known here; use {', '.join(sorted(_FIELDS))}.", unknown[0])
    text, messages = body.get("text"), body.get("messages")
    if (text is None) == (messages is None):
        raise desk.bad("Send the document as 'text', or as 'messages', and not both.", "text")
    if messages is not None:
        text = _text_of(messages)
    if not isinstance(text, str) or not text.strip():
        raise desk.bad(
            "The document has no text. Send what is to be read, as text of user messages or as 'text'.",
            "text" if messages is None else "messages",
        )
    if len(text) > rules.max_chars:
        told = f"The document has {len(text)} characters; documents.max_chars allows {rules.max_chars}. Split it."
        raise desk.door.refused(Refusal(413, "request_too_large", told, "text"))
    try:
        schema = chosen(body.get("schema", rules.default_schema), rules.schemas)
    except SchemaError as error:
        raise desk.bad(f"{error}.", "schema") from None
    return ExtractionRequest(
        text, schema, messages, _parser(desk, body, rules, schema), _least(desk, body), _model(desk, body)
    )


def _parser(desk: DocumentServices, body: Mapping[str, Any], rules: DocumentRules, schema: Schema) -> str:
    name = body.get("parser", "auto")
    if name in ("auto", "none"):
        return str(name)
    known = sorted(parser.name for parser in rules.cascade.parsers() if parser.schema == schema.name)
    if not isinstance(name, str) or name not in known:
        names = ", ".join(("auto", "none", *known))
        raise desk.bad(f"'parser' must be one of {names} for the schema {schema.name}.", "parser")
    return name


def _least(desk: DocumentServices, body: Mapping[str, Any]) -> float | None:
    least = body.get("min_confidence")
    if least is None:
        return None
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
        raise desk.bad("'min_confidence' must be a number from 0 to 1.", "min_confidence")
    return float(least)


def _model(desk: DocumentServices, body: Mapping[str, Any]) -> str:
    model = body.get("model", "auto")
    if not isinstance(model, str) or not model:
        raise desk.bad("'model' must be the name of a model, such as auto.", "model")
    return model


def _text_of(messages: object) -> str | None:
    """The text of all user messages, one after the other."""
    if not isinstance(messages, list):
        return None
    found: list[str] = []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        found.extend(p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str))
    return "\n".join(found)
