"""One upstream attempt: its hold, its number, its outcome and its charge, without a router."""

from __future__ import annotations

import random

import pytest
from tests.proxy.exchange.scene import Scene, scene

from spillway_router.core.money.estimates import OutputCount
from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.filters import cost_bound_nano
from spillway_router.core.routing.model import Outcome, OutcomeKind
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.records import Balance
from spillway_router.ledger.verify import verify
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
HALF_TOLD = Usage(3, 0, certain=False)
LEFT = Outcome("cancelled", billed=True)
BROKEN = Outcome("failed", 200, "it broke", billed=True)
NO_BUDGET = "budgets: [{scope: all, period: day, limit_usd: '0.0000001'}]\n"


def came(*texts: str, whole: bool = False, usage: Usage | None = None, so_far: Usage | None = None) -> ReceivedAnswer:
    """Return what arrived of a paid stream: one event for each text."""
    count = OutputCount()
    for text in texts:
        count.add(text)
    return ReceivedAnswer(len(texts), whole=whole or usage is not None, usage=usage, told=so_far, count=count)


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
    ("outcome", "received", "row"),
    [
        pytest.param(LEFT, None, ("charged", "aborted", 0, True), id="left before anything came: the prompt"),
        pytest.param(LEFT, came("ab", "cd"), ("charged", "aborted", 2, True), id="left: what came"),
        pytest.param(LEFT, came("ab", so_far=Usage(9, 7)), ("charged", "aborted", 7, True), id="left: what was told"),
        pytest.param(BROKEN, came("ab", "cd"), ("charged", "error", 2, True), id="broken: what came"),
        pytest.param(Outcome("timeout", billed=True), None, ("charged", "error", 0, True), id="silent: the prompt"),
        pytest.param(Outcome("ok", 200), came("ab", whole=True), ("charged", "ok", 1, True), id="no usage: what came"),
        pytest.param(LEFT, came("ab", usage=Usage(3, 2)), ("charged", "aborted", 2, False), id="whole: its usage"),
        pytest.param(
            LEFT,
            came("ab", "cd", usage=HALF_TOLD, so_far=HALF_TOLD),
            ("charged", "aborted", 2, True),
            id="whole, half a usage: what came",
        ),
        pytest.param(
            Outcome("failed", 500, doubtful=True), None, ("charged", "error", 0, True), id="should be free: nothing"
        ),
        pytest.param(Outcome("rejected", 400), None, ("released", "error", 0, False), id="is free: nothing"),
    ],
)
async def test_what_an_attempt_without_a_usage_costs(
    outcome: Outcome, received: ReceivedAnswer | None, row: tuple[str, str, int, bool]
) -> None:
    async with scene(BOTH) as stage:
        state = stage.state("cloud")
        attempt = await stage.opened(state, "cloud", BOUND_NANO)
        attempt.received, attempt.streamed = received, True
        attempt.close(outcome)
        closing = (await stage.rows(state))[-1]
        estimated = closing.at_most_nano > 0
        assert (closing.kind, closing.status, closing.completion_tokens, estimated) == row
        assert (closing.at_most_nano, closing.estimated_nano) == (
            (BOUND_NANO, closing.amount_nano) if estimated else (0, 0)
        )
        assert closing.amount_nano == closing.prompt_tokens * 1000 + closing.completion_tokens * 2000
        assert (closing.prompt_tokens > 0) == (outcome.billed or outcome.kind == "ok")
        assert attempt.record is not None
        assert attempt.record.at_most_nano == (BOUND_NANO if estimated else None)


async def test_a_whole_answer_that_was_on_its_way_counts_as_the_usual_one() -> None:
    """Nobody sees how far it is: the provider bills the answer, or what it made until it noticed."""
    async with scene(BOTH) as stage:
        state = stage.state("cloud")
        for tokens in (40, 40, 40, 40, 40, 40, 40, 40) * 8:
            attempt = await stage.opened(state, "cloud", BOUND_NANO)
            attempt.close(Outcome("ok", 200, usage=Usage(3, tokens)))
        attempt = await stage.opened(state, "cloud", BOUND_NANO)
        attempt.close(LEFT)
        closing = (await stage.rows(state))[-1]
        assert closing.completion_tokens == pytest.approx(40, abs=4)
        assert closing.at_most_nano == BOUND_NANO


async def test_an_estimate_is_never_above_the_bound() -> None:
    async with scene(BOTH) as stage:
        state = stage.state("cloud")
        facts = state.facts
        bound_nano = cost_bound_nano(facts, stage.candidate("cloud").backend)
        attempt = await stage.opened(state, "cloud", bound_nano)
        attempt.received, attempt.streamed = came(*["word" * 50] * 5000), True
        attempt.close(LEFT)
        closing = (await stage.rows(state))[-1]
        assert 0 < closing.amount_nano <= closing.at_most_nano == bound_nano


async def test_however_attempts_end_their_charges_keep_to_their_bounds_and_the_books_agree() -> None:
    """Whatever arrived and whatever was told, no charge is above its bound, and the balance is the sum of the rows."""
    chance = random.Random(13)
    kinds: tuple[OutcomeKind, ...] = ("ok", "cancelled", "failed", "timeout", "rejected", "rate_limited", "overloaded")
    async with scene(BOTH) as stage:
        state = stage.state("cloud")
        bound_nano = cost_bound_nano(state.facts, stage.candidate("cloud").backend)
        for _ in range(300):
            attempt = await stage.opened(state, "cloud", bound_nano)
            attempt.streamed = chance.random() < 0.5
            if chance.random() < 0.7:
                texts = [chance.choice(("word", "x" * 500, "", "\u4e2d")) for _ in range(chance.randint(0, 60))]
                so_far = Usage(chance.randint(0, 40), chance.randint(0, 200)) if chance.random() < 0.3 else None
                attempt.received = came(*texts, so_far=so_far, whole=chance.random() < 0.2)
            billed, doubtful = chance.random() < 0.7, chance.random() < 0.2
            attempt.close(Outcome(chance.choice(kinds), chance.choice((0, 200, 500)), billed=billed, doubtful=doubtful))
        rows = await stage.rows(state)
        closings = [row for row in rows if row.kind != "reserved"]
        assert len(closings) == 300
        assert all(0 <= row.amount_nano <= bound_nano for row in closings)
        assert all(row.at_most_nano in (0, bound_nano) and row.status != "unknown" for row in closings)
        assert all(row.estimated_nano == (row.amount_nano if row.at_most_nano else 0) for row in closings)
        assert stage.ledger.balance("all", "day", _day_of(rows[0])) == Balance(
            sum(r.amount_nano for r in closings), sum(r.reserved_nano for r in closings)
        )
        # All of them belong to one request here, which no real one has more than one answer for.
        assert {fault.rule for fault in verify(stage.ledger).faults} == {"answers"}


def _day_of(entry: Entry) -> int:
    return entry.ts - entry.ts % 86_400_000


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


async def test_what_a_local_engine_does_not_count_counts_as_predicted_and_as_it_came() -> None:
    async with scene(BOTH) as stage:
        state = stage.state("local")
        attempt = await stage.opened(state, "local")
        attempt.received = ReceivedAnswer(events=7)
        attempt.close(Outcome("ok", 200, usage=Usage(0, 0, certain=False)))
        (row,) = await stage.rows(state)
        assert (row.prompt_tokens, row.completion_tokens) == (attempt.candidate.prompt_tokens, 7)
        assert row.status == "ok"


async def test_uncertain_usage_costs_an_estimate_not_below_it_and_teaches_nothing() -> None:
    async with scene(BOTH) as stage:
        state, board = stage.state("cloud"), stage.services.board
        before = board.current(stage.services.clock()).backends["cloud"].tokens_per_byte
        attempt = await stage.opened(state, "cloud", 10 * BOUND_NANO)
        usage = Usage(3000, 0, certain=False)
        attempt.received = ReceivedAnswer(whole=True, told=usage)
        attempt.close(Outcome("ok", 200, usage=usage))
        _, row = await stage.rows(state)
        assert (row.status, row.prompt_tokens, row.at_most_nano) == ("ok", 3000, 10 * BOUND_NANO)
        assert 3000 * 1000 <= row.amount_nano == row.estimated_nano <= 10 * BOUND_NANO
        assert board.current(stage.services.clock()).backends["cloud"].tokens_per_byte == before


async def test_the_record_names_the_model_that_answered() -> None:
    async with scene(BOTH) as stage:
        state = stage.state("cloud")
        attempt = await stage.opened(state, "cloud", BOUND_NANO)
        attempt.close(Outcome("ok", 200, usage=Usage(3, 2, model="another")))
        held, row = await stage.rows(state)
        assert attempt.record is not None
        assert (held.model, row.model, attempt.record.model) == ("cloud-m", "another", "another")
