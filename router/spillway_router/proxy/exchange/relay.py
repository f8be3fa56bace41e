"""One answer stream from upstream to client, kept to the stream promise (docs/stream-promise.md).

    hold     until the first content, tool, reasoning or finish event: nothing has reached the client yet, so a
             failure here is an Outcome and the next candidate may be asked
    forward  raw bytes of whole, checked events; a failure here is final
    tail     from the event that finishes the answer on, bytes are held again until the answer is complete and its
             ledger row is on disk; then `tail_bytes` makes what goes out, and the stream ends. If content follows, the
             finish was not the end, and what was held goes out. If nothing follows for `HELD_FINISH_S`, all but usage
             and [DONE] goes out

The relay reads and judges; it decides nothing about money or candidates.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spillway_router.aio.loop_lock import LoopLock
from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.tariff import Usage, usd
from spillway_router.core.routing.model import Outcome, OutcomeKind
from spillway_router.http_client.connection import StallError, TransportError
from spillway_router.http_client.pool import Response
from spillway_router.providers.interface import StreamMonitor
from spillway_router.providers.sse import Event, SseDecoder, SseError
from spillway_router.providers.streams import DONE, json_bytes, parse_object
from spillway_router.proxy.client.client import Client
from spillway_router.proxy.exchange.active_config import DrainLimits, Pace
from spillway_router.proxy.exchange.attempt import ReceivedAnswer
from spillway_router.proxy.exchange.outcomes import REPORTED_ERROR
from spillway_router.proxy.exchange.upstream_body import with_cost
from spillway_router.proxy.request.body import edit, spans

LARGE_EVENTS = LoopLock()
"""Held while an event of several MB is judged."""
LATE_USAGE_S = 0.5
"""How long usage may take after [DONE], where none came before it."""
TAIL_S = 5.0
"""How long usage and [DONE] may take after the finishing event."""
HELD_FINISH_S = 0.25
"""How long the finishing event itself is held for usage and [DONE], which usually arrive with it."""
HELD_UP_CHECK_S = 1.0
"""How often a client that does not read on is reported."""
MAX_HELD_BYTES = 1024 * 1024
"""Most bytes of whole events before the first content, and after the finishing event. The decoder bounds a single
event."""
MAX_HELD_ANSWER_BYTES = 8 * 1024 * 1024
"""Most bytes of an answer that is held back to be judged; a longer one is released unjudged."""


_BLANK_LINE = b"\n\n"
"""What a body lacks whose last event has no end of its own."""


@dataclass(slots=True)
class HeldEvents:
    """Events that arrived but were not forwarded yet, and their bytes."""

    events: list[Event]
    size: int = 0

    def add(self, event: Event) -> None:
        """Hold one more event."""
        self.events.append(event)
        self.size += len(event.raw)

    def release(self) -> bytes:
        """Return the bytes of the events that need not wait for the ledger row; events with usage alone, and [DONE],
        are still held."""
        released = [event for event in self.events if not _waits_for_row(event)]
        self.events = [event for event in self.events if _waits_for_row(event)]
        self.size = sum([len(event.raw) for event in self.events])
        return b"".join([event.raw for event in released])


def _waits_for_row(event: Event) -> bool:
    data = event.data
    if data is None or data == DONE:
        return data is not None
    if b'"usage"' not in data:
        return False
    body = parse_object(data)
    return isinstance(body, dict) and not body.get("choices")


class Relay:
    """Reads one upstream stream: `begin`, perhaps `hold`, then `opening`, `forward` and `finish`.

    `stall_s` bounds the time between two events. `done_follows`: usage and [DONE] come after the finishing event; in
    the other protocols that event is the last, and nothing after it is read. `strip` removes from an event that was
    judged what the client did not ask for, and `hides_null_usage` the empty usage in every event.
    """

    __slots__ = (
        "_client", "_decoder", "_done_follows", "_finish_seen", "_head", "_hides_null_usage", "_monitor", "_response",
        "_resumed", "_stall_s", "_strip", "_tail_read", "_unexpected", "_upstream_ended",
        "_upstream_reported_error", "done_seen", "events", "flaw", "held_up_s",
        "on_held_up", "stalled", "tail",
    )  # fmt: skip

    def __init__(
        self,
        response: Response,
        monitor: StreamMonitor,
        stall_s: float,
        *,
        done_follows: bool,
        strip: Callable[[Event], Event] | None = None,
        hides_null_usage: bool = False,
    ) -> None:
        self._response = response
        self._monitor = monitor
        self._decoder = SseDecoder()
        self._stall_s = stall_s
        self._done_follows = done_follows
        self._strip = strip
        self._hides_null_usage = hides_null_usage
        self._head: list[bytes] = []
        self._client: Client | None = None
        self.tail = HeldEvents([])
        self.events = 0
        """Events with data so far: at least one token each, the best count of a local answer that breaks off."""
        self._upstream_reported_error = False
        self._upstream_ended = False
        """Whether the upstream itself ended the answer, if not as it should."""
        self._finish_seen = False
        self._resumed = False
        """Content followed a finishing event: then a finish proves nothing in this stream until its end."""
        self.done_seen = False
        self.flaw: str | None = None
        self._unexpected: Exception | None = None
        self.stalled = False
        self._tail_read = False
        self.held_up_s = 0.0
        """For how long the client let the answer wait."""
        self.on_held_up: Callable[[], None] | None = None
        """Called once a second while it does."""

    def count_events(self) -> int:
        """Return how many events with data have come so far."""
        return self.events

    def received(self) -> ReceivedAnswer:
        """Return what has arrived of the answer."""
        monitor = self._monitor
        whole = monitor.finished and not monitor.open_end  # else content may follow
        return ReceivedAnswer(
            events=self.events,
            whole=whole,
            usage=self._final_usage(),
            told=monitor.usage,
            count=monitor.count,
        )

    async def drain(self, limits: DrainLimits, pace: Pace) -> bool:
        """Read on for the usage, for nobody. Return True if the answer has ended, False at the limits of bytes.

        Raises TransportError.
        """
        self._client = None
        self._response.expect_within(self._stall_s)
        size = 0
        while self.flaw is None and not self.has_all():
            if size > limits.most_bytes or self._decoder.held_bytes > limits.held_bytes:
                return False
            before = self.events
            data = await self._response.read()
            if not data:
                self._take_rest()
                break
            await self._take_in_turn(data)
            self.tail = HeldEvents([])  # nobody gets it
            size += len(data)
            await pace(len(data))
            if self.events > before:
                self._response.expect_within(self._stall_s)
        return True

    def has_all(self) -> bool:
        """Return whether all that matters has come: the answer is whole, and its usage is there or won't come."""
        monitor = self._monitor
        return monitor.finished and not monitor.open_end and not (self._done_follows and self._lacks_usage())

    def _final_usage(self) -> Usage | None:
        """Return the usage if no more of the answer can follow, and all of it is known: the answer is whole, or the
        upstream ended it and told the usage last."""
        monitor = self._monitor
        whole = monitor.finished and not monitor.open_end
        if not whole and not (self._upstream_ended and monitor.usage_is_latest):
            return None
        usage = monitor.usage
        return usage if usage is not None and usage.certain else None

    async def begin(self) -> Outcome | None:
        """Read until the answer has begun. Returns the outcome of one that never did.

        The caller has set the deadline. A provider that reports an error doesn't bill; one whose answer just ends or
        makes no sense may. Raises TransportError.
        """
        return await self._read_until(lambda: self._monitor.started, "no content within the first")

    async def hold(self, enough: Callable[[], bool]) -> Outcome | None:
        """Read on while the client sees nothing, until `enough`, until the answer is whole or no more can be held.

        Returns the outcome of an answer that broke. Raises TransportError.
        """
        self._response.expect_within(self._stall_s)
        return await self._read_until(enough, "")

    async def _read_until(self, enough: Callable[[], bool], too_long: str) -> Outcome | None:
        """Collect bytes for `opening`. More than may be held is a failure if `too_long` names it."""
        most = MAX_HELD_BYTES if too_long else MAX_HELD_ANSWER_BYTES
        size = 0
        while not self._monitor.finished and not enough():
            before = self.events
            data = await self._response.read()
            good = (await self._take_in_turn(data)) if data else self._take_rest()
            if not data and self.events == before and self.flaw is None:
                self._upstream_ended = True
                missing = self._monitor.missing() or "the stream ended without content"
                return Outcome("failed", 200, missing, usage=self._final_usage(), billed=True)
            if good:
                self._head.append(good)
            flaw = self.flaw
            if flaw is not None:
                kind: OutcomeKind = "overloaded" if self._monitor.overloaded else "failed"
                failed, reported = kind == "failed", self._upstream_reported_error
                usage = self._final_usage() if failed else None
                return Outcome(
                    kind,
                    200,
                    self.detail(flaw),
                    self.said(flaw),
                    usage=usage,
                    billed=failed and (usage is not None or not reported),
                    doubtful=failed and reported and usage is None,
                )
            size += len(good)
            if size > most and not enough():
                if not too_long:
                    break
                return Outcome("failed", 200, f"{too_long} {most} bytes", billed=True)
            if not too_long and self.events > before:
                self._response.expect_within(self._stall_s)
        return None

    def detail(self, flaw: str) -> str:
        """Return what broke the answer in the router's words."""
        return REPORTED_ERROR if self._monitor.reported else flaw

    def said(self, flaw: str) -> str:
        """Return what broke the answer in the upstream's words, empty if it told nothing."""
        return flaw if self._monitor.reported else ""

    def opening(self) -> bytes:
        """The bytes that were held until now."""
        return b"".join(self._head)

    async def forward(self, client: Client) -> str | None:
        """Relay until the finishing event is held in `tail`. Returns what broke the answer."""
        self._client = client
        self._response.expect_within(self._stall_s)
        while not self._monitor.finished:
            if client.paused:
                await self._until_read(client)
            try:
                if self._decoder.holds_large:
                    more = await self._forward_large(client)
                else:
                    more = await self._response.stream_to(self._forward)
            except TransportError as error:
                self.stalled = isinstance(error, StallError)
                return str(error)
            unexpected = self._unexpected
            if unexpected is not None:
                raise unexpected
            flaw = self.flaw  # a local: `_forward` changes the attribute while this waits
            if flaw is not None:
                return flaw
            if not more and not self._monitor.finished:
                if self._forward_rest(client):
                    continue
                self._upstream_ended = True
                return self.flaw or self._monitor.missing() or "the stream ended early"
        return None

    async def _until_read(self, client: Client) -> None:
        """Wait until the client has read enough. None of this time is the upstream's, which has its own from then
        on."""
        clock = asyncio.get_running_loop().time
        began_s = clock()
        try:
            while client.paused:
                try:
                    async with asyncio.timeout(HELD_UP_CHECK_S):
                        await client.drain()
                except TimeoutError:
                    if self.on_held_up is not None:
                        self.on_held_up()
        finally:
            self.held_up_s += clock() - began_s
        self._response.expect_within(self._stall_s)

    def _forward(self, data: bytes) -> bool:
        """Pass bytes on to the client, within the callback of the upstream's socket. False: look before more comes."""
        client = self._client
        assert client is not None
        before = self.events
        try:
            good = self._take(data)
            if good:
                client.write(good)
        except Exception as error:  # it would end the upstream's connection instead of the request
            self._unexpected = error
            return False
        if self.events > before:
            self._response.expect_within(self._stall_s)
        ready = self.flaw is None and not self._monitor.finished and not client.paused
        return ready and not self._decoder.holds_large

    async def _forward_large(self, client: Client) -> bool:
        """Pass on the next bytes of an event of several MB; return whether there were any."""
        before = self.events
        data = await self._response.read()
        good = await self._take_in_turn(data)
        if good:
            client.write(good)
        if self.events > before:
            self._response.expect_within(self._stall_s)
        return bool(data)

    def _forward_rest(self, client: Client) -> bool:
        """Pass on an event that lacks only its blank line; return whether there was one."""
        before = self.events
        good = self._take_rest()
        if good:
            client.write(good)
        return self.events > before and self.flaw is None

    async def forward_within(self, client: Client, seconds: float | None) -> str | None:
        """Forward and finish within `seconds` (None: no limit). Returns what broke the answer."""
        if seconds is None:
            return await self.forward(client) or await self.finish()
        try:
            async with asyncio.timeout(seconds):
                return await self.forward(client) or await self.finish()
        except TimeoutError:
            self.stalled = True
            return "it took as long as was reserved for it (limits.answer_s)"

    async def finish(self) -> str | None:
        """Read what follows the finishing event (usage, [DONE]) into `tail`, and pass on content that follows it.
        Returns what broke the answer."""
        if not self._done_follows or self._tail_read:
            return None
        self._tail_read = True
        if self.done_seen and not self._lacks_usage():
            return None
        self._expect_tail()
        timer = asyncio.get_running_loop().call_later(HELD_FINISH_S, self._release_finish)
        try:
            flaw = None if self.done_seen else await self._read_tail()
            if flaw is None and self.done_seen and self._lacks_usage():
                await self._read_late_usage()
            return flaw
        finally:
            timer.cancel()

    def _lacks_usage(self) -> bool:
        usage = self._monitor.usage
        return usage is None or not usage.certain

    async def _read_late_usage(self) -> None:
        """Read what follows [DONE] for the usage, without which a paid answer costs its bound. Nothing is forwarded."""
        self._response.expect_within(LATE_USAGE_S)
        size = 0
        with contextlib.suppress(TransportError):
            while self._lacks_usage() and size <= MAX_HELD_BYTES:
                data = await self._response.read()
                if not data:
                    return
                size += len(data)
                self._take(data)

    def _expect_tail(self) -> None:
        """Set the deadline of what may follow. A finish that came with content need not have been the last."""
        self._response.expect_within(self._stall_s if self._monitor.open_end else TAIL_S)

    async def _read_tail(self) -> str | None:
        held = 0
        while not self.done_seen:
            client = self._client
            if client is not None and client.paused:
                await self._until_read(client)
                self._expect_tail()
            before = self.events
            try:
                data = await self._response.read()
            except StallError as stall:
                self.stalled = self._monitor.open_end
                return str(stall) if self.stalled else None  # None: the answer is whole; only its [DONE] is missing
            except TransportError as error:
                return str(error)
            ended = not data
            good = self._take_rest() if ended else await self._take_in_turn(data)
            if good and client is not None:
                client.write(good)
            elif good:
                self._head.append(good)
                held += len(good)
            flaw = self.flaw
            if flaw is not None or ended:
                return flaw
            if self.tail.size > MAX_HELD_BYTES or held > MAX_HELD_ANSWER_BYTES:
                return "too much data after the finishing event"
            if self.events > before:
                self._expect_tail()
        return None

    def _release_finish(self) -> None:
        """Send the finishing event if nothing follows it at once: the client need not wait for what may not come."""
        client = self._client
        if client is not None and self.flaw is None:
            data = self.tail.release()
            if data:
                client.write(data)

    def _take_rest(self) -> bytes:
        """Take what is left at the end of a body that ended as it should: an event may lack only its blank line.

        Some servers leave it out after the last event. Half an event is no JSON, so that it is not taken for one.
        """
        if not self._decoder.pending:
            return b""
        before = self.events
        is_json = not before and self._decoder.begins_with(b"{")
        good = self._take(_BLANK_LINE)
        if self.events == before or (self.flaw is not None and not self._upstream_reported_error):
            self.flaw = "a whole answer came instead of a stream" if is_json else "the stream ended inside an event"
            return b""
        return good

    async def _take_in_turn(self, data: bytes) -> bytes:
        """Take bytes. If they may end an event of several MB, no other stream ends one in the same turn of the loop:
        each takes tens of milliseconds."""
        if not self._decoder.holds_large:
            return self._take(data)
        async with LARGE_EVENTS.lock():
            before = self.events
            good = self._take(data)
            if self.events > before:
                await asyncio.sleep(0)
        return good

    def _take(self, data: bytes) -> bytes:
        """Decode and judge bytes. Returns those of whole, good events; from the finishing event on they go to `tail`.

        Never `data` itself: it may begin and end inside events, whatever its length.
        """
        try:
            events = self._decoder.feed(data)
        except SseError as error:
            self.flaw = str(error)
            return b""
        monitor, strip, good = self._monitor, self._strip, []
        for event in events:
            if self.done_seen or (self._finish_seen and not self._done_follows):
                self._note_late_usage(event)
                continue  # the answer has ended; what comes now is not part of it
            payload = event.data
            if payload is not None:
                self.flaw = monitor.check(event.name, payload)
                if self.flaw is not None:
                    self._upstream_reported_error = b"error" in payload or event.name == b"error"
                    self._upstream_ended = self._upstream_reported_error or payload == DONE
                    break
                self.events += 1
                if strip is not None:
                    event = strip(event)
                if self._hides_null_usage and b'"usage"' in payload:
                    event = without_null_usage(event)
            if not monitor.finished:
                good.append(event.raw)
            elif monitor.open_end and self._finish_seen:
                if not self._resumed or self.tail.events:
                    self._resumed = True
                    good.append(self.tail.release())
                good.append(event.raw)
            else:
                self._finish_seen = True
                self.tail.add(event)
                self.done_seen = payload == DONE
        return good[0] if len(good) == 1 else b"".join(good)

    def _note_late_usage(self, event: Event) -> None:
        """Count the usage in an event that came after the end; whatever else it says no longer matters."""
        payload = event.data
        if payload is not None and self._lacks_usage() and b'"usage"' in payload:
            self._monitor.check(event.name, payload)


_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null(?=\s*[,}])')


def without_null_usage(event: Event) -> Event:
    """The event without the `"usage": null` that a provider puts into every event once usage is asked for."""
    if event.data is None or event.raw.count(b'"usage"') != 1:
        return event
    raw, removed = _NULL_USAGE.subn(b"", event.raw, count=1)
    return Event(raw, event.name, _NULL_USAGE.sub(b"", event.data, count=1)) if removed else event


@fast_frozen(frozen=True, slots=True)
class Extension:
    """What the router itself says at a stream's end: a member for the usage event, and the event to send if no usage
    event carries it (empty: then nothing is sent)."""

    member: Mapping[str, Any]
    event: bytes


@fast_frozen(frozen=True, slots=True)
class Ending:
    """How the held end of a stream goes out.

    An event with usage alone that only the router asked for is left out; usage beside choices is the provider's own
    and stays. One that the client asked for carries the extension, and
    `usage.cost` in USD if `cost_nano` is given. `closing` ([DONE] of the OpenAI streams) is added if the upstream left
    it out.
    """

    usage_asked: bool
    usage_added: bool
    cost_nano: int | None
    closing: bytes
    extension: Extension | None = None


def tail_bytes(tail: HeldEvents, ending: Ending) -> bytes:
    """The held end of a stream as the client gets it."""
    parts: list[bytes] = []
    done = extended = False
    finish = -1
    for event in tail.events:
        raw = event.raw
        if event.data == DONE:
            done = True
            if ending.extension is not None and not extended:
                parts.append(ending.extension.event)
        elif event.data is not None and b'"usage"' in event.data:
            raw, carries_extension = _usage_event(event, ending)
            extended = extended or carries_extension
            if not raw and finish >= 0:
                parts[finish] = _with_fingerprint(parts[finish], event.data)
        elif event.data is not None:
            finish = len(parts)
        parts.append(raw)
    if not done:
        if ending.extension is not None and not extended:
            parts.append(ending.extension.event)
        parts.append(ending.closing)
    return b"".join(parts)


def _usage_event(event: Event, ending: Ending) -> tuple[bytes, bool]:
    """The event as the client gets it, and whether it carries the extension."""
    assert event.data is not None
    body = parse_object(event.data)
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(usage, dict):
        return event.raw, False
    carries_extension = False
    if ending.usage_added and not ending.usage_asked:
        return (event.raw if body.get("choices") else b""), False
    if ending.cost_nano is None and ending.extension is None:
        return event.raw, False
    # Only the new members are written: numbers that a parser would round stay as they came.
    data = event.data
    if ending.cost_nano is not None:
        data = with_cost(data, body, float(usd(ending.cost_nano)))
    if ending.extension is not None:
        data = edit(data, body.keys(), {"spillway": ending.extension.member}, known_spans=spans(data))
        carries_extension = True
    name = b"event: " + event.name + b"\n" if event.name else b""
    # An upstream may have written the JSON over several data lines.
    return name + b"data: " + data.replace(b"\n", b" ") + b"\n\n", carries_extension


def _with_fingerprint(finish: bytes, usage_event: bytes) -> bytes:
    """The finishing event with the fingerprint that vLLM moves to the usage event, which the client does not get."""
    if b'"system_fingerprint"' not in usage_event or b'"system_fingerprint"' in finish:
        return finish
    body = parse_object(usage_event)
    fingerprint = body.get("system_fingerprint") if isinstance(body, dict) else None
    close = finish.rfind(b"}")
    if not isinstance(fingerprint, str) or close < 0:
        return finish
    return finish[:close] + b',"system_fingerprint":' + json_bytes(fingerprint) + finish[close:]
