"""What control routes read from a request: its caller and its JSON body."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.http_client.encoded import BYTE_ORDER_MARK
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.body import head_flaw, load, too_large
from spillway_router.proxy.request.body_memory import HELD_BODY, HeldBody
from spillway_router.proxy.request.content_encoding import decoded, encoding_of
from spillway_router.proxy.request.errors import RefusedError, bad_request
from spillway_router.proxy.request.large_body import LARGE, read_body, whole_body

FORM_BYTES = 1 << 20
"""Most bytes of a body that holds neither a prompt nor a document."""
_Form = TypeVar("_Form", bound=BaseModel)


def caller_of(services: Services, request: Request, roles: frozenset[str]) -> Caller:
    """Authenticate the caller. Raise RefusedError without a valid key, or if its role is none of `roles`."""
    auth = services.config().auth
    caller = auth.permitted(request.headers, services.clock(), host_of(request), roles)
    if isinstance(caller, Refusal):
        raise RefusedError(caller)
    request.state.key_id = caller.key_id  # for the count of what is refused to whom
    return caller


def host_of(request: Request) -> str:
    """Return the peer's address; "" if it has none."""
    return request.client.host if request.client else ""


async def json_body(
    services: Services, request: Request, caller: Caller, most_bytes: int = FORM_BYTES
) -> dict[str, Any]:
    """Read the body as a JSON object. Raise RefusedError if its type is another, or it is too large or malformed."""
    body = await bounded_body(services, request, caller, most_bytes=most_bytes)
    if len(body) <= LARGE:
        return load(body)
    return whole_body(await read_body(body, key_id=caller.key_id), body)


async def form_of(form: type[_Form], services: Services, request: Request, caller: Caller) -> _Form:
    """Read the body as what a pydantic model describes. Raise RefusedError with the first member that is wrong."""
    try:
        return form.model_validate(await json_body(services, request, caller))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        raise bad_request(f"{name}: {first['msg']}.", name) from None


async def bounded_body(
    services: Services,
    request: Request,
    caller: Caller,
    media: frozenset[str] = frozenset(),
    most_bytes: int = sys.maxsize,
) -> bytes:
    """Read the body and decode it. `media` are the content types that are accepted instead of JSON.
    It may have `limits.body_mb`, and no more than `most_bytes`.

    Raise RefusedError if it is too large, late or malformed, or if there is no room for it: it counts among the bodies
    of all requests until the request ends.
    """
    limits = services.config().limits
    limit = min(limits.body_bytes, most_bytes)
    flaw = head_flaw(request.headers, limit, media)
    if flaw is not None:
        raise RefusedError(flaw)
    held: HeldBody = request.scope[HELD_BODY]
    coding = encoding_of(request.headers.get("content-encoding", ""))

    def grow(size: int) -> Refusal | None:
        return held.grow(caller.key_id, size, limits.bodies_bytes, limits.body_bytes)

    try:
        async with asyncio.timeout(limits.body_s):
            body = await _arriving(request, limit, grow)
    except TimeoutError:
        message = f"The request body did not arrive within {limits.body_s:g} s."
        raise RefusedError(Refusal(408, "invalid_request", message)) from None
    if coding:
        body = await decoded(body, limit, grow)
    return body.removeprefix(BYTE_ORDER_MARK)


async def _arriving(request: Request, limit: int, grow: Callable[[int], Refusal | None]) -> bytes:
    """Collect the body. `grow` counts its bytes before they are kept, all of them at once where their number is
    known. The parts of a large body are not joined at its end, which would stop the loop for 40 ms."""
    length = request.headers.get("content-length", "")
    refusal = grow(int(length)) if length.isdecimal() else None
    if refusal is not None:
        raise RefusedError(refusal)
    collected, size = io.BytesIO(), 0
    async for part in request.stream():
        size += len(part)
        refusal = too_large(limit) if size > limit else grow(size)
        if refusal is not None:
            raise RefusedError(refusal)
        collected.write(part)
    return collected.getvalue()  # its own buffer, not a copy
