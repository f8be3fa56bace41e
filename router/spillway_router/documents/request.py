"""Read the body of `POST /v1/documents/extract`; a mistake in it is a 400 that says what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spillway_router.core.routing.model import Refusal
from spillway_router.documents.drafts import CAPTIONS
from spillway_router.documents.extract import ExtractionRequest
from spillway_router.documents.schemas import Schema, SchemaError, select_schema
from spillway_router.documents.services import DocumentRules
from spillway_router.proxy.request.errors import RefusedError, bad_request

_FIELDS = frozenset({"text", "messages", "schema", "parser", "min_confidence", "model", "metadata", "review"})


def read_extraction_request(
    body: Mapping[str, Any], rules: DocumentRules, unsure: tuple[tuple[int, int], ...] = ()
) -> ExtractionRequest:
    """Return what a body asks to read. `unsure` are the places of its text that were recognised with doubts.

    Raise RefusedError.
    """
    unknown = sorted(body.keys() - _FIELDS)
    if unknown:
        raise bad_request(f"Unknown field {unknown[0]!r}. Use {', '.join(sorted({*_FIELDS, 'file'}))}.", unknown[0])
    text, messages = body.get("text"), body.get("messages")
    if (text is None) == (messages is None):
        raise bad_request("Send the document as one of 'text', 'messages' and 'file'.", "text")
    if messages is not None:
        text = _user_text(messages)
    if not isinstance(text, str) or not text.strip():
        raise bad_request(
            "The document has no text. Send its text in user messages, or as 'text'.",
            "text" if messages is None else "messages",
        )
    if len(text) > rules.max_chars:
        message = f"The document has {len(text)} characters; documents.max_chars allows {rules.max_chars}. Split it."
        raise RefusedError(Refusal(413, "request_too_large", message, "text"))
    try:
        wanted = body.get("schema")
        schema = select_schema(rules.default_schema if wanted is None else wanted, rules.schemas)
    except SchemaError as error:
        raise bad_request(f"{error}.", "schema") from None
    return ExtractionRequest(
        text,
        schema,
        messages,
        parser=_parser(body, rules, schema),
        min_confidence=_min_confidence(body),
        model=_model(body),
        unsure=unsure,
    )


def _parser(body: Mapping[str, Any], rules: DocumentRules, schema: Schema) -> str:
    name = "auto" if body.get("parser") is None else body["parser"]
    if name in ("auto", "none", CAPTIONS):
        return str(name)
    names = sorted(parser.name for parser in rules.cascade.parsers() if parser.schema == schema.name)
    if not isinstance(name, str) or name not in names:
        allowed = ", ".join(("auto", "none", CAPTIONS, *names))
        raise bad_request(f"'parser' must be one of {allowed} for the schema {schema.name}.", "parser")
    return name


def _min_confidence(body: Mapping[str, Any]) -> float | None:
    value = body.get("min_confidence")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise bad_request("'min_confidence' must be a number from 0 to 1.", "min_confidence")
    return float(value)


def _model(body: Mapping[str, Any]) -> str:
    model = "auto" if body.get("model") is None else body["model"]
    if not isinstance(model, str) or not model:
        raise bad_request("'model' must be the name of a model, such as auto.", "model")
    return model


def _user_text(messages: object) -> str | None:
    """Join the texts of all user messages; None if `messages` is no array."""
    if not isinstance(messages, list):
        return None
    texts: list[str] = []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        texts.extend(p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str))
    return "\n".join(texts)
