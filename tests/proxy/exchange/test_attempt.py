"""One upstream attempt: its hold, its number, its outcome and its charge, without a router."""

from __future__ import annotations

import pytest
from tests.proxy.exchange.scene import Scene, scene

from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import Outcome
from spillway_router.proxy.exchange.attempt import (
    AttemptNumbers,
    NotOpened,
    ReceivedAnswer,
    UpstreamAttempt,
    fetch_whole,
)
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.testing import Answer, FaultUpstream, openai_wire
from spillway_router.testing.harness import cloud, local, settings

NOWHERE = "http://127.0.0.1:9/v1"
BOTH = settings(local(NOWHERE), cloud(NOWHERE))
BOUND_NANO = 1_000_000
WHOLE = {"choices": [openai_wire.message_choice({"content": "yes"})], "usage": openai_wire.usage(3, 2)}
OK = Outcome("ok", 200, usage=Usage(3, 2))
NO_BUDGET = "budgets: [{scope: all, period: day, limit_usd: '0.0000001'}]\n"


def test_a_number_is_used_once() -> None:
    numbers = AttemptNumbers()
    assert numbers.next == numbers.next == 1
    numbers.take()
    assert numbers.next == 2
    assert AttemptNumbers(4).next == 5


async def test_a_paid_attempt_is_reserved_before_it_is_sent_and_charged_what_it_cost() -> None:
    async with scene(BOTH) as stage:
        state = stage.state("cloud")
        attempt = await stage.opened(state, "cloud", BOUND_NANO)
        (reserved,) = stage.ledger.entries_of("req_1")
        assert (reserved.kind, reserved.attempt_no, reserved.reserved_nano) == ("reserved", 1, BOUND_NANO)
        attempt.close(OK)
        _, charged = await stage.rows(state)
        assert (charged.kind, charged.status, charged.amount_nano) == ("charged", "ok", 3 * 1000 + 2 * 2000)
        assert attempt.record is not None
        assert attempt.record.charge_nano == attempt.charge_nano == charged.amount_nano


async def test_an_attempt_ends_once() -> None:
    async with scene(BOTH) as stage:
        state = stage.state("cloud")
        attempt = await stage.opened(state, "cloud", BOUND_NANO)
        attempt.close(OK)
        attempt.close(Outcome("failed", 500, billed=True))
        rows = await stage.rows(state)
        assert [row.kind for row in rows] == ["reserved", "charged"]
        assert not any(stage.services.board.in_flight().values())


async def test_a_budget_that_is_used_up_opens_nothing_and_uses_no_number() -> None:
    async with scene(BOTH + NO_BUDGET) as stage:
        state = stage.state("cloud")
        refused = await stage.open(state, "cloud", BOUND_NANO)
        assert isinstance(refused, NotOpened)
        assert (refused.code, refused.refusal().status) == ("budget", 402)
        assert state.numbers.next == 1
        assert not any(stage.services.board.in_flight().values())


async def test_a_full_backlog_opens_nothing() -> None:
    async with scene(BOTH) as stage:
        board, candidate = stage.services.board, stage.candidate("local")
        while board.sent(candidate, 10, 2.0, stage.services.clock()) is not None:
            pass
        state = stage.state("local")
        refused = await stage.open(state, "local")
        assert isinstance(refused, NotOpened)
        assert (refused.code, refused.refusal().status) == ("backlog", 503)
        assert state.numbers.next == 1
        assert not stage.ledger.entries_of("req_1")


@pytest.mark.parametrize(
    ("outcome", "received", "status"),
    [
        pytest.param(Outcome("cancelled", billed=True), None, "unknown", id="nobody knows: the bound"),
        pytest.param(Outcome("failed", 200, "it broke", billed=True), None, "unknown", id="broken: the bound"),
        pytest.param(Outcome("failed", 500), None, "error", id="not billed: nothing"),
        pytest.param(
            Outcome("cancelled", billed=True), ReceivedAnswer(2, 2, Usage(3, 2)), "aborted", id="whole: its usage"
        ),
    ],
)
async def test_what_a_broken_attempt_costs(outcome: Outcome, received: ReceivedAnswer | None, status: str) -> None:
    async with scene(BOTH) as stage:
        state = stage.state("cloud")
        attempt = await stage.opened(state, "cloud", BOUND_NANO)
        attempt.received = received
        attempt.close(outcome)
        closing = (await stage.rows(state))[-1]
        expected_nano = 7000 if received is not None else BOUND_NANO if outcome.billed else 0
        assert (closing.amount_nano, closing.status) == (expected_nano, status)


# drafts


async def test_a_draft_that_is_discarded_stops_its_upstream_and_is_charged() -> None:
    async with scene(BOTH) as stage:
        state = stage.state("local", "cloud")
        draft, better = await stage.opened(state, "local"), await stage.opened(state, "cloud", BOUND_NANO)
        stopped: list[bool] = []
        draft.hold_as_draft(OK, lambda: stopped.append(True))
        better.close(OK)
        state.commit(better)
        assert stopped == [True]
        assert (state.backend, draft.record is not None) == ("cloud", True)
        statuses = {row.backend: row.status for row in await stage.rows(state) if row.kind != "reserved"}
        assert statuses == {"local": "discarded", "cloud": "ok"}


async def test_a_draft_that_is_accepted_is_the_answer() -> None:
    async with scene(BOTH) as stage:
        state = stage.state("local")
        draft = await stage.opened(state, "local")
        stopped: list[bool] = []
        draft.hold_as_draft(OK, lambda: stopped.append(True))
        draft.accept_draft()
        state.commit(draft)
        draft.discard_draft()
        draft.close(OK)
        assert not stopped
        assert [row.status for row in await stage.rows(state)] == ["ok"]


async def test_a_client_that_leaves_while_a_better_answer_is_sought_discards_the_draft() -> None:
    async with scene(BOTH) as stage:
        state = stage.state("local")
        draft = await stage.opened(state, "local")
        draft.hold_as_draft(OK, lambda: None)
        draft.close(Outcome("cancelled", billed=True, detail="the client left"))
        assert [row.status for row in await stage.rows(state)] == ["discarded"]


# whole answers


async def fetched(stage: Scene, state: ExchangeState, name: str) -> tuple[UpstreamAttempt, Outcome]:
    attempt = await stage.opened(state, name, BOUND_NANO if name == "cloud" else 0)
    reply = await fetch_whole(attempt, "chat", b'{"model":"m"}', 5.0, 1000)
    assert (reply.outcome.kind == "ok") == bool(reply.answer) == bool(reply.body)
    attempt.close(reply.outcome)
    return attempt, reply.outcome


@pytest.mark.parametrize(
    ("answer", "kind", "billed"),
    [
        pytest.param(Answer.json(WHOLE), "ok", False, id="whole"),
        pytest.param(Answer.json({"error": {"message": "no"}}, 500), "failed", False, id="500"),
        pytest.param(Answer(b"{", headers=(("content-type", "application/json"),)), "failed", True, id="no JSON"),
        pytest.param(Answer.json({"choices": []}), "failed", True, id="no choices"),
        pytest.param(Answer.json(WHOLE | {"more": "x" * 2000}), "failed", True, id="too large"),
        pytest.param(Answer(b"x" * 50, cut=10, end="rst"), "failed", True, id="reset"),
    ],
)
async def test_whatever_an_upstream_answers_is_an_outcome(answer: Answer, kind: str, billed: bool) -> None:
    async with FaultUpstream(answer) as upstream, scene(settings(local(NOWHERE), cloud(upstream))) as stage:
        state = stage.state("cloud")
        _, outcome = await fetched(stage, state, "cloud")
        assert (outcome.kind, outcome.billed) == (kind, billed)
        assert upstream.seen[0].headers["x-client-request-id"] == "req_1.1"


async def test_nothing_is_billed_where_nobody_listens() -> None:
    async with scene(BOTH) as stage:
        _, outcome = await fetched(stage, stage.state("cloud"), "cloud")
        assert (outcome.kind, outcome.billed) == ("failed", False)


async def test_an_engine_that_aborts_inside_a_200_was_full() -> None:
    aborted = {"choices": [openai_wire.message_choice({"content": ""}) | {"finish_reason": "abort"}]}
    async with FaultUpstream(Answer.json(aborted)) as engine, scene(settings(local(engine), cloud(NOWHERE))) as stage:
        _, outcome = await fetched(stage, stage.state("local"), "local")
        assert (outcome.kind, outcome.billed) == ("overloaded", False)
        assert "x-client-request-id" not in engine.seen[0].headers
