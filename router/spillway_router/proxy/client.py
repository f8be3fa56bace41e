"""The client's side of the socket: read its body once, and notice when it leaves.

uvicorn's `send` does nothing after a disconnect, so a relay that only sends would pay a GPU or a cloud to the end for
nobody. `watch` waits on `receive` beside the work and cancels it when the client is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType

from spillway_router.core.model import Refusal
from spillway_router.proxy.replies import Receive
from spillway_router.proxy.wire import BadRequestError, bad


class ClientGoneError(Exception):
    """The client left before its request was whole."""


async def read_body(receive: Receive, headers: Mapping[str, str], limit: int, within_s: float) -> bytes:
    """The request's body. Raises BadRequestError (415 not JSON, 413 above `limit`, 408 slow) or ClientGoneError."""
    check_type(headers)
    length = headers.get("content-length")
    if length is not None:
        if "transfer-encoding" in headers:
            raise bad("Content-Length and Transfer-Encoding were both sent. Send one of them.")
        if length.isdecimal() and int(length) > limit:
            raise too_large(limit)
    try:
        async with asyncio.timeout(within_s):
            return await _all(receive, limit)
    except TimeoutError:
        message_text = f"The request body did not arrive within {within_s:g} s."
        raise BadRequestError(Refusal(408, "invalid_request", message_text)) from None


async def _all(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while (message := await receive())["type"] == "http.request":
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
        if not message.get("more_body"):
            return part if len(parts) == 1 else b"".join(parts)
    raise ClientGoneError


def check_type(headers: Mapping[str, str]) -> None:
    """Raises BadRequestError unless the body is said to be JSON.

    A web page of another origin can make a browser POST text, forms or untyped bytes without asking first, also to a
    router on loopback that needs no key; it can't do so with JSON.
    """
    kind = headers.get("content-type", "")
    if kind == "application/json":
        return
    media = kind.partition(";")[0].strip().lower()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        message = "Send the body as JSON, with the header 'content-type: application/json'."
        raise BadRequestError(Refusal(415, "invalid_request", message, "content-type"))


def too_large(limit: int) -> BadRequestError:
    """A 413 that names the limit."""
    message = f"The request body is larger than {limit} bytes. Send less, or raise limits.body_mb."
    return BadRequestError(Refusal(413, "request_too_large", message))


class watch:  # noqa: N801  # used like a function: `async with watch(receive, loop) as client`
    """Cancels the surrounding task when the client leaves; `gone` tells that from other cancellations."""

    __slots__ = ("_loop", "_owner", "_receive", "_task", "gone")

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self._receive = receive
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._owner: asyncio.Task[object] | None = None
        self.gone = False

    async def __aenter__(self) -> watch:
        self._owner = asyncio.current_task(self._loop)
        self._task = self._loop.create_task(self._wait())
        return self

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._owner is not None:
            self._owner.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        assert self._task is not None
        self._owner = None
        self._task.cancel()
        if self.gone and kind is asyncio.CancelledError:
            task = asyncio.current_task(self._loop)
            if task is not None and task.uncancel() == 0:
                return True
        return False
