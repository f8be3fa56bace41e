"""Reading a request and writing an answer as a bare ASGI application does, for the fakes that are one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from spillway_router.testing.openai_wire import EVENT_STREAM, JSON

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BodyTooLargeError(Exception):
    """A request's body is larger than allowed."""


async def read_body(receive: Receive, most_bytes: int | None = None) -> bytes:
    """Read the whole body of a request.

    Raises:
        BodyTooLargeError: it has more than `most_bytes` bytes.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        parts.append(bytes(message.get("body", b"")))
        size += len(parts[-1])
        if most_bytes is not None and size > most_bytes:
            raise BodyTooLargeError
        if not message.get("more_body"):
            return b"".join(parts)


async def wait_until_disconnected(receive: Receive) -> None:
    """Return when the client is gone. The request's body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_answer(send: Send, status: int, body: bytes, content_type: str = JSON) -> None:
    """Send a whole answer."""
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def start_event_stream(send: Send) -> None:
    """Send the head of an event stream; `send_part` sends its events."""
    headers = [(b"content-type", f"{EVENT_STREAM}; charset=utf-8".encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def send_part(send: Send, data: bytes, *, last: bool = False) -> None:
    """Send a part of a stream."""
    await send({"type": "http.response.body", "body": data, "more_body": not last})
