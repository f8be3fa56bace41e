"""A paid answer that goes on without its client is read to its usage, within bounds, and then costs what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tests.proxy.helpers import asking

from spillway_router.core.money.budget import period_start
from spillway_router.core.routing.model import Outcome
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.reconcile import BilledAttempt, reconcile
from spillway_router.ledger.verify import verify
from spillway_router.proxy.exchange.active_config import DrainLimits, Pace
from spillway_router.proxy.exchange.drains import BYTES_PER_S, Drains
from spillway_router.testing import Answer, Arrival, FaultUpstream, openai_wire
from spillway_router.testing.harness import LIMIT_S, Router, cloud, local, routing, settings
from spillway_router.testing.streams import SHAPES, USAGE, delta

CLOSED_S = 1.0
"""How soon the upstream must be closed where nobody reads on (docs/stream-promise.md, point 6)."""
COST_NANO = 3 * 1000 + 2 * 2000
"""Of the usage in every stream of SHAPES, at the harness's prices."""
FEW = {"max_tokens": 100}
WHOLE = Answer.json({"choices": [openai_wire.message_choice({"content": "ab"})], "usage": openai_wire.usage(3, 2)})
WORDS = b"".join([delta({"content": "word"}) for _ in range(20)])
OPENING = delta({"role": "assistant", "content": ""}) + delta({"content": "alpha"})


def going_on(upstream: FaultUpstream, more: str = "") -> str:
    """Return a paid backend that completes and bills an answer whose connection closes."""
    return cloud(upstream).replace("}}", "}, on_disconnect: continues" + more + "}")


def stopping(upstream: FaultUpstream) -> str:
    """Return a paid backend that stops when the connection closes."""
    return cloud(upstream).replace("}}", "}, on_disconnect: stops}")


@asynccontextmanager
async def left(
    router: Router, upstream: FaultUpstream, fields: Mapping[str, Any], until: bytes = b"", path: str = ""
) -> AsyncIterator[tuple[str, Arrival]]:
    """Leave a request once `until` has come of its answer, or once it has arrived upstream. Yield its id."""
    async with asking(router, {**FEW, **fields}, path or "/v1/chat/completions") as reader:
        arrived = await upstream.arrival()
        if until:
            await asyncio.wait_for(reader.readuntil(until), LIMIT_S)
    yield arrived.headers["x-client-request-id"].partition(".")[0], arrived


async def settled(router: Router, request_id: str) -> Entry:
    """Return the row that ends the hold of a request's only attempt."""
    await router.until(lambda: len(router.ledger.entries_of(request_id)) == 2)
    hold, closing = router.ledger.entries_of(request_id)
    assert hold.kind == "reserved"
    assert closing.at_most_nano in (0, hold.reserved_nano)
    assert closing.amount_nano <= hold.reserved_nano
    assert router.ledger.open_reservations(0, 2**62) == ()
    assert verify(router.ledger).holds
    return closing


async def shown(router: Router, request_id: str) -> dict[str, Any]:
    """Return the only attempt as `/v1/requests/{id}` shows it."""
    record = (await router.client.get(f"/v1/requests/{request_id}")).json()
    (attempt,) = record["attempts"]
    assert record["cost_usd"] == attempt["charge_usd"]
    return dict(attempt)


def results(router: Router) -> dict[str, int]:
    return {result: count for (_, result), count in router.runtime.drains.results.items()}


@pytest.mark.parametrize("name", SHAPES)
async def test_a_stream_that_goes_on_is_charged_its_usage(name: str, tmp_path: Path) -> None:
    shape, gate = SHAPES[name]("alpha"), asyncio.Event()
    answer = Answer.stream(shape.body).pausing(shape.end_of(shape.content), gate)
    async with FaultUpstream(answer) as upstream, routing(settings(going_on(upstream)), tmp_path) as router:
        fields = {**shape.fields, "stream": True}
        async with left(router, upstream, fields, b"alpha", shape.path) as (request_id, _):
            await router.until(lambda: router.runtime.drains.in_progress == 1)
            # The client is gone, and its request has ended; only the money waits.
            assert not any(router.runtime.board.in_flight().values())
            assert (await shown(router, request_id))["draining"] is True
            assert len(router.ledger.open_reservations(0, 2**62)) == 1
            gate.set()
            row = await settled(router, request_id)
        assert (row.status, row.amount_nano, row.estimated_nano, row.at_most_nano) == ("aborted", COST_NANO, 0, 0)
        attempt = await shown(router, request_id)
        assert (attempt["outcome"], attempt["draining"], attempt["estimated"]) == ("cancelled", False, False)
        assert attempt["usage"]["completion_tokens"] == 2
        assert results(router) == {"usage": 1}
        # The connection was read to its end, so it serves the next request.
        metrics = (await router.client.get("/metrics")).text
        assert 'spillway_drains_total{backend="cloud",result="usage"} 1.0' in metrics
        assert f'spillway_cost_usd_total{{backend="cloud"}} {COST_NANO / 1e9}' in metrics
        assert 'spillway_tokens_total{backend="cloud",kind="completion"} 2.0' in metrics


@pytest.mark.parametrize(
    ("answer", "stream"),
    [
        pytest.param(Answer.stream(SHAPES["chat"]("alpha").body), True, id="before the head of a stream"),
        pytest.param(WHOLE, False, id="before a whole answer"),
    ],
)
async def test_an_answer_whose_head_has_not_come_is_read_too(answer: Answer, stream: bool, tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        FaultUpstream(answer.after(gate)) as upstream,
        routing(settings(going_on(upstream)), tmp_path) as router,
    ):
        async with left(router, upstream, {"stream": stream}) as (request_id, _):
            await router.until(lambda: router.runtime.drains.in_progress == 1)
            gate.set()
            row = await settled(router, request_id)
        assert (row.status, row.amount_nano, row.at_most_nano) == ("aborted", COST_NANO, 0)


async def test_a_whole_answer_that_has_begun_is_read_to_its_end(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        FaultUpstream(WHOLE.pausing(10, gate)) as upstream,
        routing(settings(going_on(upstream)), tmp_path) as router,
    ):
        async with left(router, upstream, {}) as (request_id, _):
            await router.until(lambda: router.runtime.drains.in_progress == 1)
            gate.set()
            row = await settled(router, request_id)
        assert (row.status, row.amount_nano, row.at_most_nano) == ("aborted", COST_NANO, 0)


async def test_a_provider_that_refuses_after_the_client_left_bills_nothing(tmp_path: Path) -> None:
    gate = asyncio.Event()
    refusal = Answer.json({"error": {"message": "slow down"}}, 429)
    for stream in (True, False):
        gate.clear()
        async with (
            FaultUpstream(refusal.after(gate)) as upstream,
            routing(settings(going_on(upstream)), tmp_path) as router,
        ):
            async with left(router, upstream, {"stream": stream}) as (request_id, _):
                await router.until(lambda router=router: router.runtime.drains.in_progress == 1)  # type: ignore[misc]
                gate.set()
                row = await settled(router, request_id)
            assert (row.kind, row.amount_nano, results(router)) == ("released", 0, {"refused": 1})


@pytest.mark.parametrize(
    ("tail", "end", "tokens", "result"),
    [
        pytest.param(WORDS, "rst", 100, "broken", id="reset"),
        pytest.param(WORDS, "fin", 100, "broken", id="closed"),
        pytest.param(WORDS + b"data: {nonsense\n\n", "whole", 22, "broken", id="nonsense"),
        pytest.param(
            WORDS + delta({}, "stop") + b"data: [DONE]\n\n", "whole", 22, "no_usage", id="whole without usage"
        ),
    ],
)
async def test_what_the_end_does_not_tell_is_estimated(
    tail: bytes, end: Any, tokens: int, result: str, tmp_path: Path
) -> None:
    """85 bytes of text arrive. What broke on its way may have gone on at the provider, as far as was asked for."""
    gate = asyncio.Event()
    answer = Answer.stream(OPENING + tail, end=end).pausing(len(OPENING), gate)
    async with FaultUpstream(answer) as upstream, routing(settings(going_on(upstream)), tmp_path) as router:
        async with left(router, upstream, {"stream": True}, b"alpha") as (request_id, _):
            await router.until(lambda: router.runtime.drains.in_progress == 1)
            gate.set()
            row = await settled(router, request_id)
        assert (row.status, row.completion_tokens, results(router)) == ("aborted", tokens, {result: 1})
        assert 0 < row.estimated_nano == row.amount_nano < row.at_most_nano
        attempt = await shown(router, request_id)
        assert (attempt["estimated"], float(attempt["at_most_usd"])) == (True, row.at_most_nano / 1e9)


@pytest.mark.parametrize("limit", ["drain_s: 0.05", "drain_mb: 0.001"])
async def test_a_drain_ends_at_its_limits(limit: str, tmp_path: Path) -> None:
    endless = Answer.stream(OPENING, end="hang").then(delta({"content": "x" * 50}))
    async with (
        FaultUpstream(endless) as upstream,
        routing(settings(going_on(upstream), more=f"limits: {{{limit}}}\n"), tmp_path) as router,
    ):
        async with left(router, upstream, {"stream": True}, b"alpha") as (request_id, arrived):
            row = await settled(router, request_id)
            async with asyncio.timeout(CLOSED_S):
                await arrived.closed.wait()
        assert (row.status, row.completion_tokens, results(router)) == ("aborted", 100, {"limit": 1})
        assert 0 < row.estimated_nano < row.at_most_nano


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_in_one_endless_piece_ends_at_its_share_of_the_memory(stream: bool, tmp_path: Path) -> None:
    """What all drains keep in memory is bounded, and what is cut off may have cost its bound."""
    endless = Answer.stream(OPENING + b"data: " + bytes(2**21), end="hang")
    if not stream:
        endless = replace(Answer.json({}), body=b'{"text":"' + bytes(2**21), end="hang", chunked=True)
    async with (
        FaultUpstream(endless) as upstream,
        routing(settings(going_on(upstream), more="limits: {drains: 512}\n"), tmp_path) as router,
    ):
        async with left(router, upstream, {"stream": stream}, b"alpha" if stream else b"") as (request_id, arrived):
            row = await settled(router, request_id)
            async with asyncio.timeout(CLOSED_S):
                await arrived.closed.wait()
        assert (row.status, row.completion_tokens, results(router)) == ("aborted", 100, {"limit": 1})
        assert row.amount_nano + row.reserved_nano == row.at_most_nano > row.amount_nano


class _Paced:
    """An answer that comes as fast as it is read, in pieces of a tenth of what all may read in a second."""

    def __init__(self, log: list[str], name: str) -> None:
        self._log, self._name = log, name

    async def read(self, limits: DrainLimits, pace: Pace) -> Outcome:
        del limits
        for _ in range(10):
            await pace(BYTES_PER_S // 10)
            self._log.append(self._name)
        return Outcome("ok", 200)

    def close(self) -> None:
        self._log.append("closed")


async def test_all_drains_together_have_one_pace() -> None:
    log: list[str] = []
    drains = Drains(DrainLimits, lambda _facts, _attempt: None)
    began_s = asyncio.get_running_loop().time()
    for name in ("a", "b"):
        assert drains.take(Mock(), _Paced(log, name), Outcome("cancelled"))
    async with asyncio.timeout(LIMIT_S):
        while log.count("closed") < 2:
            await asyncio.sleep(0.01)
    # Two seconds' worth was read, one of which was made up for.
    assert asyncio.get_running_loop().time() - began_s > 0.9
    assert set(log[-4:-2]) <= {"a", "b", "closed"}


async def test_beyond_the_number_of_drains_a_call_is_estimated_at_once(tmp_path: Path) -> None:
    gate = asyncio.Event()
    stream = Answer.stream(SHAPES["chat"]("alpha").body).pausing(len(OPENING), gate)
    async with (
        FaultUpstream(stream) as upstream,
        routing(settings(going_on(upstream), more="limits: {drains: 1}\n"), tmp_path) as router,
    ):
        async with left(router, upstream, {"stream": True}, b"alpha") as (first, _):
            await router.until(lambda: router.runtime.drains.in_progress == 1)
        async with left(router, upstream, {"stream": True}, b"alpha") as (second, arrived):
            async with asyncio.timeout(CLOSED_S):
                await arrived.closed.wait()
            await router.until(lambda: len(router.ledger.entries_of(second)) == 2)
        (hold, row) = router.ledger.entries_of(second)
        # It goes on without us, so it is expected to become as long as it may.
        assert (row.status, row.completion_tokens) == ("aborted", 100)
        assert 0 < row.estimated_nano < row.at_most_nano == hold.reserved_nano
        assert results(router) == {"full": 1}
        gate.set()
        assert (await settled(router, first)).amount_nano == COST_NANO


@pytest.mark.parametrize("backend", [stopping, lambda upstream: going_on(upstream, ", drain: off")])
async def test_nobody_reads_on_where_that_would_cost_more_or_is_off(backend: Any, tmp_path: Path) -> None:
    async with (
        FaultUpstream(Answer.stream(OPENING + WORDS, end="hang")) as upstream,
        routing(settings(backend(upstream)), tmp_path) as router,
    ):
        async with left(router, upstream, {"stream": True}, b"word") as (request_id, arrived):
            async with asyncio.timeout(CLOSED_S):
                await arrived.closed.wait()
            row = await settled(router, request_id)
        assert row.completion_tokens == (22 if backend is stopping else 100)
        assert (row.status, row.at_most_nano > row.amount_nano > 0, results(router)) == ("aborted", True, {})


async def test_an_engine_is_stopped_at_once_and_nothing_else_is_read(tmp_path: Path) -> None:
    async with FaultUpstream(Answer.stream(OPENING, end="hang")) as engine:
        text = local(engine).replace("}", ", on_disconnect: continues}")
        async with routing(settings(text), tmp_path) as router:
            async with asking(router, {"stream": True}) as reader:
                arrived = await engine.arrival()
                await asyncio.wait_for(reader.readuntil(b"alpha"), LIMIT_S)
            async with asyncio.timeout(CLOSED_S):
                await arrived.closed.wait()
            assert (router.runtime.drains.in_progress, results(router)) == (0, {})


async def test_a_whole_answer_at_its_very_end_needs_no_drain(tmp_path: Path) -> None:
    """The usage has come, and only the end of the connection is missing."""
    body = OPENING + delta({}, "stop") + USAGE
    async with (
        FaultUpstream(Answer.stream(body, end="hang")) as upstream,
        routing(settings(going_on(upstream)), tmp_path) as router,
    ):
        async with left(router, upstream, {"stream": True}, b"alpha") as (request_id, _):
            row = await settled(router, request_id)
        assert (row.status, row.amount_nano, row.at_most_nano, results(router)) == ("aborted", COST_NANO, 0, {})


async def test_a_call_that_never_left_costs_nothing(tmp_path: Path) -> None:
    """The client leaves while no connection is there yet: an address that swallows packets."""
    text = settings(cloud("http://192.0.2.1:9/v1").replace("}}", "}, on_disconnect: continues}"))
    async with routing(text, tmp_path) as router:
        async with asking(router, {**FEW, "stream": True}):
            await router.until(lambda: len(router.ledger.open_reservations(0, 2**62)) == 1)
        await router.until(lambda: not router.ledger.open_reservations(0, 2**62))
        await router.until(lambda: bool(router.runtime.services.records.recent(1)))
        (record,) = router.runtime.services.records.recent(2)
        closing = router.ledger.entries_of(record.facts.request_id)[-1]
        assert (closing.kind, closing.amount_nano, closing.at_most_nano) == ("released", 0, 0)


# the router's own life


@pytest.mark.parametrize("in_time", [True, False])
async def test_a_router_that_stops_lets_drains_end_and_estimates_the_others(in_time: bool, tmp_path: Path) -> None:
    gate = asyncio.Event()
    stream = Answer.stream(SHAPES["chat"]("alpha").body).pausing(len(OPENING), gate)
    limits = "limits: {drain_stop_s: %s}\n" % (10 if in_time else 0.05)
    async with FaultUpstream(stream) as upstream:
        async with routing(settings(going_on(upstream), more=limits), tmp_path) as router:
            async with left(router, upstream, {"stream": True}, b"alpha") as (request_id, arrived):
                await router.until(lambda: router.runtime.drains.in_progress == 1)
            if in_time:
                asyncio.get_running_loop().call_later(0.05, gate.set)
        # The router has stopped: what it wrote is all there is.
        async with routing(settings(going_on(upstream)), tmp_path) as again:
            row = await settled(again, request_id)
        if in_time:
            assert (row.status, row.amount_nano, row.at_most_nano) == ("aborted", COST_NANO, 0)
        else:
            assert row.status == "aborted"
            assert 0 < row.estimated_nano < row.at_most_nano
            assert arrived.closed.is_set()
        assert router.runtime.drains.in_progress == 0


async def test_no_drain_begins_once_the_router_stops(tmp_path: Path) -> None:
    async with (
        FaultUpstream(Answer.stream(OPENING, end="hang")) as upstream,
        routing(settings(going_on(upstream)), tmp_path) as router,
    ):
        await router.runtime.drains.close()
        async with left(router, upstream, {"stream": True}, b"alpha") as (request_id, arrived):
            async with asyncio.timeout(CLOSED_S):
                await arrived.closed.wait()
            row = await settled(router, request_id)
        assert (row.at_most_nano > row.amount_nano > 0, results(router)) == (True, {"stopped": 1})


async def test_a_drain_survives_a_reload_that_removes_its_backend(tmp_path: Path) -> None:
    gate = asyncio.Event()
    stream = Answer.stream(SHAPES["chat"]("alpha").body).pausing(len(OPENING), gate)
    async with (
        FaultUpstream(stream) as upstream,
        FaultUpstream(WHOLE) as other,
        routing(settings(going_on(upstream)), tmp_path) as router,
    ):
        async with left(router, upstream, {"stream": True}, b"alpha") as (request_id, _):
            await router.until(lambda: router.runtime.drains.in_progress == 1)
        text = router.path.read_text()
        router.path.write_text(text[: text.index("backends:")] + settings(cloud(other, "other")))
        assert await router.runtime.reload("a test") == []
        assert (await router.chat(FEW)).headers["x-spillway-backend"] == "other"
        gate.set()
        await router.until(lambda: len(router.ledger.entries_of(request_id)) == 2)
        row = router.ledger.entries_of(request_id)[-1]
        assert (row.backend, row.amount_nano, row.at_most_nano) == ("cloud", COST_NANO, 0)


async def test_a_budget_gets_back_what_an_answer_did_not_cost(tmp_path: Path) -> None:
    """The bound is held until the cost is known, and not longer: the next request fits under the cap."""
    gate = asyncio.Event()
    stream = Answer.stream(SHAPES["chat"]("alpha").body).pausing(len(OPENING), gate)
    cap = "budgets: [{scope: all, period: day, limit_usd: '0.0005'}]\n"
    async with (
        FaultUpstream(stream) as upstream,
        routing(settings(going_on(upstream), more=cap), tmp_path) as router,
    ):
        async with left(router, upstream, {"stream": True}, b"alpha") as (request_id, _):
            await router.until(lambda: router.runtime.drains.in_progress == 1)
            assert (await router.chat(FEW)).status_code == 402
            gate.set()
            await settled(router, request_id)
        upstream.answer = replace(WHOLE)
        assert (await router.chat(FEW)).status_code == 200


async def test_clients_that_leave_cannot_spend_more_than_a_budget(tmp_path: Path) -> None:
    """Nobody knows whether the provider went on, so the budget holds what each answer can have cost."""
    upstream = FaultUpstream(Answer.stream(OPENING, end="hang"))
    more = 'budgets: [{scope: all, period: month, limit_usd: "0.002"}]\n'
    async with upstream, routing(settings(cloud(upstream), more=more), tmp_path) as router:
        rows: list[Entry] = []
        while not rows or (len(rows) + 1) * rows[0].at_most_nano <= 2_000_000:
            async with left(router, upstream, {"stream": True}, b"alpha") as (request_id, _):
                rows.append(await settled(router, request_id))
        refused = await router.chat(FEW)
        assert refused.status_code == 402
        assert len(rows) > 2
        assert all(row.amount_nano + row.reserved_nano == row.at_most_nano for row in rows)
        taken = router.ledger.balance("all", "month", period_start("month", rows[0].ts // 1000) * 1000)
        assert taken.spent_nano == sum(row.amount_nano for row in rows)
        assert taken.spent_nano + taken.reserved_nano == sum(row.at_most_nano for row in rows)
        bills = [BilledAttempt(row.request_id, row.attempt_no, row.amount_nano + 1) for row in rows]
        assert {each.outcome for each in reconcile(router.ledger, bills, rows[-1].ts)} == {"adjusted"}
        now_known = router.ledger.balance("all", "month", period_start("month", rows[0].ts // 1000) * 1000)
        assert (now_known.spent_nano, now_known.reserved_nano) == (sum(bill.cost_nano for bill in bills), 0)
        assert verify(router.ledger).holds


async def test_a_budget_holds_nothing_for_an_answer_that_a_provider_stops(tmp_path: Path) -> None:
    upstream = FaultUpstream(Answer.stream(OPENING, end="hang"))
    async with upstream, routing(settings(stopping(upstream)), tmp_path) as router:
        async with left(router, upstream, {"stream": True}, b"alpha") as (request_id, _):
            row = await settled(router, request_id)
        assert (row.reserved_nano, row.at_most_nano > row.amount_nano > 0) == (0, True)
        assert verify(router.ledger).holds
