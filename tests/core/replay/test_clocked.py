"""The engine on a clock of events does what it does iteration by iteration."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadtests.simulator.policies import AlwaysLocal
from loadtests.simulator.simulate import Timing, simulate
from loadtests.simulator.trace import TraceRequest

from spillway_router.core.replay.clocked import ClockedEngine
from spillway_router.core.replay.engine import EngineModel

SMALL = EngineModel(batched_tokens=64, sequences=4, kv_capacity_tokens=2000)
JOBS = st.lists(
    st.tuples(st.floats(0, 5), st.integers(1, 400), st.integers(1, 200)),
    min_size=1,
    max_size=25,
    unique_by=lambda job: job[0],
)
"""No two arrive at once: an idle engine would begin with the first alone, where the simulator takes both."""


def served(requests: list[TraceRequest]) -> tuple[dict[int, float], dict[int, float], float]:
    """The moments of first tokens and of ends, and the time for which the engine worked."""
    engine: ClockedEngine[TraceRequest] = ClockedEngine(SMALL)
    first: dict[int, float] = {}
    ended: dict[int, float] = {}

    def run_until(moment_s: float) -> None:
        while engine.ends_s < moment_s or (engine.ends_s == moment_s != math.inf):
            now_s = engine.ends_s
            done = engine.complete()
            first.update(dict.fromkeys([one.number for one in done.first_tokens], now_s))
            ended.update(dict.fromkeys([one.number for one in done.finished], now_s))

    for request in requests:
        run_until(request.arrival_s)
        engine.submit(request, request.arrival_s)
    run_until(math.inf)
    return first, ended, engine.busy_s


@settings(max_examples=100, deadline=None)
@given(JOBS)
def test_coasting_changes_nothing(jobs: list[tuple[float, int, int]]) -> None:
    requests = [TraceRequest(number, *job) for number, job in enumerate(sorted(jobs))]
    first, ended, busy_s = served(requests)
    stepwise = simulate(requests, AlwaysLocal(), SMALL, Timing.ARRIVAL)
    assert [first[r.number] - r.arrival_s for r in requests] == pytest.approx(stepwise.ttft_s)
    assert max(ended.values()) == pytest.approx(stepwise.end_s)
    assert busy_s == pytest.approx(stepwise.busy_s)


@settings(max_examples=100, deadline=None)
@given(JOBS)
def test_nobody_is_served_before_arriving_and_first_tokens_come_first_come_first_served(
    jobs: list[tuple[float, int, int]],
) -> None:
    requests = [TraceRequest(number, *job) for number, job in enumerate(sorted(jobs))]
    first, ended, busy_s = served(requests)
    assert list(first) == [r.number for r in requests], "every prompt is read, in the order of arrival"
    assert set(ended) == set(first)
    for request in requests:
        assert request.arrival_s < first[request.number] <= ended[request.number]
    assert busy_s <= max(ended.values()) - requests[0].arrival_s + 1e-9
