"""`spillway report experiments`: what the arms did, on a ledger that a router wrote, and the verdict in words."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.proxy.answers import WEAK
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.tables.feedback import FeedbackRecord
from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import cloud, local, routing, settings

RUNNER = CliRunner()
EXPERIMENT = """
aliases: {auto: {chain: [local]}}
experiments: [{name: dearer, by: user, arms: [{name: b, share: 0.5, chain: [cloud]}]}]
"""
DAY_MS = 86_400_000


def spillway(*arguments: str, code: int = 0) -> str:
    """Run the command; return what it printed, or the errors of one that fails."""
    result = RUNNER.invoke(app, ["report", "experiments", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def as_json(*arguments: str) -> dict[str, Any]:
    """The arms of the only experiment by name."""
    (report,) = json.loads(spillway(*arguments, "--json"))["experiments"]
    return {arm["name"]: arm for arm in report["arms"]}


def feedback(request_id: str, ts: int, rating: int) -> FeedbackRecord:
    """A rating of an answer."""
    return FeedbackRecord(request_id=request_id, ts=ts, key_id="", backend="cloud", model="m", rating=rating)


def written(folder: Path, *, cheaper: float, users: int) -> Path:
    """A ledger in which an arm costs that share less, and is rated as the control is; return its configuration."""
    path = folder / "spillway.yaml"
    path.write_text(f"ledger: {{url: 'sqlite:///{folder / 'ledger.db'}'}}\n{settings(local('http://127.0.0.1:9/v1'))}")
    rng, now_ms = Random(20261130), time.time_ns() // 1_000_000
    ledger = open_ledger(f"sqlite:///{folder / 'ledger.db'}")
    rows = []
    for number in range(users):
        arm = ("b", "control")[number % 2]
        cost_nano = rng.lognormvariate(10, 0.3) * ((1 - cheaper) if arm == "b" else 1)
        mark, request_id = f"test/{arm}/{number:08x}", f"r{number}"
        rows.append(
            Entry(
                kind="charged",
                request_id=request_id,
                attempt_no=1,
                ts=now_ms - 7 * DAY_MS + number,
                backend="cloud",
                decision="routed",
                status="ok",
                amount_nano=int(cost_nano),
                experiment=mark,
                took_ms=rng.randint(900, 1100),
            )
        )
        ledger.feedback.put(feedback(request_id, now_ms, rng.choice((4, 5))))
    ledger.append(rows)
    ledger.close()
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration of a router that answered forty users, ten of whom asked twice."""

    async def ask() -> Path:
        async with (
            FaultUpstream(WEAK) as engine,
            FaultUpstream(WEAK) as other,
            routing(settings(local(engine), cloud(other), more=EXPERIMENT), tmp_path) as router,
        ):
            for number in [*range(40), *range(10)]:
                reply = await router.chat({"user": f"user-{number}"})
                rated = {"request_id": reply.headers["x-request-id"], "rating": 4}
                assert (await router.post(rated, "/v1/feedback")).status_code == 200
            return router.path

    return asyncio.run(ask())


def test_the_arms_of_a_router(config: Path) -> None:
    arms = as_json("--config", str(config))
    assert list(arms) == ["control", "b"]
    assert sum(arm["units"] for arm in arms.values()) == 40
    assert sum(arm["requests"] for arm in arms.values()) == 50
    assert arms["control"]["cost_per_request_nano"] == 0 < arms["b"]["cost_per_request_nano"]
    assert [arm["rating"] for arm in arms.values()] == [4, 4]
    assert arms["control"]["verdict"] == ""
    assert arms["b"]["verdict"].startswith("Not enough requests yet: b and control need 50 units each and have ")
    shown = spillway("--config", str(config), "--name", "dearer")
    assert "Experiment dearer" in shown
    assert "Not enough requests yet" in shown


def test_the_verdict_in_words(tmp_path: Path) -> None:
    arms = as_json("--config", str(written(tmp_path, cheaper=0.2, users=2_000)))
    verdict = arms["b"]["verdict"]
    assert verdict.startswith("b costs 2"), verdict
    assert "% less (1" in verdict
    assert "takes about as long" in verdict
    assert "and is rated as well (" in verdict
    assert verdict.endswith("n = 1,000 requests against 1,000 of control.")
    cost = arms["b"]["against"]["cost"]
    assert cost["low"] < -0.2 < cost["high"] < 0


def test_an_undecided_cost_says_for_how_long(tmp_path: Path) -> None:
    verdict = as_json("--config", str(written(tmp_path, cheaper=0.0, users=300)))["b"]["verdict"]
    assert "shows no difference in cost yet (-" in verdict
    assert "at this rate the cost is decided after about " in verdict


def test_no_request_of_an_experiment_is_an_error_that_says_so(config: Path) -> None:
    assert "no request of the experiment 'other' since 4w" in spillway(
        "--config", str(config), "--name", "other", code=1
    )


def test_a_bandit_gives_the_traffic_to_what_is_rated_as_well_for_less(tmp_path: Path) -> None:
    config = str(written(tmp_path, cheaper=0.2, users=1_000))
    shares = json.loads(spillway("--config", config, "--bandit", "rating", "--json"))["bandit"]
    assert shares == {"test": {"b": 1.0, "control": 0.0}}
    shown = " ".join(spillway("--config", config, "--bandit", "rating").split())
    assert "By rating per dollar, Thompson sampling would give these shares: b 100%, control 0%." in shown
    assert "Thompson" not in spillway("--config", config)


def test_a_bandit_says_what_it_lacks(config: Path) -> None:
    shown = " ".join(spillway("--config", str(config), "--bandit", "agreement").split())
    assert "A bandit says nothing yet: it needs two arms with a cost and 50 units with agreements each" in shown


def test_the_same_seed_draws_the_same_shares(tmp_path: Path) -> None:
    config = str(written(tmp_path, cheaper=0.0, users=400))
    first, again, other = (
        json.loads(spillway("--config", config, "--bandit", "rating", "--seed", seed, "--json"))["bandit"]["test"]
        for seed in ("1", "1", "2")
    )
    assert first == again != other
    assert 0 < first["b"] < 1
