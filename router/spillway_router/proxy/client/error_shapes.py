"""The three shapes of an error: those of OpenAI's API, of Anthropic's messages and of the Responses API's streams.

Every client library raises by its own protocol's shape and skips what it does not know, so that an error in another
shape would be taken for the end of a whole answer:

    chat, completions, embeddings   {"error": {...}}; in a stream the same as the data of an unnamed event
    messages                        {"type": "error", "error": {...}}; in a stream as the data of `event: error`
    responses                       {"error": {...}}; in a stream as the data of `event: error`, with its members beside
                                    it too (the API's own schema), its `type` and its place in the stream
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from spillway_router.core.routing.model import Endpoint, Refusal

OPENAI_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
"""`type` by status in OpenAI's shape; any other status is an `api_error`."""
ANTHROPIC_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",  # Anthropic itself sends it with status 529, which no other protocol knows
    504: "timeout_error",
    529: "overloaded_error",
}
"""`type` by status in Anthropic's shape (docs.anthropic.com, Errors); any other status is an `api_error`."""
_OTHER = "api_error"
_KNOWN_ANTHROPIC = frozenset({*ANTHROPIC_TYPES.values(), _OTHER})
_ANSWERED: Final = {"type", "message"}
"""Members of an upstream's error that are never passed on as they are."""


def openai_error(
    status: int, code: str, message: str, param: str | None = None, upstream: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The `error` object of OpenAI's shape. `upstream`: the error object of the backend that refused the request; its
    own `type`, `param`, `code` and further members stand."""
    error: dict[str, Any] = {
        "message": message,
        "type": OPENAI_TYPES.get(status, _OTHER),
        "param": param,
        "code": code,
    }
    if upstream is not None:
        error |= {name: value for name, value in upstream.items() if name != "message" and value is not None}
    return error


def anthropic_error(
    status: int, code: str, message: str, param: str | None = None, upstream: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The whole body of Anthropic's shape. `code` and `param` are Spillway's additions, which clients ignore."""
    kind = ANTHROPIC_TYPES.get(status, _OTHER)
    error: dict[str, Any] = {"type": kind, "message": message, "code": code}
    if param is not None:
        error["param"] = param
    if upstream is not None:
        error |= {name: value for name, value in upstream.items() if name not in _ANSWERED and value is not None}
        if upstream.get("type") in _KNOWN_ANTHROPIC:
            error["type"] = upstream["type"]
    return {"type": "error", "error": error}


def error_body(refusal: Refusal, endpoint: Endpoint | None = None) -> dict[str, Any]:
    """The body of a whole error, in the shape of the endpoint. None: an endpoint of Spillway's own."""
    shape = (refusal.status, refusal.code, refusal.message, refusal.param, refusal.upstream)
    if endpoint == "messages":
        return anthropic_error(*shape)
    return {"error": openai_error(*shape)}


def error_event(endpoint: Endpoint, code: str, message: str, sequence_number: int) -> bytes:
    """The event that ends a stream which broke. `sequence_number`: how many events the stream had before it."""
    if endpoint == "messages":
        return b"event: error\ndata: " + orjson.dumps(anthropic_error(502, code, message)) + b"\n\n"
    error = openai_error(502, code, message)
    if endpoint == "responses":
        # openai-python and -node raise on `error`, others on the flat members that the API's schema names.
        event = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": sequence_number}
        return b"event: error\ndata: " + orjson.dumps({**event, "error": error}) + b"\n\n"
    return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


def endpoint_of(path: str) -> Endpoint | None:
    """The endpoint in whose shape an error on this path is told; None: OpenAI's shape."""
    return "messages" if path == "/v1/messages" or path.startswith("/v1/messages/") else None
