"""Experiments on requests over real sockets: who is in which arm, what is kept of it, and what an arm can't do."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from scipy.stats import binomtest

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, local, routing, settings

WHOLE = Answer.json(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "beta"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
)
ALIAS = "aliases: {auto: {chain: [local]}}\n"
THIRD = "experiments: [{name: dearer, by: user, arms: [{name: b, share: 0.3, chain: [cloud, local]}]}]\n"
ALL = THIRD.replace("0.3", "1")
USERS = [f"user-{number}" for number in range(60)]


def asks(user: str = "", model: str = "auto") -> dict[str, object]:
    named = {"user": user} if user else {}
    return {"model": model, "messages": [{"role": "user", "content": "Which eye?"}], **named}


async def backends(router: Router) -> list[str]:
    """Who answers each of the users."""
    return [(await router.chat(asks(user))).headers["x-spillway-backend"] for user in USERS]


async def test_users_stay_in_their_arm_over_reloads_restarts_and_routers(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, FaultUpstream(WHOLE) as other:
        text = settings(local(engine), cloud(other), more=ALIAS + THIRD)
        async with routing(text, tmp_path) as router:
            first = await backends(router)
            router.path.write_text(router.path.read_text() + "report: {timezone: Europe/Berlin}\n")
            assert (await router.reload()).status_code == 200
            assert await backends(router) == first
        async with routing(text) as another:
            assert await backends(another) == first
    assert binomtest(first.count("cloud"), len(first), 0.3).pvalue > 0.001


async def test_the_arm_stands_in_the_answer_the_record_and_the_ledger(tmp_path: Path) -> None:
    async with (
        FaultUpstream(WHOLE) as engine,
        FaultUpstream(WHOLE) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + THIRD), tmp_path) as router,
    ):
        replies = {user: await router.chat(asks(user)) for user in USERS}
        by_backend = {reply.headers["x-spillway-backend"]: reply for reply in replies.values()}
        for backend, arm, reason in (("cloud", "b", "experiment"), ("local", "control", "")):
            reply = by_backend[backend]
            assert reply.headers.get("x-spillway-reason", "") == reason
            record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
            assert record["facts"]["experiment"] == f"dearer/{arm}"
            assert record["route"]["rules"] == [f"dearer/{arm}"]
            rows = router.ledger.entries_of(reply.headers["x-request-id"])
            assert {row.experiment[:-9] for row in rows} == {f"dearer/{arm}"}
            assert rows[-1].took_ms >= 0
        user = next(user for user, reply in replies.items() if reply is by_backend["cloud"])
        explained = (await router.post(asks(user), "/v1/route/explain")).json()
        assert (explained["facts"]["experiment"], explained["reasons"]) == ("dearer/b", ["experiment"])


@pytest.mark.parametrize(
    ("asked", "headers", "experiment"),
    [
        (asks(), {"x-spillway-privacy": "local-only"}, True),
        (asks(model="local"), {}, False),
        (asks(), {"x-spillway-route": "local"}, False),
    ],
)
async def test_private_and_pinned_requests_never_reach_the_cloud_of_an_arm(
    asked: dict[str, object], headers: dict[str, str], experiment: bool
) -> None:
    async with (
        FaultUpstream(WHOLE) as engine,
        FaultUpstream(WHOLE) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + ALL)) as router,
    ):
        reply = await router.chat(asked, **headers)
        assert (reply.status_code, reply.headers["x-spillway-backend"]) == (200, "local")
        assert [bool(row.experiment) for row in router.rows(reply)] == [experiment]
        assert not other.seen


async def test_a_budget_holds_for_an_arm() -> None:
    budget = "budgets: [{scope: all, period: day, limit_usd: '0.000001'}]\n"
    async with (
        FaultUpstream(WHOLE) as engine,
        FaultUpstream(WHOLE) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + ALL + budget)) as router,
    ):
        reply = await router.chat(asks())
        assert reply.headers["x-spillway-backend"] == "local"
        assert not other.seen


async def test_weights_of_an_alias_split_its_requests() -> None:
    split = (
        "experiments: [{name: split, by: request, when: {alias: auto}, arms: [{name: most, share: 0.8, chain: [local]},"
        " {name: few, share: 0.2, chain: [cloud]}]}]\n"
    )
    async with AsyncExitStack() as stack:
        engine, other = [await stack.enter_async_context(FaultUpstream(WHOLE)) for _ in range(2)]
        router = await stack.enter_async_context(routing(settings(local(engine), cloud(other), more=split)))
        replies: list[httpx.Response] = [await router.chat(asks("the same user")) for _ in range(200)]
    few = sum(reply.headers["x-spillway-backend"] == "cloud" for reply in replies)
    assert binomtest(few, len(replies), 0.2).pvalue > 1e-6
