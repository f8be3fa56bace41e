"""The benchmark against relays with seeded faults: every figure can fail. It uses real processes and sockets, and small
n.
"""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from loadtests.bench.behaviour import disconnects, slow_readers, summary
from loadtests.bench.directive import Directive
from loadtests.bench.processes import Cores, stub_upstream
from loadtests.bench.report import paired_ratio
from loadtests.bench.run import BenchPlan, LoadProcess, measure
from loadtests.bench.scenarios import BURST8, NS32, Scenario, chat_body
from loadtests.bench.start import started
from tests.loadtests.faulty_system import FaultyRelay

NO_CORES = Cores(None, None)


def _quiet(_line: str) -> None:
    """Print nothing."""


def test_the_stub_paces_a_stream_over_the_time_it_was_told(tmp_path: Path) -> None:
    with stub_upstream(NO_CORES, tmp_path) as port, httpx.Client(timeout=20, trust_env=False) as client:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        arrivals = []
        begun = time.monotonic()
        body = chat_body(Directive(events=20, pace_ms=600), "demo", stream=True)
        with client.stream("POST", url, content=body) as answer:
            for chunk in answer.iter_raw():
                arrivals += [time.monotonic() - begun] * chunk.count(b"data: ")
        # Role chunk, events, finish, usage, [DONE]; no event before its time, a busy machine may be late.
        assert len(arrivals) == 24
        assert all(at >= 0.03 * number - 0.005 for number, at in enumerate(arrivals))
        fast = client.post(url, content=chat_body(Directive(events=20), "demo", stream=True))
        assert fast.text.count("data: ") == 24
        assert client.get(f"http://127.0.0.1:{port}/_stub/state").json()["completed"] == 2
        assert "vllm:num_requests_running" in client.get(f"http://127.0.0.1:{port}/metrics").text


def test_a_relay_that_loses_an_event_is_caught_and_a_good_one_is_not() -> None:
    with started(FaultyRelay("none")) as good:
        seen = LoadProcess(good.port, "", good.cores.load, quick=True).run(BURST8, count=16)
        assert (seen["completed"], seen["errors"]) == (16, {})
    with started(FaultyRelay("loses-event")) as bad:
        seen = LoadProcess(bad.port, "", bad.cores.load, quick=True).run(BURST8, count=16)
        assert seen["completed"] == 0
        assert seen["errors"] == {"events lost, doubled or out of order": 16}


def test_cpu_that_a_proxy_burns_shows_in_its_figure() -> None:
    short = Scenario(name=NS32.name, what=NS32.what, connections=32, count=200, seconds=5.0)
    result = measure(BenchPlan([FaultyRelay("none"), FaultyRelay("burns-cpu")], [short], 1, quick=True), _quiet)
    good, bad = (result.systems[name].scenarios["ns32"] for name in ("relay-none", "relay-burns-cpu"))
    assert good.held
    assert bad.held
    assert bad.cpu_us_per_request[0] > good.cpu_us_per_request[0] + 4_000


def test_systems_that_run_at_once_are_compared_load_by_load() -> None:
    short = Scenario(name=NS32.name, what=NS32.what, connections=32, count=200, seconds=5.0)
    systems = [FaultyRelay("burns-cpu"), FaultyRelay("none")]
    result = measure(BenchPlan(systems, [short], 1, quick=True, turns=2), _quiet).as_json()
    loads = {name: one["scenarios"]["ns32"]["rounds"] for name, one in result["systems"].items()}
    bad, good = loads["relay-burns-cpu"], loads["relay-none"]
    assert (len(bad), len(good)) == (2, 2)
    ratio = paired_ratio(result, "relay-burns-cpu", "relay-none", "ns32")
    assert ratio == pytest.approx((bad[0] / good[0] + bad[1] / good[1]) / 2)
    assert ratio > 5
    assert paired_ratio(result, "relay-burns-cpu", "another", "ns32") is None


def test_a_relay_that_keeps_its_upstream_is_told_from_one_that_closes() -> None:
    with started(FaultyRelay("none")) as good:
        closed = disconnects(good, 6, _quiet)
    assert not any(one.ran_to_end for one in closed)
    assert set(summary(closed)) == {
        "mid-stream",
        "waiting for a whole answer",
        "waiting for a stream's first byte",
    }
    with started(FaultyRelay("keeps-upstream")) as bad:
        left = disconnects(bad, 3, _quiet)
    assert all(one.ms > 1_000 for one in left)
    assert all(one.ran_to_end for one in left)


def test_a_relay_that_buffers_for_a_slow_reader_is_told_from_one_that_waits() -> None:
    with started(FaultyRelay("none")) as good:
        waits = slow_readers(good, 1, _quiet)[0]
    assert waits.got_all
    with started(FaultyRelay("buffers-all")) as bad:
        buffers = slow_readers(bad, 1, _quiet)[0]
    assert buffers.growth_mib > 10 > waits.growth_mib
