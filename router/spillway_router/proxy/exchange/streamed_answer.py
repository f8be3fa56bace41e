"""A streamed answer: held until its first content, then forwarded, its end held until its row is on disk."""

from __future__ import annotations

from functools import partial

from spillway_router.core.routing.model import Outcome, OutcomeKind
from spillway_router.http_client.connection import TransportError
from spillway_router.http_client.pool import Response
from spillway_router.http_client.types import Reply
from spillway_router.providers.errors import MAX_ERROR_BYTES
from spillway_router.providers.interface import StreamMonitor
from spillway_router.providers.streams import DONE, ResponsesMonitor
from spillway_router.proxy.client.error_shapes import error_event
from spillway_router.proxy.client.heartbeat import Heartbeat, Pulse
from spillway_router.proxy.exchange.active_config import DrainLimits, Pace
from spillway_router.proxy.exchange.attempt import PAGE, UpstreamAttempt, is_page
from spillway_router.proxy.exchange.byok import redacted
from spillway_router.proxy.exchange.cached_answers import store_stream
from spillway_router.proxy.exchange.departure import renew_verdict
from spillway_router.proxy.exchange.held_stream import HeldStream
from spillway_router.proxy.exchange.outcomes import transport_outcome
from spillway_router.proxy.exchange.presentation import headers_of_waiting, response_headers, trailing_event
from spillway_router.proxy.exchange.relay import Ending, Extension, Relay, tail_bytes
from spillway_router.proxy.exchange.shadowed import is_compared, streamed_text
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.proxy.exchange.stored_context import remember_response
from spillway_router.proxy.exchange.upstream_body import UpstreamBody
from spillway_router.proxy.memory.refused_additions import Addition

FIRST_BYTE_S = 14.0
"""When a client that waits for the first content gets a comment: a byte at least every 15 s."""
ANSWER_STARTED = Outcome("ok", 200)
_OPENAI = ("chat", "completions")
"""The endpoints whose streams end with usage and [DONE]; the others have no event that could carry something else."""


class StreamAnswer:
    """An `UpstreamAnswer` that is a stream. `held` decides how long it is held back; None: until its first content."""

    __slots__ = ("_attempt", "_held", "_monitor", "_relay", "_response", "_state", "_upstream")

    _monitor: StreamMonitor

    def __init__(
        self, state: ExchangeState, attempt: UpstreamAttempt, upstream: UpstreamBody, held: HeldStream | None
    ) -> None:
        self._state, self._attempt, self._upstream = state, attempt, upstream
        self._held = held
        self._response: Response | None = None
        self._relay: Relay | None = None
        attempt.streamed = True

    async def fetch(self) -> Outcome:
        """Ask, and wait for the first content, and for the confidence of a stream that is held back."""
        state = self._state
        if state.heartbeat is None:
            after_s = max(0.0, state.started_s + FIRST_BYTE_S - state.services.clock())
            waiting_headers = partial(headers_of_waiting, state)
            state.replace_heartbeat(Heartbeat(state.services.loop, state.client, waiting_headers, after_s))
        try:
            return await self._fetch()
        except TransportError as error:
            return transport_outcome(error)

    async def _fetch(self) -> Outcome:
        state, attempt, body = self._state, self._attempt, self._upstream.body
        services, limits, route = state.services, state.config.limits, attempt.route
        if not attempt.verdict_stands:
            await renew_verdict(attempt, body)
        head = attempt.head(state.facts.endpoint, len(body))
        within_s = attempt.patience_s(limits.first_event_s)
        response = self._response = await route.pool.send(head, body, within_s, attempt.begin_wait())
        attempt.on_response_headers(response.headers)
        if response.status != 200:
            text = await response.read_all(MAX_ERROR_BYTES)
            return route.provider.outcome(Reply(response.status, response.headers, text), services.wall())
        if is_page(response.headers):
            return PAGE
        relay = self._relay = self._new_relay(response)
        response.expect_within(attempt.patience_s(attempt.sent_s + limits.first_event_s - services.clock()))
        failure = await relay.begin()
        if failure is not None:
            return failure
        attempt.on_first_event()
        if self._held is not None:
            failure = await self._held.judge_held(relay)
            if failure is not None:
                return failure
        return ANSWER_STARTED

    def _new_relay(self, response: Response) -> Relay:
        facts, held = self._state.facts, self._held
        stall_s, done_follows = self._stall_s(), facts.endpoint in _OPENAI
        if held is not None:
            self._monitor = held.monitor
            return Relay(
                response,
                held.monitor,
                stall_s,
                done_follows=done_follows,
                strip=held.monitor.stripped,
                hides_null_usage=self._upstream.usage_added,
            )
        provider, count = self._attempt.route.provider, self._attempt.output_count()
        monitor = self._monitor = provider.stream_monitor(facts.endpoint, facts.choices, count)
        hides_null_usage = self._upstream.usage_added
        return Relay(response, monitor, stall_s, done_follows=done_follows, hides_null_usage=hides_null_usage)

    def _stall_s(self) -> float:
        tools = "tools" in self._state.facts.needs
        return self._attempt.route.stall_s(tools=tools) or self._state.config.limits.stall_s

    def refused_addition(self, outcome: Outcome) -> Addition | None:
        """Return what only the router added and the backend refused; None if it refused something else."""
        return self._upstream.refused_addition(outcome)

    async def deliver(self) -> Outcome:
        """Commit to the stream: send the 200, what was held back, and the rest as it comes."""
        state, attempt, relay = self._state, self._attempt, self._relay
        assert relay is not None
        if self._held is not None:
            self._held.release()
        attempt.end_wait()
        state.commit(attempt)
        headers = [*state.client.base_headers, *response_headers(state, attempt)]
        state.client.begin_stream(headers, relay.opening())
        relay.on_held_up = attempt.on_held_up
        pulse = Pulse(state.services.loop, state.client, relay.count_events)
        try:
            flaw = await relay.forward_within(state.client, attempt.seconds_left())
        finally:
            pulse.stop()
            attempt.received = relay.received()
            attempt.tracked.held_up_s += relay.held_up_s
            if isinstance(self._monitor, ResponsesMonitor):
                state.response_id = self._monitor.response_id
        if flaw is not None:
            return await self._interrupt(flaw)
        outcome = Outcome("ok", 200, usage=self._monitor.usage)
        attempt.close(outcome)
        if state.response_id:
            await remember_response(state)
        await state.durable()
        state.client.end_stream(self._tail())
        if state.cache_place is not None:
            store_stream(state, attempt, outcome.usage, relay.tail, usage_added=self._upstream.usage_added)
        if state.client.stream_copy is not None and is_compared(state):
            state.answer_text = streamed_text(state.client.stream_copy, relay.tail)
        if self._held is not None:
            self._held.delivered()
        return outcome

    def close(self) -> None:
        """Give the connection back if the answer is whole, else stop the upstream.

        What arrived of it is what it is charged for.
        """
        if self._relay is not None:
            self._attempt.received = self._relay.received()
        if self._response is not None:
            self._response.close()

    def unread(self) -> UnreadStream | None:
        """Return what is still to come, if anything of it matters when the client has left."""
        attempt, response, relay = self._attempt, self._response, self._relay
        if response is None:
            return UnreadStream(attempt, self._stall_s()) if attempt.is_left_open else None
        if relay is None or relay.flaw is not None or relay.has_all():
            return None
        return UnreadStream(attempt, self._stall_s(), response, relay)

    def _tail(self) -> bytes:
        state, upstream, relay = self._state, self._upstream, self._relay
        assert relay is not None
        openai = state.facts.endpoint in _OPENAI
        wants_cost = upstream.usage_asked or state.cost_requested
        ending = Ending(
            usage_asked=upstream.usage_asked,
            usage_added=upstream.usage_added,
            cost_nano=state.cost_nano() if wants_cost else None,
            closing=b"data: " + DONE + b"\n\n" if openai else b"",
            extension=self._extension(),
        )
        return tail_bytes(relay.tail, ending)

    def _extension(self) -> Extension | None:
        """What the headers could not say: they went out before it was known which backend answers."""
        if self._held is not None:
            return self._held.extension()
        openai = self._state.facts.endpoint in _OPENAI
        return trailing_event(self._state) if openai and self._state.client.waiting else None

    async def _interrupt(self, flaw: str) -> Outcome:
        """End a stream that broke after its first byte: one error event, then a clean end."""
        state, attempt, relay = self._state, self._attempt, self._relay
        assert relay is not None
        kind: OutcomeKind = "timeout" if relay.stalled else "failed"
        outcome = redacted(Outcome(kind, 200, relay.detail(flaw), relay.said(flaw), billed=True), attempt.route)
        state.status, state.code = 502, "upstream_interrupted"
        attempt.close(outcome)
        await state.durable()
        cause = outcome.said or outcome.detail
        message = f"The answer broke off at {attempt.backend.name}: {cause}. Send the request again."
        event = error_event(state.facts.endpoint, "upstream_interrupted", message, relay.events)
        state.client.end_stream(event)
        return outcome


class UnreadStream:
    """An `UnreadAnswer`: the rest of a stream. It holds nothing of the request, as it may be read for long after it.

    Without `response`, its head has not come yet.
    """

    __slots__ = ("_attempt", "_relay", "_response", "_stall_s")

    def __init__(
        self, attempt: UpstreamAttempt, stall_s: float, response: Response | None = None, relay: Relay | None = None
    ) -> None:
        self._attempt, self._stall_s = attempt, stall_s
        self._response, self._relay = response, relay

    async def read(self, limits: DrainLimits, pace: Pace) -> Outcome:
        """Read it to its usage, its end or the limits. Raises TransportError."""
        attempt = self._attempt
        if self._response is None:
            response = self._response = await attempt.route.pool.rest_of_send(attempt.pending, limits.within_s)
            if response.status != 200:
                reply = Reply(response.status, response.headers, await response.read_all(MAX_ERROR_BYTES))
                return attempt.route.provider.outcome(reply, attempt.services.wall())
            if is_page(response.headers):
                return PAGE
            facts = attempt.hold.facts
            monitor = attempt.route.provider.stream_monitor(facts.endpoint, facts.choices, attempt.output_count())
            self._relay = Relay(response, monitor, self._stall_s, done_follows=facts.endpoint in _OPENAI)
        relay = self._relay
        assert relay is not None
        ended = await relay.drain(limits, pace)
        received = relay.received()
        if received.whole:
            return Outcome("ok", 200, usage=received.usage)
        flaw = relay.flaw or ""
        return Outcome("failed" if ended else "cancelled", 200, relay.detail(flaw), relay.said(flaw), billed=True)

    def close(self) -> None:
        """Note what arrived, and give the connection back."""
        attempt = self._attempt
        if self._relay is not None:
            attempt.received = self._relay.received()
        if self._response is None:
            attempt.route.pool.drop_left_open(attempt.pending)
        else:
            self._response.close()
