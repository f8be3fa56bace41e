"""One answer stream from upstream to client, kept to the stream promise (docs/stream-promise.md).

    hold     until the first content, tool, reasoning or finish event: nothing has reached the client yet, so a
             failure here is an Outcome and the next candidate may be asked
    forward  raw bytes of whole, checked events; a failure here is final
    tail     from the event that finishes the answer on, bytes are held again until the answer is complete and its
             ledger row is on disk; then they go out and the stream ends

The relay reads and judges; it decides nothing about money or candidates. `Tail` is what it hands over at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from spillway_router.core.frozen import dataclass
from spillway_router.core.money.tariff import Usage, usd
from spillway_router.core.routing.model import Outcome, OutcomeKind
from spillway_router.http_client.connection import StallError, TransportError
from spillway_router.http_client.pool import Response
from spillway_router.providers.interface import StreamMonitor
from spillway_router.providers.sse import Event, SseDecoder, SseError
from spillway_router.providers.streams import DONE
from spillway_router.proxy.client.client import Client
from spillway_router.proxy.exchange.attempt import ReceivedAnswer

TAIL_S = 5.0
"""After the finishing event, how long usage and [DONE] may take."""
MAX_HELD_BYTES = 1024 * 1024
MAX_HELD_ANSWER_BYTES = 8 * 1024 * 1024
"""Of an answer that is held back to be judged; a longer one is let go unjudged."""


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
        "_bytes", "_client", "_decoder", "_done_follows", "_head", "_judge", "_least", "_response", "_stall_s",
        "_told", "_whole", "done_seen", "flaw", "stalled", "steps", "strip", "tail",
    )  # fmt: skip

    def __init__(self, response: Response, judge: StreamMonitor, stall_s: float, *, done_follows: bool) -> None:
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
        self._bytes = 0
        self._least = MAX_HELD_BYTES
        """Bytes of the smallest event with data: about what an event has besides its text."""
        self._told = False
        """The upstream said itself that it failed."""
        self.done_seen = False
        self.flaw: str | None = None
        self.stalled = False
        self.strip: Callable[[Event], Event] | None = None
        """What takes out of an event that was judged what the client did not ask for."""
        self._whole = False
        """What follows the finishing event was read."""

    def seen(self, usage: Usage | None) -> ReceivedAnswer | None:
        """What came of the answer, with its usage if it was whole; None where more of it may be on its way than one
        can tell: the client reads slowly, or nothing came for long."""
        held_back = self._client is not None and self._client.paused
        if usage is None and (held_back or self.stalled):
            return None
        return ReceivedAnswer(self.steps, max(0, self._bytes - self.steps * (self._least - 1)), usage)

    async def begin(self) -> Outcome | None:
        """Read until the answer has begun: None, or why it never did. The caller set the deadline.

        A provider that says that it failed doesn't bill; one whose answer just ends or makes no sense may.
        """
        return await self._until(lambda: self._judge.started, "no content within the first")

    async def hold(self, enough: Callable[[], bool]) -> Outcome | None:
        """Read on, the client seeing nothing, until `enough`, until the answer is whole or more can't be held: None,
        or why the answer broke."""
        self._response.expect_within(self._stall_s)
        return await self._until(enough, "")

    async def _until(self, enough: Callable[[], bool], too_much: str) -> Outcome | None:
        """Gather what comes in `opening`. More bytes than may be held are a failure where `too_much` says so."""
        most = MAX_HELD_BYTES if too_much else MAX_HELD_ANSWER_BYTES
        size = 0
        while not self._judge.finished and not enough():
            before = self.steps
            data = await self._response.read()
            if not data:
                flaw = self._judge.missing() or "the stream ended without content"
                return Outcome("failed", 200, flaw, usage=self._judge.usage, billed=True)
            self._head.append(self._take(data))
            if self.flaw is not None:
                kind: OutcomeKind = "overloaded" if self._judge.overloaded else "failed"
                return Outcome(kind, 200, self.flaw, billed=not self._told and kind == "failed")
            size += len(data)
            if size > most:
                if not too_much:
                    break
                return Outcome("failed", 200, f"{too_much} {most} bytes", billed=True)
            if not too_much and self.steps > before:
                self._response.expect_within(self._stall_s)
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
                more = await self._response.stream_to(self._forward)
            except TransportError as error:
                self.stalled = isinstance(error, StallError)
                return str(error)
            if not more and not self._judge.finished:
                return self.flaw or self._judge.missing() or "the stream ended early"
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
        if not self._done_follows or self._whole:
            return None
        self._whole = True
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
        judge, strip, good = self._judge, self.strip, []
        for event in events:
            seen = event.data
            if seen is not None:
                self.flaw = judge.check(event.name, seen)
                if self.flaw is not None:
                    self._told = b"error" in seen or event.name == b"error"
                    break
                size = len(seen)
                self.steps += 1
                self._bytes += size
                if size < self._least and seen != DONE:
                    self._least = size
                if strip is not None:
                    event = strip(event)
            if judge.finished:
                self.tail.add(event)
                self.done_seen = self.done_seen or seen == DONE
            else:
                good.append(event.raw)
        return good[0] if len(good) == 1 else b"".join(good)


@dataclass(frozen=True, slots=True)
class Extension:
    """What our own side says at a stream's end: a member for the usage event, and the event to send if none carries
    it (empty: then it is not said)."""

    member: Mapping[str, Any]
    event: bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """How the held end of a stream goes out.

    A usage event that only we asked for is left out; one that the client asked for carries `usage.cost` in USD where
    `cost_nano` is there, and the extension. `closing` ([DONE] of the OpenAI streams) is added if the upstream left it
    out.
    """

    usage_asked: bool
    usage_added: bool
    cost_nano: int | None
    closing: bytes
    extension: Extension | None = None


def tail_bytes(tail: Held, ending: Ending) -> bytes:
    """The held end of a stream as the client gets it."""
    parts: list[bytes] = []
    done = told = False
    for event in tail.events:
        raw = event.raw
        if event.data == DONE:
            done = True
            if ending.extension is not None and not told:
                parts.append(ending.extension.event)
        elif event.data is not None and b'"usage"' in event.data:
            raw, carries = _with_usage(event, ending)
            told = told or carries
        parts.append(raw)
    if not done:
        if ending.extension is not None and not told:
            parts.append(ending.extension.event)
        parts.append(ending.closing)
    return b"".join(parts)


def _with_usage(event: Event, ending: Ending) -> tuple[bytes, bool]:
    """The event as the client gets it, and if it carries the extension."""
    assert event.data is not None
    body = orjson.loads(event.data)
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return event.raw, False
    carries = False
    if ending.usage_added and not ending.usage_asked:
        if not body.get("choices"):
            return b"", False
        del body["usage"]
    elif ending.cost_nano is not None or ending.extension is not None:
        if ending.cost_nano is not None:
            usage["cost"] = float(usd(ending.cost_nano))
        if ending.extension is not None:
            body["spillway"] = ending.extension.member
            carries = True
    else:
        return event.raw, False
    name = b"event: " + event.name + b"\n" if event.name else b""
    return name + b"data: " + orjson.dumps(body) + b"\n\n", carries
