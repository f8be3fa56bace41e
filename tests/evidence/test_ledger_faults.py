"""The ledger's evidence in short runs with seeded faults: the published verdict turns to `falls short`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evidence.measures_ledger import SPEED, kill9, powercut, speed
from evidence.promises import load_promises
from evidence.results import Circumstances, judge

from spillway_router.ledger.records import Write, WriteResult
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

TAKEN = Circumstances("make evidence ONLY=ledger", "2026-01-01T00:00:00Z", {}, {})


def _quiet(_line: str) -> None:
    """Print nothing."""


def test_a_writer_that_acknowledges_too_early_falls_short() -> None:
    promise = replace(load_promises()["ledger.kill9_lost_or_doubled"], min_n=8)
    assert judge(promise, kill9(_quiet, 8)[promise.id], TAKEN).holds
    assert not judge(promise, kill9(_quiet, 8, fault=True)[promise.id], TAKEN).holds


def test_a_database_that_does_not_wait_for_the_disk_falls_short() -> None:
    promise = replace(load_promises()["ledger.powercut_lost"], min_n=8)
    assert judge(promise, powercut(_quiet, 8)[promise.id], TAKEN).holds
    assert not judge(promise, powercut(_quiet, 8, synchronous="NORMAL")[promise.id], TAKEN).holds


class OneByOne(SqliteLedger):
    """A ledger without group commit: it syncs every row."""

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        return [super(OneByOne, self).commit((write,))[0] for write in writes]


def test_a_ledger_without_group_commit_falls_short() -> None:
    measurement = speed(_quiet, rows=640, repeats=1, ledger=OneByOne)
    for name in SPEED:
        assert not judge(load_promises()[name], measurement[name], TAKEN).holds


def test_speed_is_measured_on_disk_and_in_memory() -> None:
    """This asserts no bound, since the machine of a test run may be busy."""
    measurement = speed(_quiet, rows=640, repeats=1)
    assert set(measurement) == set(SPEED)
    for measured in measurement.values():
        assert measured.n == 2 * 640
        assert measured.value
        assert {"local", "paid"} <= measured.details["disk"].keys()
