"""Shares that move by themselves, on routers over real sockets: by the ratings that clients gave."""

from __future__ import annotations

from pathlib import Path

import pytest

from spillway_router.ledger.tables.experiments import ShareMove
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, routing, settings

WHOLE = Answer.json(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "beta"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
)
MORE = """
aliases: {auto: {chain: [first]}}
experiments:
  - {name: e, by: user, bandit: rating, arms: [{name: b, share: 0.5, chain: [second, first]}]}
"""
USERS = [f"user-{number}" for number in range(140)]


def asks(user: str) -> dict[str, object]:
    return {"model": "auto", "messages": [{"role": "user", "content": "Which eye?"}], "user": user}


async def rate(router: Router, *, second: int, first: int) -> dict[str, str]:
    """Let every user ask and rate the answer; return who answered each."""
    answered = {}
    for user in USERS:
        reply = await router.chat(asks(user))
        answered[user] = reply.headers["x-spillway-backend"]
        rating = second if answered[user] == "second" else first
        rated = {"request_id": reply.headers["x-request-id"], "rating": rating}
        assert (await router.post(rated, "/v1/feedback")).status_code == 200
    return answered


async def explained(router: Router, user: str = "user-0", **headers: str) -> dict[str, object]:
    return dict((await router.post(asks(user), "/v1/route/explain", **headers)).json())


async def arms_now(router: Router) -> dict[str, str]:
    """The arm of each user."""
    return {user: str((await explained(router, user))["facts"]["experiment"]) for user in USERS}  # type: ignore[index]


def moves(router: Router) -> tuple[ShareMove, ...]:
    return router.ledger.experiments.moves(0, 2**62)


async def test_ratings_move_the_shares_of_every_router_and_most_users_stay_where_they_are(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as first, FaultUpstream(WHOLE) as second:
        text = settings(cloud(first, "first"), cloud(second, "second"), more=MORE)
        async with routing(text, tmp_path) as router:
            assert (await explained(router))["shares"] == {"b": 0.5, "control": 0.5}
            await rate(router, second=5, first=2)
            before = await arms_now(router)
            await router.runtime.share_mover.check()
            moved = {"b": 0.6, "control": 0.4}
            assert (await explained(router))["shares"] == moved
            after = await arms_now(router)
            changed = {user for user in USERS if before[user] != after[user]}
            assert 3 <= len(changed) <= 28
            assert {before[user] for user in changed} == {"e/control"}
            assert (await router.chat(asks(min(changed)))).headers["x-spillway-backend"] == "second"

            (move,) = moves(router)
            assert move.reasons["because"] == ["thompson", "floor:control", "pace"]
            assert (move.reasons["before"], move.reasons["after"]) == ({"b": 0.5, "control": 0.5}, moved)
            assert move.reasons["arms"]["b"]["value"] == 5
            acts = [one.act for one in router.ledger.acts.all() if one.act.kind == "experiment.move"]
            assert [act.subject for act in acts] == ["e"]

            metrics = (await router.client.get("/metrics")).text
            assert 'spillway_arm_share{arm="e/b"} 0.6' in metrics
            assert 'spillway_share_moves_total{experiment="e"} 1.0' in metrics
            page = (await router.client.get("/experiments.json")).json()["experiments"][0]
            assert {row[0]: row[-1] for row in page["rows"]} == {"b": "60.0%", "control": "40.0%"}
            assert "A bandit moved the shares once, the last time at " in page["moves"]
            assert "to b 60.0%, control 40.0% (ratings per dollar)" in page["moves"]

            await router.runtime.share_mover.check()
            assert len(moves(router)) == 1, "once per interval"
            router.path.write_text(router.path.read_text() + "report: {timezone: Europe/Berlin}\n")
            assert (await router.reload()).status_code == 200
            assert await arms_now(router) == after
            async with routing(text, tmp_path) as another:
                assert await arms_now(another) == after
        async with routing(text.replace("share: 0.5", "share: 0.3"), tmp_path) as other_setup:
            assert (await explained(other_setup))["shares"] == {"b": 0.3, "control": 0.7}


async def test_a_router_takes_the_move_that_another_has_stored(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as first, FaultUpstream(WHOLE) as second:
        text = settings(cloud(first, "first"), cloud(second, "second"), more=MORE)
        async with routing(text, tmp_path) as router, routing(text, tmp_path) as another:
            await rate(router, second=2, first=5)
            await router.runtime.share_mover.check()
            assert (await explained(another))["shares"] == {"b": 0.5, "control": 0.5}
            await another.runtime.share_mover.check()
            assert (await explained(another))["shares"] == {"b": 0.4, "control": 0.6}
            assert await arms_now(another) == await arms_now(router)
            assert len(moves(another)) == 1


@pytest.mark.parametrize("rule", ["", "policy: {rules: [{name: never, forbid: second}]}\n"])
async def test_moved_shares_bring_back_nothing_that_is_forbidden(rule: str) -> None:
    async with (
        FaultUpstream(WHOLE) as first,
        FaultUpstream(WHOLE) as second,
        routing(settings(cloud(first, "first"), cloud(second, "second"), more=MORE + rule)) as router,
    ):
        rated = await rate(router, second=5, first=2)
        await router.runtime.share_mover.check()
        if rule:
            assert set(rated.values()) == {"first"}
            assert not second.seen
        seen = len(first.seen), len(second.seen)
        for user in USERS[:20]:
            assert (await router.chat(asks(user), **{"x-spillway-privacy": "local-only"})).status_code == 503
        assert (len(first.seen), len(second.seen)) == seen


async def test_too_few_ratings_move_nothing() -> None:
    async with (
        FaultUpstream(WHOLE) as first,
        FaultUpstream(WHOLE) as second,
        routing(settings(cloud(first, "first"), cloud(second, "second"), more=MORE)) as router,
    ):
        await router.chat(asks("user-0"))
        await router.runtime.share_mover.check()
        assert (await explained(router))["shares"] == {"b": 0.5, "control": 0.5}
        assert not moves(router)
