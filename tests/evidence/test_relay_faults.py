"""The relay's evidence in short runs with seeded faults: the published verdict turns to `falls short`."""

from __future__ import annotations

from dataclasses import replace

from evidence.measures_relay import disconnect_close, slow_reader_growth
from evidence.promises import load_promises
from evidence.results import Circumstances, judge
from tests.loadtests.faulty_system import FaultyRelay

TAKEN = Circumstances("make evidence ONLY=relay", "2026-01-01T00:00:00Z", {}, {})


def _quiet(_line: str) -> None:
    """Print nothing."""


def test_a_relay_that_keeps_its_upstream_falls_short() -> None:
    promise = replace(load_promises()["relay.disconnect_close"], min_n=3)
    measurement = disconnect_close(_quiet, FaultyRelay("keeps-upstream"), trials=3)[promise.id]
    assert measurement.n == 3
    assert not judge(promise, measurement, TAKEN).holds


def test_a_relay_that_buffers_for_a_slow_reader_falls_short() -> None:
    promise = load_promises()["relay.slow_reader_growth"]
    measurement = slow_reader_growth(_quiet, FaultyRelay("buffers-all"), trials=1)[promise.id]
    assert measurement.n == 1
    assert not judge(promise, measurement, TAKEN).holds
