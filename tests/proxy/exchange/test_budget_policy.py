"""A budget that runs low, seen by a client: the degrade ladder, its refusal, its dry run; pacing of escalations."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from spillway_router.core.money.tariff import NANO
from spillway_router.ledger.entries import Entry
from spillway_router.testing import Answer, FakeEngine, FaultUpstream
from spillway_router.testing.harness import MESSAGES, Router, cloud, error_of, local, routing, serving, settings

DAY_MS = 86_400_000
BROKEN = Answer.json({"error": {"message": "broken"}}, 500)
LADDER = """budgets:
  - scope: all
    period: month
    limit_usd: "1"
    degrade: [{at: 0.8, drop: [strong]}, {at: 0.95, drop: cloud}]
"""
DOUBTFUL = (-1.0, -2.0)  # a confidence of 0.22


def answer(tokens: int) -> Answer:
    """Return an answer that costs `tokens` millionths of a dollar."""
    message = {"role": "assistant", "content": ""}
    usage = {"prompt_tokens": tokens, "completion_tokens": 0}
    return Answer.json({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})


@asynccontextmanager
async def ladder(more: str = LADDER) -> AsyncIterator[tuple[Router, FaultUpstream]]:
    """Run a local engine that always fails, a strong cloud and a cheap one."""
    async with FaultUpstream(BROKEN) as engine, FaultUpstream(answer(1)) as strong, FaultUpstream(answer(1)) as cheap:
        backends = local(engine), cloud(strong, "strong"), cloud(cheap, "cheap")
        async with routing(settings(*backends, more=more)) as router:
            yield router, strong


async def spend(router: Router, strong: FaultUpstream, micro_usd: int) -> None:
    strong.answer = answer(micro_usd)
    reply = await router.chat({"model": "strong/strong-m", "max_tokens": 1})
    assert reply.status_code == 200, reply.text


async def test_the_ladder_from_the_strong_cloud_to_a_clear_402() -> None:
    async with ladder() as (router, strong):
        few = {"max_tokens": 1}
        first = await router.chat(few)
        assert first.headers["x-spillway-backend"] == "strong"
        await spend(router, strong, 800_000)
        router.forget_failures()
        second = await router.chat(few)
        assert (second.status_code, second.headers["x-spillway-backend"]) == (200, "cheap")
        # What a client may still ask of the strong one by name is refused for the same reason.
        pinned = await router.chat({"model": "strong/strong-m", **few})
        assert (pinned.status_code, error_of(pinned)["code"]) == (402, "budget_exceeded")
        assert "from 80% on it gets no requests (degrade)" in error_of(pinned)["message"]


async def test_local_only_ends_in_a_402_when_no_local_backend_is_up() -> None:
    async with ladder(LADDER.replace("at: 0.8, drop: [strong]", "at: 0.9, drop: [cheap]")) as (router, strong):
        await spend(router, strong, 960_000)
        router.runtime.board.health("local", "down", "refused")
        reply = await router.chat({"max_tokens": 1})
        assert (reply.status_code, error_of(reply)["code"]) == (402, "budget_exceeded")
        assert reply.headers["x-should-retry"] == "false"
        assert "strong: the month budget for all is 96% used; from 95% on" in error_of(reply)["message"]
        assert "cheap: the month budget for all is 96% used; from 90% on" in error_of(reply)["message"]


async def test_the_dry_run_shows_the_rung() -> None:
    async with ladder() as (router, strong):
        await spend(router, strong, 850_000)
        explanation = (await router.post({"model": "auto", "messages": MESSAGES}, "/v1/route/explain")).json()
        [removed] = [r for r in explanation["removed"] if r["backend"] == "strong"]
        assert removed["reason"] == "budget"
        assert removed["detail"] == "the month budget for all is 85% used; from 80% on it gets no requests (degrade)"
        assert explanation["candidates"]
        assert "strong" not in json.dumps(explanation["candidates"])


# what costs nothing, and what each key has for itself

FREE = '{input_per_million: "0", output_per_million: "0"}'
DAY_CENT = 'budgets: [{scope: all, period: day, limit_usd: "0.01", alert_at: [0.5]}]\n'


async def test_a_free_backend_answers_when_the_budget_is_overspent() -> None:
    """A bill above the hold empties the budget: what costs nothing goes on, and the excess is counted."""
    async with FaultUpstream(answer(12_000)) as dear, FaultUpstream(answer(5)) as other:
        backends = cloud(dear, "dear"), cloud(other, "free", price=FREE)
        async with routing(settings(*backends, more=DAY_CENT)) as router:
            assert (await router.chat({"model": "dear", "max_tokens": 1})).status_code == 200
            refused = await router.chat({"model": "dear", "max_tokens": 1})
            assert (refused.status_code, error_of(refused)["code"]) == (402, "budget_exceeded")
            free = await router.chat({"model": "free", "max_tokens": 1})
            assert (free.status_code, free.headers["x-spillway-cost-usd"]) == (200, "0.000000")
            metrics = (await router.client.get("/metrics")).text
            assert 'spillway_charges_above_hold_total{backend="dear"} 1.0' in metrics


async def test_a_user_who_has_spent_a_cap_of_each_user_gets_a_402_and_others_go_on() -> None:
    cap = 'budgets: [{scope: each user, period: day, limit_usd: "0.001"}]\n'
    async with FaultUpstream(answer(900)) as strong, routing(settings(cloud(strong, "strong"), more=cap)) as router:
        replies = [
            await router.chat({"model": "strong/strong-m", "max_tokens": 1, **user})
            for user in ({"user": "ann"}, {"user": "ann"}, {"user": "bob"}, {}, {}, {"safety_identifier": "bob"})
        ]
        assert [reply.status_code for reply in replies] == [200, 402, 200, 200, 402, 402]
        assert "day budget of $0.0010 for user:" in error_of(replies[1])["message"]
        assert "ann" not in str(list(router.ledger.entries_between(0, 2**62)))
        # A body whose cost is not bounded is refused, as under any other cap.
        unbounded = await router.chat({"model": "strong/strong-m", "max_tokens": 1, "user": "eve", "frobnicate": 1})
        assert unbounded.status_code == 400


async def test_a_402_of_the_policy_tells_that_the_budget_is_full() -> None:
    async with FaultUpstream(answer(1)) as strong, routing(settings(cloud(strong), more=DAY_CENT)) as router:
        assert (await router.chat({"max_tokens": 20_000})).status_code == 402
        await router.runtime.accounts.refresh(router.ledger)
        metrics = (await router.client.get("/metrics")).text
        assert 'spillway_budget_alerts_total{at="1",period="day",scope="all"} 1.0' in metrics


async def test_a_request_over_its_own_limit_is_no_full_budget() -> None:
    async with FaultUpstream(answer(1)) as strong, routing(settings(cloud(strong), more=DAY_CENT)) as router:
        assert (await router.chat({"max_tokens": 100}, x_spillway_max_cost_usd="0.00001")).status_code == 402
        await router.runtime.accounts.refresh(router.ledger)
        assert "spillway_budget_alerts_total{" not in (await router.client.get("/metrics")).text


# pacing


@asynccontextmanager
async def paced(folder: Path, rows: list[Entry], pacing: str = "true") -> AsyncIterator[tuple[Router, FaultUpstream]]:
    rule = (
        "confidence: {threshold: 0.8, escalate_to: [cloud]}\n"
        f"budgets: [{{scope: all, period: day, limit_usd: '1', pacing: {pacing}}}]\n"
    )
    engine = FakeEngine(["we", "ak"], DOUBTFUL)
    async with serving(engine) as url, FaultUpstream(answer(1)) as strong:
        async with routing(settings(local(url + "/v1"), cloud(strong), more=rule), folder) as router:
            router.ledger.append(rows)
        async with routing(settings(local(url + "/v1"), cloud(strong), more=rule), folder) as router:
            await router.runtime.services.pacer.refresh()
            yield router, strong


def offers(number: int, tokens: int, confidence: float) -> list[Entry]:
    """Yesterday's doubtful answers."""
    noon = int(time.time() * 1000) // DAY_MS * DAY_MS - DAY_MS // 2
    return [
        Entry(
            kind="charged",
            request_id=f"y{i}",
            attempt_no=1,
            ts=noon + i,
            backend="local",
            local=True,
            status="ok",
            prompt_tokens=tokens,
            confidence=confidence,
        )
        for i in range(number)
    ]


def spent(usd: float) -> Entry:
    """Of today's budget."""
    now = int(time.time() * 1000)
    amount = int(usd * NANO)
    return Entry(kind="charged", request_id="t", attempt_no=1, ts=now, backend="cloud", status="ok", amount_nano=amount)


async def test_an_escalation_that_is_not_worth_its_price_stays_local(tmp_path: Path) -> None:
    """Yesterday brought gain at a millionth of a dollar each, and most of today's money is gone: only such pass."""
    async with paced(tmp_path, [*offers(50, 1, 0.0), spent(0.99)]) as (router, strong):
        reply = await router.chat({"max_tokens": 10})
        assert reply.status_code == 200
        assert reply.headers["x-spillway-decision"] == "local"
        assert reply.headers["x-spillway-reason"] == "confidence,budget"
        assert float(reply.headers["x-spillway-confidence"]) < 0.3
        assert not strong.seen
        assert [row.decision for row in router.rows(reply)] == ["local"]


async def test_it_is_escalated_where_gain_was_dear_yesterday(tmp_path: Path) -> None:
    async with paced(tmp_path, offers(50, 100_000, 0.79)) as (router, strong):
        reply = await router.chat({"max_tokens": 10})
        assert reply.headers["x-spillway-decision"] == "escalated"
        assert len(strong.seen) == 1
        metrics = (await router.client.get("/metrics")).text
        shown = {line.split("{")[0]: float(line.split()[-1]) for line in metrics.splitlines() if "{" in line}
        assert 'spillway_budget_limit_usd{period="day",scope="all"} 1.0' in metrics
        assert shown["spillway_budget_spent_usd"] == 1e-06
        assert shown["spillway_budget_held_usd"] == 0
        # A gain of .21 for a tenth of a dollar, times e^-15 at the most while nothing is spent.
        assert 2.1 * 3e-7 < shown["spillway_pacing_gain_per_usd"] <= 2.11


async def test_without_pacing_the_same_rows_change_nothing(tmp_path: Path) -> None:
    async with paced(tmp_path, [*offers(50, 1, 0.0), spent(0.99)], "false") as (router, _):
        assert not router.runtime.services.pacer.active
        reply = await router.chat({"max_tokens": 10})
        assert reply.headers["x-spillway-decision"] == "escalated"


async def test_a_model_with_a_fee_for_each_request_is_refused_under_a_cap_until_the_fee_is_stated() -> None:
    async with FaultUpstream(answer(1)) as sonar:
        bare = cloud(sonar, "bare").replace("bare-m", "sonar")
        stated = cloud(sonar, "stated", '{input_per_million: "1", output_per_million: "2", per_request: "0.005"}')
        lines = bare, stated.replace("stated-m", "sonar")
        async with routing(settings(*lines, more=DAY_CENT)) as router:
            refused = await router.chat({"model": "bare/sonar", "max_tokens": 1})
            assert (refused.status_code, len(sonar.seen)) == (400, 0)
            assert "backends[bare].price.per_request or .unbounded: hold" in error_of(refused)["message"]
            paid = await router.chat({"model": "stated/sonar", "max_tokens": 1})
            assert (paid.status_code, paid.headers["x-spillway-cost-usd"]) == (200, "0.005001")
        async with routing(settings(*lines)) as router:  # without a cap it is sent
            assert (await router.chat({"model": "bare/sonar", "max_tokens": 1})).status_code == 200
