"""Hedged streams over real sockets: who answers first is heard, both are booked, and what forbids a cloud holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import apsw
import httpx
import pytest

from spillway_router.core.money.tariff import usd
from spillway_router.core.routing.backlog import BacklogView
from spillway_router.ledger.entries import Entry
from spillway_router.proxy.control.request_list import line_of_entries
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, local, routing, settings
from spillway_router.testing.streams import USAGE, delta
from spillway_router.testing.upstream import End

HEDGING = "hedging: {enabled: true, after: 1, shortest_ms: 30, share: 1, usd_per_second: 1}\n"
FAR_MS = 4_000_000_500_000 // 900_000 * 900_000
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


def stream(text: str) -> Answer:
    """A streamed chat completion."""
    return Answer.stream(delta({"content": text}) + delta({}, "stop") + USAGE + b"data: [DONE]\n\n")


ENGINE, CLOUD = stream("from the engine"), stream("from the cloud")


@asynccontextmanager
async def hedging(
    engine: FaultUpstream, other: FaultUpstream, more: str = "", rule: str = HEDGING, folder: Path | None = None
) -> AsyncIterator[Router]:
    """A router whose engine is hedged by a cloud."""
    async with routing(settings(local(engine), cloud(other), more=rule + more), folder) as router:
        answer, other.answer = other.answer, CLOUD
        for _ in range(3):  # so that the router knows how soon the cloud begins
            assert (await router.chat({**STREAM, "model": "cloud/cloud-m", "max_tokens": 5})).is_success
        other.answer = answer
        for _ in range(other.arrivals.qsize()):
            other.arrivals.get_nowait()
        other.seen.clear()
        yield router


async def settled(router: Router, reply: httpx.Response, count: int) -> list[Entry]:
    """The rows of a request without holds, once there are so many."""
    await router.until(lambda: len(router.rows(reply)) == count)
    return sorted(router.rows(reply), key=lambda row: row.attempt_no)


def ended(router: Router, request_id: str) -> list[Entry]:
    """The rows of the attempts of a request that have ended."""
    return sorted(
        (row for row in router.ledger.entries_of(request_id) if row.kind != "reserved"), key=lambda row: row.attempt_no
    )


async def test_a_stream_that_does_not_begin_is_answered_by_the_second_backend() -> None:
    async with (
        FaultUpstream(ENGINE.after(asyncio.Event())) as engine,
        FaultUpstream(CLOUD) as other,
        hedging(engine, other) as router,
    ):
        reply = await router.chat(STREAM)
        assert "from the cloud" in reply.text
        assert reply.text.endswith("data: [DONE]\n\n")
        assert (reply.headers["x-spillway-backend"], reply.headers["x-spillway-decision"]) == ("cloud", "overflow")
        assert reply.headers["x-spillway-reason"].split(",")[-1] == "hedge"
        first, second = await settled(router, reply, 2)
        assert (first.backend, first.attempt_no, first.status, first.amount_nano) == ("local", 1, "error", 0)
        assert (second.backend, second.attempt_no, second.status, second.amount_nano > 0) == ("cloud", 2, "ok", True)
        await asyncio.wait_for(engine.seen[0].closed.wait(), 10)  # the slower call is cancelled
        record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
        assert [attempt["backend"] for attempt in record["attempts"]] == ["local", "cloud"]
        assert router.runtime.services.memory.hedges.counts == {"won": 1}


async def test_the_first_backend_answers_after_all_and_the_second_is_cancelled_and_booked() -> None:
    begin = asyncio.Event()
    async with (
        FaultUpstream(ENGINE.after(begin)) as engine,
        FaultUpstream(CLOUD.after(asyncio.Event())) as other,
        hedging(engine, other) as router,
    ):
        asking = asyncio.create_task(router.chat(STREAM))
        await other.arrival()
        begin.set()
        reply = await asking
        assert "from the engine" in reply.text
        assert (reply.headers["x-spillway-backend"], reply.headers["x-spillway-decision"]) == ("local", "local")
        first, second = await settled(router, reply, 2)
        assert (first.backend, first.status) == ("local", "ok")
        assert (second.backend, second.attempt_no, second.status, second.kind) == ("cloud", 2, "error", "charged")
        assert second.reasons.split(",")[-1] == "hedge"
        await asyncio.wait_for(other.seen[0].closed.wait(), 10)
        assert router.runtime.services.memory.hedges.counts == {"lost": 1}
        assert 0 < second.amount_nano <= second.at_most_nano  # the provider may have gone on


@pytest.mark.parametrize("end", ["whole", "rst", "hang"])
async def test_a_hedge_that_wins_and_breaks_is_told_and_gets_nothing_of_the_other_leg(end: End) -> None:
    begin = asyncio.Event()
    broken = Answer.stream(delta({"content": "from the cloud"}), end=end)
    async with (
        FaultUpstream(ENGINE.after(begin)) as engine,
        FaultUpstream(broken) as other,
        hedging(engine, other, more="limits: {stall_s: 1}\n") as router,
    ):
        reply = await router.chat(STREAM)
        begin.set()
        assert reply.text.count("upstream_interrupted") == 1
        assert not reply.text.endswith("data: [DONE]\n\n")
        assert "from the cloud" in reply.text
        assert "from the engine" not in reply.text
        first, second = await settled(router, reply, 2)
        assert [(row.backend, row.status) for row in (first, second)] == [("local", "error"), ("cloud", "error")]


async def test_a_hedge_that_fails_leaves_the_first_backend_its_time() -> None:
    begin = asyncio.Event()
    async with (
        FaultUpstream(ENGINE.after(begin)) as engine,
        FaultUpstream(Answer.json({"error": {"message": "down"}}, 500)) as other,
        hedging(engine, other) as router,
    ):
        asking = asyncio.create_task(router.chat(STREAM))
        await other.arrival()
        begin.set()
        reply = await asking
        assert "from the engine" in reply.text
        assert (reply.status_code, reply.headers["x-spillway-backend"]) == (200, "local")


async def test_a_client_that_leaves_ends_both_legs(tmp_path: Path) -> None:
    never = asyncio.Event()
    async with (
        FaultUpstream(ENGINE.after(never)) as engine,
        FaultUpstream(CLOUD.after(never)) as other,
        hedging(engine, other) as router,
    ):
        asking = asyncio.create_task(router.chat(STREAM))
        await other.arrival()
        asking.cancel()
        await asyncio.wait_for(engine.seen[0].closed.wait(), 10)
        await asyncio.wait_for(other.seen[0].closed.wait(), 10)
        request_id = other.seen[0].headers["x-client-request-id"].removesuffix(".2")
        await router.until(lambda: len(ended(router, request_id)) == 2)
        assert [(row.attempt_no, row.status) for row in ended(router, request_id)] == [(1, "aborted"), (2, "error")]


@pytest.mark.parametrize(
    ("headers", "fields", "more", "rule"),
    [
        ({"x-spillway-privacy": "local-only"}, {}, "", HEDGING),
        ({"x-spillway-route": "local"}, {}, "", HEDGING),
        ({}, {"model": "local/m"}, "", HEDGING),
        ({}, {"provider": {"allow_fallbacks": False}}, "", HEDGING),
        ({}, {}, "budgets: [{scope: all, period: day, limit_usd: '0.004'}]\n", HEDGING),
        ({}, {}, "policy: {rules: [{name: none, when: {alias: auto}, forbid: cloud}]}\n", HEDGING),
        ({}, {}, "", HEDGING.replace("usd_per_second: 1", "usd_per_second: 0.000000001")),
        ({}, {}, "", HEDGING.replace("share: 1", "share: 0.5")),
        ({}, {}, "", ""),
    ],
)
async def test_what_may_not_or_is_not_worth_it_is_never_hedged(
    headers: dict[str, str], fields: dict[str, object], more: str, rule: str
) -> None:
    begin = asyncio.Event()
    async with (
        FaultUpstream(ENGINE.after(begin)) as engine,
        FaultUpstream(CLOUD) as other,
        hedging(engine, other, more, rule) as router,
    ):
        asking = asyncio.create_task(router.chat({**STREAM, **fields}, **headers))
        await engine.arrival()
        asyncio.get_running_loop().call_later(0.25, begin.set)  # far longer than until a hedge would be sent
        reply = await asking
        assert "from the engine" in reply.text
        assert not other.seen
        assert not router.runtime.services.memory.hedges.counts["won"]


@pytest.mark.parametrize("short_nano", [0, 1])
async def test_both_legs_together_keep_to_what_the_request_may_cost(short_nano: int) -> None:
    begin = asyncio.Event()
    async with (
        FaultUpstream(ENGINE.after(begin)) as slow,
        FaultUpstream(CLOUD) as other,
        routing(settings(cloud(slow, "slow"), cloud(other), more=HEDGING)) as router,
    ):
        begin.set()
        for model in 3 * ("slow/slow-m", "cloud/cloud-m"):  # so that the router knows how soon each begins
            assert (await router.chat({**STREAM, "model": model})).is_success
        begin.clear()
        both = await router.chat(STREAM)
        held = [row for row in router.ledger.entries_of(both.headers["x-request-id"]) if row.kind == "reserved"]
        assert [row.backend for row in held] == ["slow", "cloud"]
        most_usd = usd(sum(row.reserved_nano for row in held) - short_nano)
        for _ in range(slow.arrivals.qsize()):
            slow.arrivals.get_nowait()
        other.seen.clear()
        asking = asyncio.create_task(router.chat(STREAM, **{"x-spillway-max-cost-usd": most_usd}))
        await slow.arrival()
        asyncio.get_running_loop().call_later(2 if short_nano else 10, begin.set)
        assert ("from the engine" if short_nano else "from the cloud") in (await asking).text
        assert len(other.seen) == 1 - short_nano


@pytest.mark.parametrize(
    ("more", "text"), [("", "engine"), ("confidence: {threshold: 0.8, escalate_to: [cloud]}\n", "cloud")]
)
async def test_an_engine_whose_answers_are_judged_answers_in_no_race_as_a_hedge_is_not_judged(
    more: str, text: str
) -> None:
    begin = asyncio.Event()
    async with (
        FaultUpstream(ENGINE) as engine,
        FaultUpstream(CLOUD.after(begin)) as other,
        hedging(engine, other, f"aliases: {{auto: {{chain: [cloud, local]}}}}\n{more}") as router,
    ):
        asking = asyncio.create_task(router.chat(STREAM))
        await other.arrival()
        asyncio.get_running_loop().call_later(1.0, begin.set)
        reply = await asking
        assert f"from the {text}" in reply.text


async def test_an_answer_that_begins_in_time_is_not_hedged() -> None:
    slow = HEDGING.replace("shortest_ms: 30", "shortest_ms: 9000")
    async with (
        FaultUpstream(ENGINE) as engine,
        FaultUpstream(CLOUD) as other,
        hedging(engine, other, rule=slow) as router,
    ):
        reply = await router.chat(STREAM)
        assert "from the engine" in reply.text
        assert not other.seen
        assert not router.runtime.services.memory.hedges.counts


def answers_of(router: Router) -> int:
    """Return the number of answers that reports count."""
    return sum(total.answers for total in router.ledger.totals(0, FAR_MS))


async def test_of_two_legs_one_is_the_answer_whichever_row_is_written_last() -> None:
    begin = asyncio.Event()
    async with (
        FaultUpstream(ENGINE.after(begin)) as engine,
        FaultUpstream(CLOUD.after(asyncio.Event())) as other,
        hedging(engine, other) as router,
    ):
        before = answers_of(router)
        asking = asyncio.create_task(router.chat(STREAM))
        await other.arrival()
        begin.set()
        lost = await asking
        engine.answer, other.answer = ENGINE.after(asyncio.Event()), CLOUD
        won = await router.chat(STREAM)
        for reply, backend, decision in ((lost, "local", "local"), (won, "cloud", "overflow")):
            await settled(router, reply, 2)
            line = line_of_entries(router.ledger.entries_of(reply.headers["x-request-id"]))
            assert (line.backend, line.ended, line.decision) == (backend, "ok", decision)
        assert answers_of(router) - before == 2


async def test_a_backend_that_failed_in_the_race_is_not_asked_again_at_once() -> None:
    begin = asyncio.Event()
    down = Answer.json({"error": {"message": "down"}}, 500)
    async with (
        FaultUpstream(down.after(begin)) as engine,
        FaultUpstream(down) as other,
        hedging(engine, other, "slo: {ttft_ms: 100, tpot_ms: 1000}\n") as router,
    ):
        asking = asyncio.create_task(router.chat(STREAM))
        await other.arrival()
        asyncio.get_running_loop().call_later(0.2, begin.set)  # the promised time is over, so no pause fits into it
        reply = await asking
        assert (reply.status_code, len(engine.seen), len(other.seen)) == (502, 1, 1)
        assert [row.status for row in await settled(router, reply, 2)] == ["error", "error"]


async def test_a_hedge_whose_money_was_set_aside_too_late_is_never_sent(tmp_path: Path) -> None:
    begin = asyncio.Event()
    async with (
        FaultUpstream(ENGINE.after(begin)) as engine,
        FaultUpstream(CLOUD) as other,
        hedging(engine, other, folder=tmp_path) as router,
    ):
        board, clock = router.runtime.board, router.runtime.services.clock
        with closing(apsw.Connection(str(tmp_path / "ledger.db"))) as held:
            held.execute("BEGIN IMMEDIATE")  # so that the hold of the second leg waits
            asking = asyncio.create_task(router.chat(STREAM))
            await router.until(lambda: router.runtime.writer.health.queued_rows > 0)
            begin.set()
            await router.until(lambda: is_answering(board.current(clock()).backends["local"].backlog))
            held.execute("ROLLBACK")
        reply = await asking
        assert "from the engine" in reply.text
        first, second = await settled(router, reply, 2)
        assert (first.status, second.kind, second.amount_nano) == ("ok", "released", 0)
        assert not other.seen


def is_answering(backlog: BacklogView | None) -> bool:
    """Return whether the only request at an engine has its first token."""
    return backlog is not None and backlog.in_flight == 1 and not backlog.waiting_first_token
