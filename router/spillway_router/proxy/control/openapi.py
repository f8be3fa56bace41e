"""The description of the API at /openapi.json and /docs: FastAPI's own, completed with what FastAPI cannot see.

FastAPI sees neither the inference routes, which the frontend answers, nor the bodies and errors of the other routes,
which read their requests themselves. The tables here hold them; tests compare the tables with the routes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

Schema = Mapping[str, Any]
_TEXT: Final[Schema] = {"type": "string"}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_TEXT_OR_TEXTS: Final[Schema] = {
    "anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]
}
_MESSAGES: Final[Schema] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["user", "assistant", "system"]},
            "content": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["type", "text"],
                            "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                        },
                    },
                ]
            },
        },
    },
}
_STARS: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 5}
_OUTPUT_BOUND: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 1_000_000}


_NAMES: Final[Schema] = {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 256}}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 10**9}
_TERMS: Final[Schema] = {
    "role": {"enum": ["inference", "viewer", "admin"]},
    "tier": {"type": "string", "maxLength": 100},
    "privacy": {"enum": ["any", "local-only"]},
    "may_route": _BOOLEAN,
    "models": _NAMES,
    "backends": _NAMES,
    "expires": {"type": "string", "examples": ["90d", "2027-01-31T00:00:00Z", "never"]},
    "rpm": _COUNT,
    "tpm": _COUNT,
    "concurrent": _COUNT,
    "budget": {"type": "string", "examples": ["5/day", "none"]},
    "user_budget": {"type": "string", "examples": ["0.50/day", "none"]},
    "user_credits": {"type": "string", "examples": ["1000/month", "none"]},
    "user_better": {"type": "string", "examples": ["20/day", "none"]},
}
_KEY_TERMS: Final[Schema] = {name: {"anyOf": [term, {"type": "null"}]} for name, term in _TERMS.items()}
"""What a key may do, as `control/keys.py:KeyTerms` reads it."""


_WORD: Final[Schema] = {"type": "string", "maxLength": 100}
_TIME: Final[Schema] = {**_WORD, "examples": ["2026-11-20T14:00Z"]}
_USD: Final[Schema] = {**_WORD, "examples": ["1.39"]}
_RENTAL_PRICE: Final[Schema] = {
    "count": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 1024}, {"type": "null"}]},
    "price": _USD,
    "price_per_month": _USD,
}


_EVENT: Final[Schema] = {"type": "object", "properties": {"event": _TEXT, "data": _TEXT}}
"""One event of a stream."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What an operation takes and answers, beyond what FastAPI knows.

    `errors` names the statuses with which it can refuse. `body` is the schema of its JSON body, None if it reads none.
    """

    errors: tuple[int, ...]
    summary: str = ""
    body: Schema | None = None
    streams: bool = False
    parameters: tuple[Schema, ...] = ()
    answers: Mapping[str, str] = field(default_factory=lambda: {"200": "application/json"})


def _inference(summary: str, required: tuple[str, ...], properties: Schema, *, streams: bool = True) -> Operation:
    fields = {"model": {"type": "string", "minLength": 1, "maxLength": 256, "default": "auto"}, **properties}
    if streams:
        fields["stream"] = {"type": "boolean", "default": False}
    body = {"type": "object", "required": list(required), "properties": fields, "additionalProperties": True}
    return Operation(errors=_INFERENCE_ERRORS, summary=summary, body=body, streams=streams, parameters=_HINTS)


_INFERENCE_ERRORS: Final = (400, 401, 402, 403, 404, 408, 409, 413, 415, 422, 429, 500, 502, 503, 504)
_READING_ERRORS: Final = (401, 403, 429)
"""An address that failed too often to log in gets a 429."""
_BODY_ERRORS: Final = (400, 401, 403, 408, 413, 415, 429)
_STORED_ERRORS: Final = (400, *_READING_ERRORS, 404, 409, 422, 502, 503, 504)


def _header(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


def _query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


_HINTS: Final = (
    _header("x-spillway-privacy", {"enum": ["local-only", "any", "public", "false"]}, "local-only stays on the GPU"),
    _header("x-spillway-route", {"enum": ["local", "cloud", "auto"]}, "restricts the candidates, if the key may"),
    _header("x-spillway-min-confidence", {"type": "number", "minimum": 0, "maximum": 1}, "instead of the threshold"),
    _header("x-spillway-slo-ttft-ms", {"type": "integer", "minimum": 1, "maximum": 600_000}, "instead of slo.ttft_ms"),
    _header("x-spillway-max-cost-usd", {"type": "string", "pattern": r"^\d{1,4}(\.\d{1,9})?$"}, "bars dearer backends"),
    _header("x-spillway-usage-cost", {"enum": ["true", "false"]}, "adds usage.cost to the answer"),
    _header("x-session-id", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}, "same engine, same privacy"),
)
INFERENCE: Final[Mapping[str, Operation]] = {
    "/v1/chat/completions": _inference(
        "OpenAI chat completions",
        ("messages",),
        {"messages": _MESSAGES, "max_tokens": _OUTPUT_BOUND, "max_completion_tokens": _OUTPUT_BOUND},
    ),
    "/v1/completions": _inference(
        "OpenAI text completions", ("prompt",), {"prompt": _TEXT, "max_tokens": _OUTPUT_BOUND, "echo": _BOOLEAN}
    ),
    "/v1/embeddings": _inference("OpenAI embeddings", ("input",), {"input": _TEXT_OR_TEXTS}, streams=False),
    "/v1/responses": _inference(
        "OpenAI responses",
        ("input",),
        {"input": {"anyOf": [_TEXT, {"type": "array"}]}, "max_output_tokens": _OUTPUT_BOUND},
    ),
    "/v1/messages": _inference(
        "Anthropic messages",
        ("messages", "max_tokens"),
        {"messages": _MESSAGES, "max_tokens": _OUTPUT_BOUND, "system": _TEXT},
    ),
}
"""The routes that the frontend answers; each takes and passes on more fields than are named here."""
OWN: Final[Mapping[tuple[str, str], Operation]] = {
    ("get", "/"): Operation((), "The addresses of the most important endpoints"),
    ("get", "/health"): Operation((), "200 while the process runs"),
    ("get", "/ready"): Operation(
        (),
        "Whether a backend can answer; with a key the state of every backend",
        answers={"200": "application/json", "503": "application/json"},
    ),
    ("get", "/ping"): Operation((), "200 if a backend can answer, 204 while none can", answers={"200": "", "204": ""}),
    ("get", "/metrics"): Operation(_READING_ERRORS, "Prometheus metrics", answers={"200": "text/plain"}),
    ("post", "/admin/reload"): Operation((400, *_READING_ERRORS), "Reload the configuration"),
    ("get", "/admin/keys"): Operation((*_READING_ERRORS, 503), "All API keys, without their secrets"),
    ("post", "/admin/keys"): Operation(
        (*_BODY_ERRORS, 503),
        "Create an API key; its secret is in this answer only",
        {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 100}, **_KEY_TERMS},
            "additionalProperties": False,
        },
        answers={"201": "application/json"},
    ),
    ("get", "/admin/keys/{key_id}"): Operation((*_READING_ERRORS, 404, 503), "What one API key may do"),
    ("patch", "/admin/keys/{key_id}"): Operation(
        (*_BODY_ERRORS, 404, 409, 503),
        "Change what an API key may do; what is left out stays",
        {"type": "object", "properties": _KEY_TERMS, "additionalProperties": False},
    ),
    ("delete", "/admin/keys/{key_id}"): Operation((*_READING_ERRORS, 404, 409, 503), "Revoke an API key"),
    ("post", "/admin/keys/{key_id}/rotate"): Operation(
        (*_BODY_ERRORS, 404, 503),
        "Give an API key another secret, which is in this answer only",
        {
            "type": "object",
            "properties": {
                "grace": {
                    "type": "string",
                    "pattern": "^([0-9]{1,6}m|[0-9]{1,5}h|[0-9]{1,4}d|[0-9]{1,3}w)$",
                    "default": "24h",
                }
            },
            "additionalProperties": False,
        },
    ),
    ("get", "/admin/keys/{key_id}/provider-keys"): Operation(
        (*_READING_ERRORS, 503), "The providers of which keys are stored for an API key"
    ),
    ("put", "/admin/keys/{key_id}/provider-keys/{provider}"): Operation(
        (*_BODY_ERRORS, 404, 409, 503),
        "Store a provider key for an API key, or for one of its end users; it is in no answer",
        {
            "type": "object",
            "required": ["secret"],
            "properties": {
                "secret": {"type": "string", "minLength": 1, "maxLength": 1000},
                "user": {"type": "string", "maxLength": 1000},
            },
            "additionalProperties": False,
        },
    ),
    ("delete", "/admin/keys/{key_id}/provider-keys/{provider}"): Operation(
        (*_READING_ERRORS, 404, 503), "Delete a stored provider key"
    ),
    ("get", "/v1/rentals"): Operation((*_READING_ERRORS, 503), "All rentals of GPUs, with what they have cost"),
    ("post", "/admin/rentals"): Operation(
        (*_BODY_ERRORS, 503),
        "Record that GPUs are rented",
        {
            "type": "object",
            "properties": {
                "gpu": _WORD,
                "kind": {"enum": ["", "reserved", "interruptible"]},
                "source": {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,19}$", "default": "cli"},
                "machine": {"type": "string", "maxLength": 200},
                "another": _BOOLEAN,
                "at": _TIME,
                **_RENTAL_PRICE,
            },
            "additionalProperties": False,
        },
        answers={"201": "application/json"},
    ),
    ("post", "/admin/rentals/{rental_id}/stop"): Operation(
        (*_BODY_ERRORS, 404, 503),
        "Record that GPUs are no longer rented; `all` stands for every running rental",
        {"type": "object", "properties": {"at": _TIME}, "additionalProperties": False},
    ),
    ("patch", "/admin/rentals/{rental_id}"): Operation(
        (*_BODY_ERRORS, 404, 503),
        "Put right what is recorded of a rental; what is left out was right",
        {
            "type": "object",
            "properties": {
                "from": _TIME,
                "until": _TIME,
                "void": _BOOLEAN,
                "dry_run": _BOOLEAN,
                **_RENTAL_PRICE,
            },
            "additionalProperties": False,
        },
    ),
    ("get", "/v1/prices"): Operation(
        (400, *_READING_ERRORS),
        "What the models cost on a day, in USD per million tokens",
    ),
    ("get", "/v1/models"): Operation(_READING_ERRORS, "The aliases and the backends"),
    ("get", "/v1/models/{model_id}"): Operation((*_READING_ERRORS, 404), "One alias or backend"),
    ("get", "/v1/requests"): Operation((400, *_READING_ERRORS), "The newest requests, one line each"),
    ("get", "/v1/requests/{request_id}"): Operation((*_READING_ERRORS, 404), "The record of a request"),
    ("post", "/v1/messages/count_tokens"): Operation(
        (*_BODY_ERRORS, 404, 422, 502, 503, 504),
        "Count the input tokens of a message; costs nothing",
        {
            "type": "object",
            "required": ["messages"],
            "properties": {
                "model": {"type": "string", "minLength": 1, "maxLength": 256, "default": "auto"},
                "messages": _MESSAGES,
                "system": _TEXT,
            },
        },
    ),
    ("post", "/v1/responses/input_tokens"): Operation(
        (*_BODY_ERRORS, 404, 422, 502, 503, 504),
        "Count the input tokens of a response; costs nothing",
        {
            "type": "object",
            "required": ["input"],
            "properties": {
                "model": {"type": "string", "minLength": 1, "maxLength": 256, "default": "auto"},
                "input": {"anyOf": [_TEXT, {"type": "array"}]},
                "instructions": _TEXT,
            },
        },
    ),
    ("get", "/v1/responses/{response_id}"): Operation(_STORED_ERRORS, "A response, from the backend that made it"),
    ("delete", "/v1/responses/{response_id}"): Operation(_STORED_ERRORS, "Delete a response where it was made"),
    ("post", "/v1/responses/{response_id}/cancel"): Operation(_STORED_ERRORS, "Cancel a response where it was made"),
    ("get", "/v1/responses/{response_id}/input_items"): Operation(_STORED_ERRORS, "The input of a response"),
    ("post", "/v1/route/explain"): Operation(
        _BODY_ERRORS,
        "Dry-run a routing decision; nothing is sent",
        {
            "type": "object",
            "required": ["messages"],
            "properties": {"model": {"type": "string", "minLength": 1, "maxLength": 256}, "messages": _MESSAGES},
        },
        parameters=_HINTS,
    ),
    ("get", "/v1/usage"): Operation((400, *_READING_ERRORS, 503), "Both sides of the cost"),
    ("post", "/v1/feedback"): Operation(
        (*_BODY_ERRORS, 404, 409, 503),
        "Rate an answer, and ask for a better one",
        {
            "type": "object",
            "required": ["request_id"],
            "properties": {
                "request_id": {"type": "string", "minLength": 1, "maxLength": 64},
                "rating": {
                    "anyOf": [
                        {"type": "integer", "minimum": 1, "maximum": 5},
                        _BOOLEAN,
                        {"enum": ["up", "good", "down", "bad"]},
                    ]
                },
                "reason": _TEXT,
                "retry": _BOOLEAN,
            },
            "additionalProperties": False,
        },
    ),
    ("post", "/v1/documents/extract"): Operation(
        (*_BODY_ERRORS, 402, 404, 409, 429, 502, 503, 504),
        "Read values from a document",
        {
            "type": "object",
            "anyOf": [{"required": ["text"]}, {"required": ["file"]}],
            "properties": {
                "text": {"type": "string", "minLength": 1, "pattern": r"\S"},
                "file": {
                    "type": ["object", "null"],
                    "required": ["data"],
                    "properties": {
                        "data": {"type": "string", "contentEncoding": "base64", "minLength": 4},
                        "name": _TEXT,
                    },
                    "additionalProperties": False,
                },
                "min_confidence": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]},
                "parser": {"enum": ["auto", "none", None]},
                "review": {"type": ["boolean", "null"], "default": True},
            },
            "additionalProperties": False,
        },
    ),
    ("get", "/v1/reviews"): Operation(
        (400, *_READING_ERRORS, 503),
        "Documents that wait for a person",
        parameters=(
            _query("state", {"enum": ["open", "accepted", "corrected", "dismissed"]}, "only in this state"),
            _query("schema", _TEXT, "only of this schema"),
            _query("since_ms", {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}, "only newer ones"),
            _query(
                "limit", {"type": "integer", "minimum": 1, "maximum": 10**15 - 1, "default": 50}, "at most 500 are sent"
            ),
            _query("after", {"type": "string", "pattern": r"^([0-9]{1,15}\..*)?$"}, "`next` of the previous page"),
        ),
    ),
    ("get", "/v1/reviews/{review_id}"): Operation((*_READING_ERRORS, 404, 503), "One review with its document"),
    ("post", "/v1/reviews/{review_id}"): Operation(
        (*_BODY_ERRORS, 404, 409, 503),
        "Decide a review",
        {
            "type": "object",
            "required": ["action"],
            "properties": {
                "action": {"enum": ["accept", "correct", "dismiss"]},
                "values": {"type": "object", "additionalProperties": True},
            },
            "additionalProperties": False,
        },
    ),
}
"""Every route of the control API."""
OPEN: Final = frozenset({"/", "/health", "/ready", "/ping"})
"""Paths that need no key."""
_MEANINGS: Final[Mapping[int, str]] = {
    400: "The request cannot be understood or served; `param` names the field or header.",
    401: "The key is missing, unknown or revoked.",
    402: "No budget or `x-spillway-max-cost-usd` covers the request.",
    403: "The key's role may not do this.",
    404: "The model, request, review or address is unknown.",
    408: "The body did not arrive in time.",
    409: "The idempotency key was used for another request, or the state of things forbids it.",
    413: "The body is too large.",
    415: "The body is not JSON, or has an unknown encoding.",
    422: "The backend refused the request itself.",
    429: "A rate limit is used up; `retry-after` says when to retry.",
    500: "A bug in the router.",
    502: "The backend failed.",
    503: "No backend can answer now; `retry-after` says when to retry.",
    504: "The backend did not answer in time.",
}
_COMPONENTS: Final[Schema] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": _TEXT,
                    "type": _TEXT,
                    "param": {"anyOf": [_TEXT, {"type": "null"}]},
                    "code": {"anyOf": [_TEXT, {"type": "null"}]},
                },
            }
        },
    },
    "AnthropicError": {
        "type": "object",
        "required": ["type", "error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": _TEXT, "message": _TEXT},
            },
        },
    },
}
_SECURITY: Final[Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def described(api: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return the function that FastAPI calls for /openapi.json. It builds the description on its first call, when all
    routes were added."""

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            document = get_openapi(title=api.title, version=api.version, routes=api.routes)
            api.openapi_schema = complete(document)
        return api.openapi_schema

    return openapi


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add the inference routes, bodies, errors and keys to FastAPI's description."""
    paths: dict[str, Any] = document["paths"]
    for path, operation in INFERENCE.items():
        paths[path] = {"post": {"operationId": f"post{path.replace('/', '_')}", "responses": {}}}
        _complete(paths[path]["post"], path, operation)
    for path, method, described_operation in _own_operations(paths):
        _complete(described_operation, path, OWN[method, path])
    document["components"] = {"schemas": dict(_COMPONENTS), "securitySchemes": dict(_SECURITY)}
    return document


def _own_operations(paths: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in paths.items():
        yield from ((path, method, operation) for method, operation in methods.items() if (method, path) in OWN)


def _complete(target: dict[str, Any], path: str, operation: Operation) -> None:
    """Write what an operation takes and answers into its description."""
    target["summary"] = operation.summary or target.get("summary", "")
    answers = {status: _answer(kind) for status, kind in operation.answers.items()}
    if operation.streams:
        answers["200"]["content"]["text/event-stream"] = {"schema": _EVENT}
    errors = {str(status): _error(path, status) for status in operation.errors}
    target["responses"] = {**answers, **errors}
    if operation.body is not None:
        content = {"application/json": {"schema": operation.body}}
        target["requestBody"] = {"required": True, "content": content}
    if operation.parameters:
        target["parameters"] = [*target.get("parameters", ()), *operation.parameters]
    if path not in OPEN:
        target["security"] = [{}, *({name: []} for name in _SECURITY)]


def _answer(kind: str) -> dict[str, Any]:
    content = {} if not kind else {kind: {"schema": {"type": "string" if kind.startswith("text/") else "object"}}}
    return {"description": "The answer.", **({"content": content} if content else {})}


def _error(path: str, status: int) -> dict[str, Any]:
    name = "AnthropicError" if path.startswith("/v1/messages") else "Error"
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": _MEANINGS[status], "content": {"application/json": {"schema": schema}}}
