"""A held stream alone: packets of a scored stream in, its verdict out, before a byte reaches the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.proxy.exchange.scene import PacketUpstream, RecordingClient, Scene, scene

from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import Outcome
from spillway_router.proxy.exchange.attempt import UpstreamAttempt
from spillway_router.proxy.exchange.held_stream import HeldStream
from spillway_router.proxy.exchange.relay import Relay
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.proxy.exchange.upstream_body import UpstreamBody
from spillway_router.testing.harness import cloud, local, settings
from spillway_router.testing.streams import DONE, USAGE, data, delta

NOWHERE = "http://127.0.0.1:9/v1"
RULE = "confidence: {{threshold: 0.8, escalate_to: [cloud], hold_tokens: {hold_tokens}}}\n"
SURE, UNSURE = -0.01, -3.0


def token(text: str, logprob: float) -> bytes:
    """One event of one token with its log-probability."""
    score = {"token": text, "logprob": logprob, "top_logprobs": [{"token": text, "logprob": logprob}]}
    choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": [score]}, "finish_reason": None}
    return data({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


class Held:
    """A held stream with the upstream, the relay and the state that it works on."""

    def __init__(self, stage: Scene, state: ExchangeState, attempt: UpstreamAttempt) -> None:
        self.stage, self.state, self.attempt = stage, state, attempt
        self.upstream = PacketUpstream()
        self.held = HeldStream(
            state, attempt, UpstreamBody(body=b"", usage_added=False, usage_asked=False, logprobs_added=True)
        )
        monitor = self.held.monitor
        self.relay = Relay(self.upstream.response, monitor, 5.0, done_follows=True, strip=monitor.stripped)

    async def judge(self) -> Outcome | None:
        """Wait for the first content, then for the verdict."""
        failure = await self.relay.begin()
        return failure or await self.held.judge_held(self.relay)


@asynccontextmanager
async def holding(hold_tokens: int = 2, body: dict[str, Any] | None = None, **headers: str) -> AsyncIterator[Held]:
    text = settings(local(NOWHERE), cloud(NOWHERE), more=RULE.format(hold_tokens=hold_tokens))
    async with scene(text) as stage:
        state = stage.state("local", facts=stage.facts(**headers), client=RecordingClient())
        state.body |= body or {}
        held = Held(stage, state, await stage.opened(state, "local"))
        try:
            yield held
        finally:
            state.replace_heartbeat(None)
            held.upstream.close()
            held.attempt.close(Outcome("ok", 200, usage=Usage(3, 2)))
            await state.durable()


async def pending(work: Callable[[], Coroutine[Any, Any, Outcome | None]]) -> asyncio.Task[Outcome | None]:
    """Start the work, which must wait for more packets."""
    task = asyncio.create_task(work())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_the_verdict_waits_for_as_many_tokens_as_configured() -> None:
    async with holding(3) as held:
        held.upstream.packet(token("a", SURE) + token("b", SURE))
        judging = await pending(held.judge)
        held.upstream.packet(token("c", UNSURE))
        assert await judging is None
        assert held.attempt.confidence is not None
        assert held.attempt.confidence < 0.8
        assert held.state.confidence == held.attempt.confidence


async def test_log_probabilities_that_nobody_asked_for_are_removed() -> None:
    async with holding(1) as held:
        held.upstream.packet(token("a", SURE))
        assert await held.judge() is None
        assert b'logprob"' not in held.relay.opening()
        assert b'"content":"a"' in held.relay.opening()


async def test_an_answer_that_ends_while_it_is_held_is_judged_whole() -> None:
    async with holding(50) as held:
        held.upstream.packet(token("a", SURE) + delta({}, "stop") + USAGE + DONE)
        held.upstream.end()
        assert await held.judge() is None
        assert held.state.verdict is not None
        assert held.held.extension() is not None


async def test_a_document_is_held_to_its_end_whatever_is_configured() -> None:
    async with holding(1, {"response_format": {"type": "json_object"}}) as held:
        held.upstream.packet(token("{", SURE) + token("}", SURE))
        judging = await pending(held.judge)
        held.upstream.packet(delta({}, "stop") + DONE)
        held.upstream.end()
        assert await judging is None
        assert held.state.verdict is not None


@pytest.mark.parametrize("hold_tokens", [0, 2])
async def test_nothing_is_held_where_nothing_could_be_escalated(hold_tokens: int) -> None:
    async with holding(hold_tokens, x_spillway_route="local") as held:
        held.upstream.packet(token("a", UNSURE))
        assert await held.judge() is None
        assert held.state.heartbeat is None
        assert (held.attempt.confidence is None) == (hold_tokens == 0)


async def test_a_stream_that_breaks_while_it_is_held_is_an_outcome() -> None:
    async with holding(3) as held:
        held.upstream.packet(token("a", SURE))
        judging = await pending(held.judge)
        held.upstream.end()
        outcome = await judging
        assert outcome is not None
        assert (outcome.kind, outcome.billed) == ("failed", True)


@pytest.mark.parametrize("drawn", [True, False])
async def test_the_text_is_kept_for_an_audit_only(drawn: bool) -> None:
    async with holding(2) as held:
        held.stage.audits.draws = drawn
        held.upstream.packet(token("a", SURE) + token("b", SURE))
        assert await held.judge() is None
        held.state.commit(held.attempt)
        held.held.release()
        held.held.delivered()
        assert [sample.answer for sample in held.stage.audits.samples] == (["ab"] if drawn else [])


async def test_an_answer_that_turns_out_unsure_says_so_at_its_end() -> None:
    async with holding(1) as held:
        held.upstream.packet(token("a", SURE))
        assert await held.judge() is None
        held.state.commit(held.attempt)
        held.held.release()
        held.held.monitor.check(b"", token("b", UNSURE).removeprefix(b"data: ").strip())
        extension = held.held.extension()
        assert extension is not None
        assert b'"confidence"' in extension.event
        assert held.state.reasons == ("confidence",)
