"""The evidence of stopped streams in a short run, and with a seeded fault: a router that reads nothing on."""

from __future__ import annotations

from dataclasses import replace

from evidence.measures_stopped import STOPPED_STREAM_ERROR, stopped_streams
from evidence.promises import load_promises
from evidence.results import Circumstances, Measurement, judge

TAKEN = Circumstances("make evidence ONLY=money", "2026-01-01T00:00:00Z", {}, {})


def _quiet(_line: str) -> None:
    """Print nothing."""


def _holds(measurement: Measurement) -> bool:
    promise = replace(load_promises()[STOPPED_STREAM_ERROR], min_n=20)
    return judge(promise, measurement, TAKEN).holds


def test_what_is_booked_for_streams_that_go_on_is_the_bill() -> None:
    measurement = stopped_streams(_quiet, 120)[STOPPED_STREAM_ERROR]
    assert _holds(measurement), measurement
    assert measurement.details["continues"]["estimated"] == 0
    assert measurement.details["stops"]["estimated"] > 20


def test_a_router_that_reads_nothing_on_books_something_else() -> None:
    assert not _holds(stopped_streams(_quiet, 80, fault=True)[STOPPED_STREAM_ERROR])
