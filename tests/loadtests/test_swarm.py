"""Load tests: plans are the same each time, figures count what they say, and a broken product makes a run red."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from loadtests.fake_engine import answers
from loadtests.standin.corpus import digest
from loadtests.swarm import plan, report, samples, scenarios, session, shapes
from loadtests.swarm.samples import Promise, Sample
from loadtests.swarm.scenarios import SCENARIOS, Scale
from loadtests.swarm.session import LOCUST, Settings, judge
from tests.evidence.measures_loadtest import RUNS_GREEN, runs_green

SIZE = Scale(seconds=30.0, capacity=3.0)
GOOD = Sample("chat", 1.0, 0.0, 0.5, 2.0, 0.02, 0.02, 76, 300, 200, "", "local", "local", "", 0.0, stream=True)
PROMISE = Promise(2.0, 0.1)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [(shapes.steady(4, 100), 400), (shapes.ramp(0, 8, 100), 400), (shapes.burst(2, 8, 90), 360)],
)
def test_arrivals_come_at_the_shapes_rate(shape: shapes.Shape, expected: int) -> None:
    moments = list(shapes.arrivals(shape, seed=3))
    assert moments == sorted(moments)
    assert moments[-1] < shape.seconds
    assert abs(len(moments) - expected) < 4 * math.sqrt(expected)
    assert moments == list(shapes.arrivals(shape, seed=3))


def test_a_burst_is_in_the_middle() -> None:
    moments = list(shapes.arrivals(shapes.burst(1, 9, 90), seed=5))
    thirds = [sum(a <= m < a + 30 for m in moments) for a in (0, 30, 60)]
    assert thirds[1] > 4 * max(thirds[0], thirds[2])


def test_a_shape_without_load_is_refused() -> None:
    with pytest.raises(ValueError, match="no load"):
        next(shapes.arrivals(shapes.steady(0, 10), seed=1))


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_has_a_plan_that_is_the_same_each_time(name: str) -> None:
    made = SCENARIOS[name].make(SIZE)
    assert made.asks
    assert [a.at_s for a in made.asks] == sorted(a.at_s for a in made.asks)
    assert made == SCENARIOS[name].make(SIZE)


def test_the_trace_replays_at_its_own_moments_and_lengths() -> None:
    slow, fast = plan.by_trace("conv", 1.0, 30, 1, 0), plan.by_trace("conv", 2.0, 15, 1, 0)
    assert [a.at_s for a in fast.asks] == pytest.approx([a.at_s / 2 for a in slow.asks])
    first = next(plan.lengths(slow))
    assert first[1:] == (374, 44)  # the first row of the trace
    body = slow.asks[0].body
    assert answers.count(body["messages"][0]["content"]) == 374
    assert answers.answer({digest(t): a for t, a in slow.answers}, slow.answers[0][0], None).finish == "stop"


def test_mixed_keys_are_all_used_and_their_secrets_go_into_headers(tmp_path: Path) -> None:
    made = SCENARIOS["mixed"].make(SIZE)
    assert {ask.key for ask in made.asks} == set(scenarios.KEYS)
    assert {ask.name for ask in made.asks} == {"chat", "document", "embedding"}
    plan.write(tmp_path / "plan", made, "auto", {key: f"secret-{key}" for key in scenarios.KEYS})
    rows = [json.loads(line) for line in (tmp_path / "plan").read_text().splitlines()[1:]]
    assert all(row["headers"]["authorization"] == f"Bearer secret-{row['key']}" for row in rows)
    assert all(row["body"]["model"] == "auto" for row in rows)
    assert (tmp_path / "plan").stat().st_mode & 0o077 == 0


def test_capacity_is_where_the_engine_alone_just_keeps_the_promise() -> None:
    held = scenarios.capacity(PROMISE, 2.0)
    assert 1.0 < held < 5.5  # the trace's own 5.5/s were too much for an engine twice as fast
    assert scenarios.capacity(PROMISE, 1.0) > held


def test_figures_count_failures_costs_and_the_promise() -> None:
    cloud = replace(GOOD, backend="cloud", decision="overflow", reason="queue", cost_usd=0.002, ttft_s=3.0)
    failed = replace(GOOD, fault="503 busy", status=503, due_s=9.0)
    found = samples.figures([GOOD, cloud, failed], PROMISE, 3.6)
    assert (found.requests, found.failed, found.cloud_share) == (3, 1, 0.5)
    assert found.slo_share == pytest.approx(1 / 3, abs=1e-4)
    assert found.seconds == 11.0
    assert found.usd_per_1000 == pytest.approx(1000 * (0.002 + 0.011) / 3)
    assert found.reasons == {"queue": 1}
    assert found.faults == {"503 busy": 1}


@pytest.mark.parametrize(
    ("done_s", "kept"), [(2.9, True), (3.2, False)], ids=["in the time of a stream", "later than a stream"]
)
def test_a_whole_answer_has_as_long_as_a_stream_at_the_promised_pace(done_s: float, kept: bool) -> None:
    whole = replace(GOOD, stream=False, ttft_s=done_s, done_s=done_s, output_tokens=11, tpot_s=0.0)
    assert PROMISE.kept(whole) is kept


def test_a_run_is_red_for_each_thing_that_can_go_wrong() -> None:
    made = plan.by_shape(shapes.steady(1, 3), plan.Chats(1), 1)
    good = [replace(GOOD, due_s=ask.at_s) for ask in made.asks]

    def verdict(found: list[Sample], status: int = 0) -> str:
        return "; ".join(judge(made, found, samples.figures(found, PROMISE, 0), status, "open"))

    assert verdict(good) == ""
    assert "status 1" in verdict(good, 1)
    assert "nothing was sent" in verdict([])
    assert "have a result" in verdict(good[1:])
    assert "1 requests failed: cut" in verdict([replace(good[0], fault="cut"), *good[1:]])
    assert "without usage" in verdict([replace(good[0], output_tokens=0), *good[1:]])
    assert "too slow or too busy" in verdict([replace(s, lag_s=1.5) for s in good])


def test_samples_survive_their_file(tmp_path: Path) -> None:
    samples.write(tmp_path / "s", [GOOD, GOOD])
    assert samples.read(tmp_path / "s") == [GOOD, GOOD]


def test_the_report_shows_runs_policies_and_what_is_wrong() -> None:
    figures = samples.figures([GOOD], PROMISE, 1.39)
    found = session.Session(3.0, Settings())
    found.runs.append(session.Run("steady", "about <it>", 1, figures, (GOOD,), ("1 requests failed: <x>",)))
    found.points += [session.Point("Spillway (auto)", m, figures) for m in (1.0, 2.0)]
    found.points += session.simulated(1.0, SCENARIOS["steady"].make(SIZE), PROMISE)
    found.points += session.simulated(2.0, SCENARIOS["steady"].make(SIZE), PROMISE)
    page = report.render(found, {"cpu": "some & cpu"}, {"spillway": "0"}, "2026-01-01")
    assert "about &lt;it&gt;" in page
    assert "failed: &lt;x&gt;" in page
    assert "some &amp; cpu" in page
    assert page.count("<svg") == 9
    for drawn in ("Time to first token", "Time per output token", "ITL", "Overflow", "Cost", "SLO attainment"):
        assert drawn in page
    assert "NVML" in page
    assert "http" not in page  # nothing is fetched from elsewhere


needs_locust = pytest.mark.skipif(not LOCUST.exists(), reason="locust is not installed: `make loadtest` installs it")


@needs_locust
def test_locust_finds_a_sound_product_green_and_a_broken_engine_red() -> None:
    """The seeded fault: every third stream of the engine breaks off."""
    sound = runs_green(lambda _line: None, ["mixed"], seconds=4)[RUNS_GREEN]
    assert (sound.value, sound.details["scenarios"]["mixed"]["wrong"]) == (1.0, [])
    broken = runs_green(lambda _line: None, ["mixed"], seconds=4, engine=("--cut-every", "3"))[RUNS_GREEN]
    assert broken.value == 0.0
    assert "failed: broken off: upstream_interrupted" in str(broken.details["scenarios"]["mixed"]["wrong"])


@needs_locust
def test_users_that_wait_for_their_answers_find_the_product_green_too() -> None:
    found = session.run(Settings(("steady",), 6.0, loop="closed", sweep=False), lambda _line: None)
    (run,) = found.runs
    assert run.wrong == ()
    assert run.figures.requests > 0
