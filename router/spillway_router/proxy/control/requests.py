"""What control routes read from a request: its caller and its JSON body."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.body import head_flaw, load, too_large
from spillway_router.proxy.request.content_encoding import BYTE_ORDER_MARK, decoded, encoding_of
from spillway_router.proxy.request.errors import RefusedError


def caller_of(services: Services, request: Request, roles: frozenset[str]) -> Caller:
    """Authenticate the caller. Raise RefusedError without a valid key, or if its role is none of `roles`."""
    auth = services.config().auth
    caller = auth.caller(request.headers, services.clock())
    refusal = caller if isinstance(caller, Refusal) else auth.admit(caller, roles)
    if isinstance(refusal, Refusal):
        raise RefusedError(refusal)
    assert isinstance(caller, Caller)
    return caller


async def json_body(services: Services, request: Request) -> dict[str, Any]:
    """Read the body as a JSON object. Raise RefusedError if its type is another, or it is too large or malformed."""
    limit = services.config().limits.body_bytes
    flaw = head_flaw(request.headers, limit)
    if flaw is not None:
        raise RefusedError(flaw)
    return load(await bounded_body(request, limit))


async def bounded_body(request: Request, limit: int) -> bytes:
    """Read the body and decode it, to at most `limit` bytes. Raise RefusedError if it is larger or malformed."""
    coding = encoding_of(request.headers.get("content-encoding", ""))
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise RefusedError(too_large(limit))
        parts.append(part)
    body = b"".join(parts)
    if coding:
        body = await decoded(body, limit)
    return body.removeprefix(BYTE_ORDER_MARK)
