"""Load tests: plans are the same each time, figures count what their names say, and a broken
product makes a run red.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from demo.processes import ChildError
from evidence.measures_loadtest import RUNS_GREEN, runs_green
from loadtests.fake_cloud.corpus import digest
from loadtests.fake_engine import answers
from loadtests.locust_runs import plan, report, samples, scenarios, session, shapes
from loadtests.locust_runs.samples import LatencyPromise, Sample
from loadtests.locust_runs.scenarios import SCENARIOS, RunSize
from loadtests.locust_runs.session import LOCUST, SessionSettings, judge
from loadtests.scaleout.sites import ROOT

SIZE = RunSize(seconds=30.0, capacity=3.0)
GOOD = Sample(
    name="chat",
    due_s=1.0,
    lag_s=0.0,
    ttft_s=0.5,
    done_s=2.0,
    itl_s=0.02,
    tpot_s=0.02,
    output_tokens=76,
    prompt_tokens=300,
    status=200,
    fault="",
    backend="local",
    decision="local",
    reason="",
    cost_usd=0.0,
    stream=True,
)
PROMISE = LatencyPromise(2.0, 0.1)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [(shapes.steady(4, 100), 400), (shapes.ramp(0, 8, 100), 400), (shapes.burst(2, 8, 90), 360)],
)
def test_arrivals_come_at_the_shapes_rate(shape: shapes.LoadShape, expected: int) -> None:
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
    plan_ = SCENARIOS[name].make(SIZE)
    assert plan_.asks
    assert [a.at_s for a in plan_.asks] == sorted(a.at_s for a in plan_.asks)
    assert plan_ == SCENARIOS[name].make(SIZE)


def test_the_trace_replays_at_its_own_moments_and_lengths() -> None:
    slow, fast = (
        plan.by_trace(name="conv", speed=1.0, seconds=30, seed=1, begin_s=0),
        plan.by_trace(name="conv", speed=2.0, seconds=15, seed=1, begin_s=0),
    )
    assert [a.at_s for a in fast.asks] == pytest.approx([a.at_s / 2 for a in slow.asks])
    first = next(plan.lengths(slow))
    assert first[1:] == (374, 44)  # the first row of the trace
    body = slow.asks[0].body
    assert answers.count_tokens(body["messages"][0]["content"]) == 374
    assert answers.answer({digest(t): a for t, a in slow.answers}, slow.answers[0][0], None).finish == "stop"


def test_extractions_come_without_usage_so_the_plan_knows_how_long_their_answers_are() -> None:
    """Without it, each of them would have to be complete by the time a stream's first token is due."""
    asks = SCENARIOS["documents"].make(replace(SIZE, extract=True)).asks
    tokens = {name: {ask.answer_tokens for ask in asks if ask.name == name} for name in ("document", "extract")}
    assert tokens["document"] == {0}
    assert min(tokens["extract"]) > 5


def test_mixed_keys_are_all_used_and_their_secrets_go_into_headers(tmp_path: Path) -> None:
    plan_ = SCENARIOS["mixed"].make(SIZE)
    assert {ask.key for ask in plan_.asks} == set(scenarios.KEYS)
    assert {ask.name for ask in plan_.asks} == {"chat", "document", "embedding"}
    plan.write(tmp_path / "plan", plan_, "auto", {key: f"secret-{key}" for key in scenarios.KEYS})
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
    figures = samples.figures([GOOD, cloud, failed], PROMISE, 3.6)
    assert (figures.requests, figures.failed, figures.cloud_share) == (3, 1, 0.5)
    assert figures.slo_share == pytest.approx(1 / 3, abs=1e-4)
    assert figures.seconds == 11.0
    assert figures.usd_per_1000 == pytest.approx(1000 * (0.002 + 0.011) / 3)
    assert figures.reasons == {"queue": 1}
    assert figures.faults == {"503 busy": 1}


@pytest.mark.parametrize(
    ("done_s", "kept"), [(2.9, True), (3.2, False)], ids=["in the time of a stream", "later than a stream"]
)
def test_a_whole_answer_has_as_long_as_a_stream_at_the_promised_pace(done_s: float, kept: bool) -> None:
    whole = replace(GOOD, stream=False, ttft_s=done_s, done_s=done_s, output_tokens=11, tpot_s=0.0)
    assert PROMISE.kept(whole) is kept


def test_a_run_is_red_for_each_thing_that_can_go_wrong() -> None:
    plan_ = plan.by_shape(shapes.steady(1, 3), plan.Chats(1), 1)
    good = [replace(GOOD, due_s=ask.at_s) for ask in plan_.asks]

    def verdict(results: list[Sample], status: int = 0) -> str:
        return "; ".join(judge(plan_, results, samples.figures(results, PROMISE, 0), status, "open"))

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
    finished = session.Session(3.0, SessionSettings())
    finished.runs.append(
        session.ScenarioRun(
            name="steady",
            about="about <it>",
            planned=1,
            figures=figures,
            samples=(GOOD,),
            wrong=("1 requests failed: <x>",),
        )
    )
    finished.points += [session.SweepPoint("Spillway (auto)", m, figures) for m in (1.0, 2.0)]
    finished.points += session.simulated(1.0, SCENARIOS["steady"].make(SIZE), PROMISE)
    finished.points += session.simulated(2.0, SCENARIOS["steady"].make(SIZE), PROMISE)
    page = report.render(finished, {"cpu": "some & cpu"}, {"spillway": "0"}, "2026-01-01")
    assert "about &lt;it&gt;" in page
    assert "failed: &lt;x&gt;" in page
    assert "some &amp; cpu" in page
    assert page.count("<svg") == 9
    for drawn in ("Time to first token", "Time per output token", "ITL", "Overflow", "Cost", "SLO attainment"):
        assert drawn in page
    assert "NVML" in page
    assert "http" not in page  # nothing is fetched from elsewhere


def test_a_report_says_what_has_no_result_and_why() -> None:
    finished = session.Session(3.0, SessionSettings(("steady", "ramp"), compare=(("bare", "engine"),)))
    assert finished.missing[:3] == ("steady", "ramp", "1 x Spillway (auto)")
    assert "4 x bare" in finished.missing
    figures = samples.figures([GOOD], PROMISE, 1.39)
    lines: list[str] = []
    kept: list[int] = []
    with session.noted(finished, "steady", lines.append, lambda: kept.append(len(finished.missing))):
        finished.runs.append(
            session.ScenarioRun(name="steady", about="x", planned=1, figures=figures, samples=(GOOD,), wrong=())
        )
    before = len(finished.missing)
    with session.noted(finished, "ramp", lines.append, lambda: kept.append(len(finished.missing))):
        raise ChildError("locust <died>")
    assert (kept, finished.failed) == ([before, before], {"ramp": "locust <died>"})
    assert "ramp: RED: locust <died>" in lines[0]
    page = report.render(finished, {}, {}, "2026-01-01")
    assert "Incomplete. Without a result: ramp, 1 x Spillway (auto)," in page
    assert "ramp: locust &lt;died&gt;" in page
    whole = replace(finished.settings, names=("steady",), sweep=False)
    assert session.Session(3.0, whole, finished.runs).missing == ()
    assert "Incomplete" not in report.render(session.Session(3.0, whole, finished.runs), {}, {}, "2026-01-01")


def test_figures_tell_late_first_tokens_from_slow_ones() -> None:
    late, slow = replace(GOOD, ttft_s=2.1), replace(GOOD, tpot_s=0.11)
    cut = replace(slow, fault="cut")
    both = replace(late, tpot_s=0.11)
    whole = replace(GOOD, stream=False, done_s=100.0)
    figures = samples.figures([GOOD, late, slow, both, cut, whole, GOOD, GOOD], PROMISE, 0.0)
    assert (figures.late_share, figures.slow_share, figures.slo_share) == (0.25, 0.25, 0.375)


QUICK = ("--scale", "0.5")
"""A faster engine than that of the load tests, so that a run doesn't wait ten seconds for its longest answers."""

needs_locust = pytest.mark.skipif(not LOCUST.exists(), reason="locust is not installed: `make loadtest` installs it")


@needs_locust
def test_locust_finds_a_sound_product_green_and_a_broken_engine_red() -> None:
    """The seeded fault: one of three streams of the engine breaks off."""
    sound = runs_green(lambda _line: None, ["mixed"], seconds=4, engine=QUICK)[RUNS_GREEN]
    assert (sound.value, sound.details["scenarios"]["mixed"]["wrong"]) == (1.0, [])
    broken = runs_green(lambda _line: None, ["mixed"], seconds=4, engine=(*QUICK, "--cut-every", "3"))[RUNS_GREEN]
    assert broken.value == 0.0
    assert "failed: broken off: upstream_interrupted" in str(broken.details["scenarios"]["mixed"]["wrong"])


@needs_locust
def test_users_that_wait_for_their_answers_find_the_product_green_too() -> None:
    finished = session.run(
        SessionSettings(("steady",), 6.0, loop="closed", sweep=False, engine=QUICK), lambda _line: None
    )
    (run,) = finished.runs
    assert run.wrong == ()
    assert run.figures.requests > 0


@needs_locust
def test_an_interrupted_session_leaves_a_report_of_what_was_done(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.locust_runs", "embeddings", "ramp", "--seconds", "3", "--no-sweep"]
    process = subprocess.Popen([*command, "--out", str(tmp_path)], cwd=ROOT, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "report.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 143
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
    report_data = json.loads((tmp_path / "report.json").read_text())
    assert [run["name"] for run in report_data["scenarios"]] == ["embeddings"]
    assert report_data["missing"] == ["ramp"]
    assert "Incomplete. Without a result: ramp." in (tmp_path / "report.html").read_text()
