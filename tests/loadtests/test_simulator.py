"""The simulator keeps its own laws, and its figures change when the rule under test is broken."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadtests.simulator.__main__ import main
from loadtests.simulator.policies import AlwaysLocal, BacklogPolicy, BacklogRule
from loadtests.simulator.simulate import Timing, simulate
from loadtests.simulator.table import CONTENDERS, REFERENCE_LOADS, TraceLoad, overflow_table
from loadtests.simulator.trace import TraceRequest, load

from spillway_router.core.replay.engine import EngineModel, SimulatedEngine
from spillway_router.core.routing.backlog import Slo

PROMISE = Slo(ttft_s=1.0, tpot_s=math.inf)
SMALL = EngineModel(batched_tokens=64, sequences=4, kv_capacity_tokens=2000)
JOBS = st.lists(
    st.tuples(st.floats(0, 2), st.integers(1, 400), st.integers(1, 60)),
    min_size=1,
    max_size=25,
)


class Recorder(AlwaysLocal):
    """Keeps everything and records the order of first tokens and ends."""

    def __init__(self) -> None:
        self.first: list[int] = []
        self.ended: dict[int, float] = {}
        self.iteration_tokens: list[int] = []

    def iteration(self, iteration: object, now: float) -> None:
        self.iteration_tokens.append(iteration.tokens)  # type: ignore[attr-defined]

    def first_token(self, request: TraceRequest, now: float) -> None:
        self.first.append(request.number)

    def finished(self, request: TraceRequest, now: float) -> None:
        assert request.number not in self.ended
        self.ended[request.number] = now


def requests_of(jobs: list[tuple[float, int, int]]) -> list[TraceRequest]:
    ordered = sorted(jobs)
    return [TraceRequest(number, *job) for number, job in enumerate(ordered)]


@settings(max_examples=60, deadline=None)
@given(JOBS, st.sampled_from(Timing))
def test_tokens_are_conserved_and_service_is_first_come_first_served(
    jobs: list[tuple[float, int, int]], timing: Timing
) -> None:
    requests = requests_of(jobs)
    recorder = Recorder()
    result = simulate(requests, recorder, SMALL, timing)
    assert result.cloud == 0
    assert recorder.first == [r.number for r in requests]
    assert set(recorder.ended) == set(recorder.first)
    # Every prompt token is batched once; the first output token comes out of the prefill, each later one is a step.
    assert sum(recorder.iteration_tokens) == sum(r.prompt_tokens + r.output_tokens - 1 for r in requests)
    assert max(recorder.iteration_tokens) <= SMALL.batched_tokens
    for request, ttft in zip(requests, result.ttft_s, strict=True):
        assert ttft > 0
        steps = request.output_tokens - 1
        decoding = recorder.ended[request.number] - request.arrival_s - ttft
        assert decoding >= steps * (0.0098 + SMALL.overhead_s) - 1e-9
        assert result.tpot_s[request.number] == pytest.approx(decoding / max(1, steps))
    assert result.busy_s <= result.end_s + 1e-9


def test_an_engine_ends_empty() -> None:
    engine = SimulatedEngine(SMALL)
    for number in range(10):
        engine.submit(TraceRequest(number=number, arrival_s=0.0, prompt_tokens=100 + number, output_tokens=1 + number))
    while not engine.idle:
        engine.begin()
        assert 0 <= engine.kv_tokens <= SMALL.kv_capacity_tokens
        engine.complete()
    assert engine.kv_tokens == 0
    assert engine.prefilled_tokens == sum(range(100, 110))
    assert engine.decoded_tokens == sum(range(1, 11))


def test_one_request_takes_what_the_service_curve_says() -> None:
    model = EngineModel()
    result = simulate([TraceRequest(number=0, arrival_s=5.0, prompt_tokens=512, output_tokens=2)], AlwaysLocal(), model)
    kv_s = 128 * 1024 / 1.5e12
    assert list(result.ttft_s) == pytest.approx([0.0355 + 512 * kv_s + 0.001])
    assert result.busy_s == pytest.approx(0.0355 + 0.0098 + (512 + 513) * kv_s + 0.002)
    assert result.end_s == pytest.approx(5.0 + result.busy_s)


def test_the_service_curve_is_linear_between_its_points() -> None:
    times = EngineModel().step_times_s()
    assert [times[n] for n in (1, 64, 2048, 4096)] == [pytest.approx(ms / 1000) for ms in (9.8, 11.4, 150, 281)]
    assert times[1536] == pytest.approx(0.1135)
    with pytest.raises(ValueError, match="batched_tokens"):
        EngineModel(batched_tokens=5000).step_times_s()


def test_a_prompt_that_can_never_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="never fit"):
        SimulatedEngine(SMALL).submit(TraceRequest(number=0, arrival_s=0.0, prompt_tokens=1901, output_tokens=1))


def test_the_traces_are_whole() -> None:
    conv, code = load("conv"), load("code")
    assert (len(conv), len(code)) == (19_366, 8_819)
    for trace, prompt, output in ((conv, 1155, 211), (code, 2048, 27.9)):
        assert sum(r.prompt_tokens for r in trace) / len(trace) == pytest.approx(prompt, rel=0.01)
        assert sum(r.output_tokens for r in trace) / len(trace) == pytest.approx(output, rel=0.01)
        assert all(a.arrival_s <= b.arrival_s for a, b in pairwise(trace))
    assert load("conv", speed=2.0)[-1].arrival_s == pytest.approx(conv[-1].arrival_s / 2)
    with pytest.raises(ValueError, match="no trace named"):
        load("nobody")


SLICE = TraceLoad("code", limit=2000)


def test_the_backlog_rule_keeps_the_promise_that_others_break() -> None:
    cells = {c.policy: c for c in overflow_table(["always-local", "gauges-5s", "backlog", "backlog-router"], [SLICE])}
    assert cells["always-local"].cloud_percent == 0
    assert cells["always-local"].miss_percent > 50
    assert cells["gauges-5s"].miss_percent > 20
    assert cells["backlog"].miss_percent < 4
    assert cells["backlog-router"].miss_percent < 0.5
    assert cells["backlog"].cloud_percent < cells["gauges-5s"].cloud_percent + 10


def test_whole_traces_agree_with_the_reference_and_hold_the_bounds() -> None:
    bounds = ((1.6, 0.1), (22.0, 0.3), (28.0, 2.2))
    for policy in ("backlog", "backlog-router-m95"):
        cells = overflow_table([policy], REFERENCE_LOADS)
        for cell, (cloud, misses) in zip(cells, bounds, strict=True):
            assert cell.cloud_percent <= cloud
            assert cell.miss_percent <= misses
            if cell.reference is not None:
                assert cell.cloud_percent == pytest.approx(cell.reference.cloud_percent, abs=0.5)
                assert cell.miss_percent == pytest.approx(cell.reference.miss_percent, abs=0.1)


def test_reading_prompts_between_tokens_is_seen_and_kept_within_the_promise_per_token() -> None:
    """Conversations at twice the trace's rate with 50 ms per token: only the prompts of others make tokens late."""
    load_ = TraceLoad("conv", 2.0, 6000)
    table = overflow_table(["backlog-router-ttft", "backlog-router"], [load_], tpot_slo_s=0.05)
    blind, seeing = table
    assert blind.pace_miss_percent > 80
    assert seeing.pace_miss_percent < 2
    assert seeing.miss_percent < 0.1
    assert seeing.cloud_percent < blind.cloud_percent + 3


def test_a_promise_per_token_costs_little_where_the_engine_is_not_full() -> None:
    blind, seeing = overflow_table(["backlog-router-ttft", "backlog-router"], [TraceLoad("conv")], tpot_slo_s=0.05)
    assert seeing.cloud_percent < 5
    assert seeing.pace_miss_percent < 1 < 10 < blind.pace_miss_percent


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(BacklogRule(margin=math.inf), id="rule-off"),
        pytest.param(BacklogRule(margin=3.0), id="margin-of-three"),
        pytest.param(BacklogRule(length_error=0.5), id="lengths-halved"),
    ],
)
def test_a_seeded_fault_moves_the_figures(fault: BacklogRule) -> None:
    requests = load("code", limit=2000)
    model = EngineModel()
    sound = simulate(requests, BacklogPolicy(PROMISE, model), model)
    broken = simulate(requests, BacklogPolicy(PROMISE, model, fault), model)
    assert sound.missed(1.0) == 0
    assert broken.missed(1.0) / len(broken.ttft_s) > 0.2
    assert broken.cloud < sound.cloud


def test_ttfts_alone_make_up_for_lengths_believed_too_short() -> None:
    requests = load("code", limit=2000)
    model = EngineModel()
    rule = BacklogRule(from_iterations=False, true_output=False, length_error=0.7)
    result = simulate(requests, BacklogPolicy(PROMISE, model, rule), model)
    assert result.missed(1.0) / len(result.ttft_s) < 0.01


def test_every_contender_runs() -> None:
    cells = overflow_table(list(CONTENDERS), [TraceLoad("conv", speed=2.0, limit=400)])
    assert [c.policy for c in cells] == list(CONTENDERS)
    assert all(c.requests == 400 and 0 <= c.cloud_percent <= 100 and 0 <= c.miss_percent <= 100 for c in cells)
    with pytest.raises(ValueError, match="no policy named magic"):
        overflow_table(["magic"], [SLICE])


def test_command_line_prints_json_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--trace", "conv", "--speed", "2", "--limit", "300", "--policy", "backlog"]
    assert main([*arguments, "--json"]) == 0
    (cell,) = json.loads(capsys.readouterr().out)
    assert (cell["policy"], cell["trace"], cell["speed"], cell["requests"]) == ("backlog", "conv", 2.0, 300)
    assert cell["reference"] is None, "the reference is of whole traces"
    assert main(arguments) == 0
    assert "conv x2" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--speed", "2"])
    assert "go with --trace" in capsys.readouterr().err
