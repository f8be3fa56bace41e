"""Credits through whole routers: who has how many requests and better answers, on all of them together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.proxy.answers import KEPT, answer, said
from tests.proxy.control.helpers import WHOLE, bearer
from tests.proxy.helpers import asking

from spillway_router.ledger.records import Role
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import MESSAGES, Router, cloud, error_of, local, pair, routing, settings

KEYS: tuple[tuple[Role, str], ...] = (("inference", "one"), ("inference", "other"), ("viewer", "viewer"))
EACH_USER = "credits: [{scope: each user, period: month, requests: 3}]\n"
FAILED = Answer.json({"error": {"message": "no"}}, 500)
HANGING = Answer(silent=True, end="hang")


async def statuses(router: Router, times: int, key: dict[str, str], user: str = "ann") -> list[int]:
    replies = await asyncio.gather(*(router.chat({"user": user}, **key) for _ in range(times)))
    return sorted(reply.status_code for reply in replies)


def used(router: Router) -> list[int]:
    return sorted(row.used for row in router.ledger.credits.used(0, 2**42, 99))


async def test_each_user_has_so_many_requests_and_a_402_says_when_there_are_more() -> None:
    async with pair(WHOLE, WHOLE, more=EACH_USER) as (_, _, router):
        key, other, viewer = (bearer(router, role, name) for role, name in KEYS)
        assert await statuses(router, 5, key) == [200] * 3 + [402] * 2
        assert await statuses(router, 3, key, "bob") == [200] * 3
        assert await statuses(router, 3, other) == [200] * 3  # another key's ann is somebody else
        refused = await router.chat({"user": "ann"}, **key)
        assert error_of(refused)["code"] == "budget_exceeded"
        assert error_of(refused)["message"].startswith(
            "This user has used its 3 requests per month. There are new ones"
        )
        assert refused.headers["x-should-retry"] == "false"
        usage = (await router.client.get("/v1/usage", headers=viewer)).json()["credits"]
        assert sorted((row["used"], row["limit"], row["counted"]) for row in usage) == [(3, 3, "requests")] * 3
        assert "ann" not in str(router.ledger.credits.used(0, 2**42, 99))


async def test_two_routers_share_the_credits_of_a_ledger(tmp_path: Path) -> None:
    more = "credits: [{scope: each key, period: day, requests: 20}]\n"
    async with (
        FaultUpstream(WHOLE) as engine,
        routing(settings(local(engine), more=more), tmp_path) as one,
        routing(settings(local(engine), more=more), tmp_path) as two,
    ):
        key = bearer(one, "inference")
        await two.until(lambda: two.runtime.services.config().auth.verify(key["authorization"][7:], 2e9) is not None)
        first, second = await asyncio.gather(statuses(one, 20, key), statuses(two, 20, key))
        assert sorted(first + second) == [200] * 20 + [402] * 20
        assert len(engine.seen) == 20


@pytest.mark.parametrize(
    ("fields", "upstream"), [({}, FAILED), ({"model": "none"}, WHOLE), ({"max_tokens": "many"}, WHOLE)]
)
async def test_a_request_that_nobody_answered_costs_no_credit(fields: dict[str, Any], upstream: Answer) -> None:
    async with pair(upstream, upstream, more=EACH_USER) as (_, _, router):
        for _ in range(5):
            assert (await router.chat(fields)).status_code not in (200, 402)
            await router.until(lambda: used(router) == [])


async def test_whoever_leaves_a_backend_that_works_gets_no_credit_back() -> None:
    async with pair(HANGING, WHOLE, more=EACH_USER) as (engine, _, router):
        async with asking(router, {}):
            arrived = await engine.arrival()
        await asyncio.wait_for(arrived.closed.wait(), 10)
        await router.until(lambda: len(router.runtime.services.records.recent(1)) == 1)
        assert used(router) == [1]


async def test_a_key_sets_the_credits_of_its_own_users() -> None:
    async with pair(WHOLE, WHOLE, more=EACH_USER) as (_, _, router):
        own = bearer(router, "inference", user_credits="1/month")
        both = bearer(router, "inference", user_credits="5/day")
        assert await statuses(router, 3, own) == [200, 402, 402]
        assert await statuses(router, 5, both) == [200] * 3 + [402] * 2  # another period, so both bind


async def test_a_key_caps_the_spend_of_each_of_its_users(tmp_path: Path) -> None:
    async with (
        FaultUpstream(answer("paid")) as paid,
        routing(settings(cloud(paid)), tmp_path) as router,
    ):
        key = bearer(router, "inference", user_budget="0.001/day", may_route=True)
        free = bearer(router, "inference", may_route=True)
        body = {"user": "ann", "max_tokens": 400}
        replies = [await router.chat(body, **key) for _ in range(2)]
        assert [reply.status_code for reply in replies] == [200, 200]
        large = {"user": "ann", "max_tokens": 600}
        refused = await router.chat(large, **key)
        assert (refused.status_code, error_of(refused)["code"]) == (402, "budget_exceeded")
        assert (await router.chat(large, **free)).status_code == 200
        scopes = {scope for scope, _, _ in router.ledger.balances() if scope.startswith("user:")}
        assert len(scopes) == 1


async def press(router: Router, first: httpx.Response, key: dict[str, str]) -> int:
    better = {"x_spillway_better_than": first.headers["x-request-id"]}
    return (await router.chat({"user": "ann"}, **better, **key)).status_code


async def test_better_answers_are_limited_by_both_ways_to_ask_for_one() -> None:
    more = KEPT + "credits: [{scope: each user, period: day, better: 2}]\n"
    async with pair(answer("weak"), answer("strong"), more=more) as (_, other, router):
        key = bearer(router, "inference")
        first = await router.chat({"user": "ann"}, **key)
        assert [await press(router, first, key) for _ in range(3)] == [200, 200, 402]
        body = {"request_id": first.headers["x-request-id"], "rating": 1, "retry": True}
        again = await router.post(body, "/v1/feedback", **key)
        assert (again.status_code, error_of(again)["code"]) == (402, "budget_exceeded")
        assert "2 better answers per day" in error_of(again)["message"]
        assert len(other.seen) == 2
        assert (await router.chat({"user": "ann"}, **key)).status_code == 200


async def test_documents_count_too() -> None:
    async with pair(WHOLE, WHOLE, more=EACH_USER) as (_, _, router):
        body = {"text": "Patient ID: K402211"}
        statuses = [(await router.post(body, "/v1/documents/extract")).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 402]
        assert (await router.chat({"messages": MESSAGES})).status_code == 402


async def test_the_answer_tells_that_a_better_tier_may_have_the_request_and_the_report_who_asked() -> None:
    async with pair(answer("weak"), answer("strong"), more=KEPT) as (_, _, router):
        gold = bearer(router, "inference", tier="gold")
        only_local = bearer(router, "inference", "only local", backends=("local",))
        viewer = bearer(router, "viewer")
        first = await router.chat({"user": "ann"}, **gold)
        assert first.headers["x-spillway-better"] == "available"
        better = await router.chat({"user": "ann"}, x_spillway_better_than=first.headers["x-request-id"], **gold)
        assert said(better) == "strong"
        assert "x-spillway-better" not in better.headers  # nothing is above it
        for fields, headers in (
            ({}, {"x_spillway_privacy": "local-only", **gold}),
            ({}, only_local),
            ({"model": "none"}, gold),
        ):
            assert "x-spillway-better" not in (await router.chat(fields, **headers)).headers
        for rated, stars in ((first, 2), (better, 5)):
            body = {"request_id": rated.headers["x-request-id"], "rating": stars}
            assert (await router.post(body, "/v1/feedback", **gold)).status_code == 200
        (row,) = (await router.client.get("/v1/usage", headers=viewer)).json()["pressed"]
        assert (row["tier"], row["asked"], row["compared"], row["mean_gain"]) == ("gold", 1, 1, 3.0)
        assert len(row["user_id"]) == 32


async def test_without_tiers_no_answer_tells_of_a_better_one() -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        assert "x-spillway-better" not in (await router.chat()).headers
