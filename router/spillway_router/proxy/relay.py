"""One answer stream from upstream to client, kept to the stream promise (DESIGN 4).

    hold     until the first content, tool, reasoning or finish event: nothing has reached the client yet, so a
             failure here is an Outcome and the next candidate may be asked
    forward  raw bytes of whole, checked events; a failure here is final
    tail     from the event that finishes the answer on, bytes are held again until the answer is complete and its
             ledger row is on disk; then they go out and the stream ends

The relay reads and judges; it decides nothing about money or candidates. `Tail` is what it hands over at the end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import orjson

from spillway_router.core.model import Outcome
from spillway_router.core.tariff import usd
from spillway_router.providers.base import Judge
from spillway_router.providers.connection import StallError, TransportError
from spillway_router.providers.sse import Event, SseDecoder, SseError
from spillway_router.providers.streams import DONE
from spillway_router.providers.transport import Response
from spillway_router.proxy.client import Client

TAIL_S = 5.0
"""After the finishing event, how long usage and [DONE] may take."""
MAX_HELD_BYTES = 1024 * 1024


@dataclass(slots=True)
class Held:
    """Events that came but were not forwarded yet."""

    events: list[Event]
    size: int = 0

    def add(self, event: Event) -> None:
        """Hold one more."""
        self.events.append(event)
        self.size += len(event.raw)


class Relay:
    """Reads one upstream stream. Call `begin`, then, if that gave no outcome, `opening`, `forward` and `finish`."""

    __slots__ = (
        "_client", "_decoder", "_done_follows", "_head", "_judge", "_response", "_stall_s", "done_seen", "flaw",
        "stalled", "steps", "tail",
    )  # fmt: skip

    def __init__(self, response: Response, judge: Judge, stall_s: float, *, done_follows: bool) -> None:
        self._response = response
        self._judge = judge
        self._decoder = SseDecoder()
        self._stall_s = stall_s
        self._done_follows = done_follows
        """Usage and [DONE] come after the finishing event; in the other protocols that event is the last."""
        self._head: list[bytes] = []
        self._client: Client | None = None
        self.tail = Held([])
        self.steps = 0
        """Events with data that came: at least one token each, the best count when an answer breaks off."""
        self.done_seen = False
        self.flaw: str | None = None
        self.stalled = False

    async def begin(self) -> Outcome | None:
        """Read until the answer has begun: None, or why it never did. The caller set the deadline."""
        size = 0
        while not self._judge.started:
            data = await self._response.read()
            if not data:
                return Outcome("failed", 200, self._judge.complete() or "the stream ended without content")
            self._head.append(self._take(data))
            if self.flaw is not None:
                return Outcome("overloaded" if self._judge.overloaded else "failed", 200, self.flaw)
            size += len(data)
            if size > MAX_HELD_BYTES:
                return Outcome("failed", 200, f"no content within the first {MAX_HELD_BYTES} bytes")
        return None

    def opening(self) -> bytes:
        """What was held until the answer had begun."""
        return b"".join(self._head)

    async def forward(self, client: Client) -> str | None:
        """Relay until the finishing event is held in `tail`: None, or what broke the answer."""
        self._client = client
        self._response.expect_within(self._stall_s)
        while self.flaw is None and not self._judge.finished:
            if client.paused:
                await client.drain()
            try:
                more = await self._response.pump(self._forward)
            except TransportError as error:
                self.stalled = isinstance(error, StallError)
                return str(error)
            if not more and not self._judge.finished:
                return self.flaw or self._judge.complete() or "the stream ended early"
        return self.flaw

    def _forward(self, data: bytes) -> bool:
        """What came goes on to the client, within the callback of the upstream's socket. False: stop, look, wait."""
        client = self._client
        assert client is not None
        before = self.steps
        good = self._take(data)
        if self.steps > before:
            self._response.expect_within(self._stall_s)
        if good:
            client.write(good)
        return self.flaw is None and not self._judge.finished and not client.paused

    async def forward_within(self, client: Client, seconds: float | None) -> str | None:
        """Forward and finish, for at most so many seconds: None, or what broke the answer."""
        if seconds is None:
            return await self.forward(client) or await self.finish()
        try:
            async with asyncio.timeout(seconds):
                return await self.forward(client) or await self.finish()
        except TimeoutError:
            self.stalled = True
            return "it took as long as was reserved for it (limits.answer_s)"

    async def finish(self) -> str | None:
        """Read what follows the finishing event (usage, [DONE]) into `tail`: None, or what broke it."""
        if not self._done_follows:
            return None
        self._response.expect_within(TAIL_S)
        while not self.done_seen:
            try:
                data = await self._response.read()
            except StallError:
                return None  # the answer is whole; only its [DONE] is missing
            except TransportError as error:
                return str(error)
            if not data:
                return "the stream ended inside an event" if self._decoder.pending else None
            self._take(data)
            if self.flaw is not None:
                return self.flaw
            if self.tail.size > MAX_HELD_BYTES:
                return "too much data after the finishing event"
        return None

    def _take(self, data: bytes) -> bytes:
        """The bytes of whole, good events that may go on; from the finishing event on they gather in `tail`.

        Never `data` itself: it may begin and end inside events, whatever its length.
        """
        try:
            events = self._decoder.feed(data)
        except SseError as error:
            self.flaw = str(error)
            return b""
        judge, good = self._judge, []
        for event in events:
            seen = event.data
            if seen is not None:
                self.flaw = judge.see(event.name, seen)
                if self.flaw is not None:
                    break
                self.steps += 1
            if judge.finished:
                self.tail.add(event)
                self.done_seen = self.done_seen or seen == DONE
            else:
                good.append(event.raw)
        return good[0] if len(good) == 1 else b"".join(good)


def tail_bytes(tail: Held, *, usage_asked: bool, usage_added: bool, cost_nano: int | None, closing: bytes) -> bytes:
    """The held end of a stream as the client gets it.

    A usage event that only we asked for is left out; one that the client asked for carries `usage.cost` in USD.
    `closing` ([DONE] of the OpenAI streams) is added if the upstream left it out.
    """
    parts: list[bytes] = []
    done = False
    for event in tail.events:
        done = done or event.data == DONE
        raw = event.raw
        if event.data is not None and b'"usage"' in event.data and event.data != DONE:
            raw = _with_usage(event, usage_asked=usage_asked, usage_added=usage_added, cost_nano=cost_nano)
        parts.append(raw)
    if not done:
        parts.append(closing)
    return b"".join(parts)


def _with_usage(event: Event, *, usage_asked: bool, usage_added: bool, cost_nano: int | None) -> bytes:
    assert event.data is not None
    body = orjson.loads(event.data)
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return event.raw
    if usage_added and not usage_asked:
        if not body.get("choices"):
            return b""
        del body["usage"]
    elif cost_nano is not None:
        usage["cost"] = float(usd(cost_nano))
    else:
        return event.raw
    name = b"event: " + event.name + b"\n" if event.name else b""
    return name + b"data: " + orjson.dumps(body) + b"\n\n"
