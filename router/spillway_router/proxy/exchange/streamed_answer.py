"""A streamed answer: held until its first content, then forwarded, its end held until its row is on disk."""

from __future__ import annotations

from spillway_router.core.routing.model import Outcome
from spillway_router.http_client.pool import Response
from spillway_router.http_client.types import Reply
from spillway_router.providers.interface import StreamMonitor
from spillway_router.providers.streams import DONE
from spillway_router.proxy.client.replies import error_event
from spillway_router.proxy.exchange.attempt import UpstreamAttempt, UpstreamBody
from spillway_router.proxy.exchange.relay import Ending, Extension, Relay, tail_bytes
from spillway_router.proxy.exchange.state import ExchangeState

MAX_ERROR_BYTES = 1024 * 1024
BEGUN = Outcome("ok", 200)


class StreamAnswer:
    """See `Answer` in exchange.py."""

    __slots__ = ("_call", "_job", "_judge", "_relay", "_response", "_upstream", "scored")

    _judge: StreamMonitor
    _relay: Relay

    def __init__(self, job: ExchangeState, call: UpstreamAttempt, upstream: UpstreamBody) -> None:
        self._job, self._call, self._upstream = job, call, upstream
        self._response: Response | None = None
        self.scored = False
        call.streamed = True

    async def fetch(self, head: bytes) -> Outcome:
        """Ask, and wait for the first content."""
        job, call = self._job, self._call
        s, limits, facts = job.s, job.live.limits, job.facts
        response = self._response = await call.channel.pool.send(head, self._upstream.body, limits.first_event_s)
        job.learn_limits(call, response.headers)
        if response.status != 200:
            text = await response.read_all(MAX_ERROR_BYTES)
            return call.channel.provider.outcome(Reply(response.status, response.headers, text), s.wall())
        done_follows = facts.endpoint in ("chat", "completions")
        relay = self._relay = self._relaying(response, limits.stall_s, done_follows=done_follows)
        response.expect_within(max(0.001, call.sent_at + limits.first_event_s - s.clock()))
        failed = await relay.begin()
        if failed is not None:
            return failed
        call.first_event()
        return BEGUN

    def _relaying(self, response: Response, stall_s: float, *, done_follows: bool) -> Relay:
        facts = self._job.facts
        self._judge = self._call.channel.provider.stream_monitor(facts.endpoint, facts.choices)
        return Relay(response, self._judge, stall_s, done_follows=done_follows)

    async def deliver(self) -> Outcome:
        """Commit to it: the 200, what was held, and the rest as it comes."""
        job, call, relay = self._job, self._call, self._relay
        job.commit(call)
        job.client.begin_stream([*job.client.own, *job.lines(call)], relay.opening())
        try:
            flaw = await relay.forward_within(job.client, call.seconds_left())
        finally:
            call.seen = relay.seen(self._judge.usage if self._judge.finished else None)
        if flaw is not None:
            return await self._interrupted(flaw)
        outcome = Outcome("ok", 200, usage=self._judge.usage)
        call.close(outcome)
        await job.durable()
        job.client.end_stream(self._tail())
        return outcome

    def close(self) -> None:
        """Give the connection back if its answer is whole, else stop the upstream."""
        if self._response is not None:
            self._response.close()

    def _tail(self) -> bytes:
        job, upstream = self._job, self._upstream
        openai = job.facts.endpoint in ("chat", "completions")
        wants_cost = upstream.usage_asked or job.cost_asked
        ending = Ending(
            upstream.usage_asked,
            upstream.usage_added,
            job.cost() if wants_cost else None,
            b"data: " + DONE + b"\n\n" if openai else b"",
            self._extension(),
        )
        return tail_bytes(self._relay.tail, ending)

    def _extension(self) -> Extension | None:
        """What headers could not tell: where they went out before it was known which backend answers."""
        return self._job.trailing_event() if self._job.client.waiting else None

    async def _interrupted(self, flaw: str) -> Outcome:
        """After the first byte there is no way back: one error event, a clean end."""
        job, call = self._job, self._call
        outcome = Outcome("timeout" if self._relay.stalled else "failed", 200, flaw, billed=True)
        job.status, job.code = 502, "upstream_interrupted"
        call.close(outcome)
        await job.durable()
        message = f"The answer broke off at {call.channel.backend.name}: {flaw}. Send the request again."
        job.client.end_stream(error_event("upstream_interrupted", message))
        return outcome
