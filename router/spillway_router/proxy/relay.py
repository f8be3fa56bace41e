"""One answer stream from upstream to client, kept to the stream promise (DESIGN 4).

    hold     until the first content, tool, reasoning or finish event: nothing has reached the client yet, so a
             failure here is an Outcome and the next candidate may be asked
    forward  raw bytes of whole, checked events; a failure here is final
    tail     from the event that finishes the answer on, bytes are held again until the answer is complete and its
             ledger row is on disk; then they go out and the stream ends

The relay reads and judges; it decides nothing about money or candidates. `Tail` is what it hands over at the end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from spillway_router.core.model import Outcome
from spillway_router.core.tariff import usd
from spillway_router.providers.base import Judge
from spillway_router.providers.connection import StallError, TransportError
from spillway_router.providers.sse import Event, SseDecoder, SseError
from spillway_router.providers.streams import DONE
from spillway_router.providers.transport import Response

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
    """Reads one upstream stream. Call `begin`, then `forward` if that gave no outcome."""

    __slots__ = (
        "_decoder",
        "_done_follows",
        "_judge",
        "_response",
        "_stall_s",
        "done_seen",
        "flaw",
        "held",
        "stalled",
        "steps",
        "tail",
    )

    def __init__(self, response: Response, judge: Judge, stall_s: float, *, done_follows: bool) -> None:
        self._response = response
        self._judge = judge
        self._decoder = SseDecoder()
        self._stall_s = stall_s
        self._done_follows = done_follows
        """Usage and [DONE] come after the finishing event; in the other protocols that event is the last."""
        self.held = Held([])
        self.tail = Held([])
        self.steps = 0
        """Events with data that came: at least one token each, the best count when an answer breaks off."""
        self.done_seen = False
        self.flaw: str | None = None
        self.stalled = False

    async def begin(self) -> Outcome | None:
        """Read until the answer has begun: None, or why it never did. The caller set the deadline."""
        while not self._judge.started:
            data = await self._response.read()
            if not data:
                return Outcome("failed", 200, self._judge.complete() or "the stream ended without content")
            flaw = self._take(data, self.held)
            if flaw is not None:
                return Outcome("overloaded" if self._judge.overloaded else "failed", 200, flaw)
            if self.held.size > MAX_HELD_BYTES:
                return Outcome("failed", 200, f"no content within the first {MAX_HELD_BYTES} bytes")
        return None

    async def forward(self, send: Callable[[bytes], Awaitable[None]]) -> str | None:
        """Relay until the finishing event is held in `tail`: None, or what broke the answer."""
        head = b"".join(event.raw for event in self.held.events)
        self.held.events.clear()
        if head:
            await send(head)
        self._response.expect_within(self._stall_s)
        while self.flaw is None and not self._judge.finished:
            try:
                data = await self._response.read()
            except TransportError as error:
                self.stalled = isinstance(error, StallError)
                return str(error)
            if not data:
                return self._judge.complete() or "the stream ended early"
            good = self._pass(data)
            if good:
                await send(good)
        return self.flaw

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
            flaw = self._take(data, self.tail)
            if flaw is not None:
                return flaw
            if self.tail.size > MAX_HELD_BYTES:
                return "too much data after the finishing event"
        return None

    def _pass(self, data: bytes) -> bytes:
        """The bytes of `data` that may go on now; sets `flaw`, or fills `tail` from the finishing event on."""
        judge = self._judge
        try:
            events = self._decoder.feed(data)
        except SseError as error:
            self.flaw = str(error)
            return b""
        good = 0
        for event in events:
            if event.data is not None:
                self.flaw = judge.see(event.name, event.data)
                if self.flaw is not None:
                    break
                self.steps += 1
                if judge.finished:
                    break
            good += 1
        if any(event.data is not None for event in events):
            self._response.expect_within(self._stall_s)
        if self.flaw is None and judge.finished:
            self._fill_tail(events[good:])
        # Never `data` itself: it may begin and end inside events, whatever its length.
        return b"".join(event.raw for event in events[:good])

    def _fill_tail(self, events: list[Event]) -> None:
        for i, event in enumerate(events):
            self.tail.add(event)
            if i and event.data is not None and self.flaw is None:
                self.flaw = self._judge.see(event.name, event.data)
            self.done_seen = self.done_seen or event.data == DONE

    def _take(self, data: bytes, into: Held) -> str | None:
        try:
            events = self._decoder.feed(data)
        except SseError as error:
            return str(error)
        for event in events:
            if event.data is not None:
                flaw = self._judge.see(event.name, event.data)
                if flaw is not None:
                    return flaw
                self.steps += 1
                self.done_seen = self.done_seen or event.data == DONE
            (self.tail if self._judge.finished else into).add(event)
        return None


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
