"""Money end to end, in short runs of what `make evidence` measures, each also with a seeded fault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from evidence.measures_money import independent_bill, leaked, overshoot
from evidence.money.caps import CapWatch
from evidence.money.overshoot import overshoot_trials
from evidence.promises import load_promises
from evidence.results import Circumstances, judge

from spillway_router.ledger.entries import Entry
from spillway_router.testing.postgres_server import ServerMissingError, find_binaries

TAKEN = Circumstances("make evidence ONLY=budget", "2026-01-01T00:00:00Z", {}, {})
NOON_MS = 1_790_000_000_000


def _quiet(_line: str) -> None:
    """Print nothing."""


def test_two_routers_on_one_file_never_pass_a_cap(tmp_path: Path) -> None:
    overshoot = overshoot_trials(f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path, range(4), _quiet)
    assert (overshoot.worst_nano, overshoot.above_bound, overshoot.bills_without_hold, overshoot.open_holds) == (
        0,
        0,
        0,
        0,
    )
    assert overshoot.refused > 0
    assert overshoot.peak_share > 0.5
    assert overshoot.billed_nano <= overshoot.spent_nano + overshoot.unsure_nano


def test_two_routers_on_postgresql_never_pass_a_cap(tmp_path: Path, postgres_url: str) -> None:
    overshoot = overshoot_trials(postgres_url, tmp_path, range(1, 3), _quiet)
    assert (overshoot.worst_nano, overshoot.above_bound, overshoot.bills_without_hold, overshoot.open_holds) == (
        0,
        0,
        0,
        0,
    )
    assert overshoot.spent_nano > 0


def test_holds_that_ignore_the_caps_fall_short() -> None:
    promise = replace(load_promises()["budget.overshoot"], min_n=2)
    assert not judge(promise, overshoot(_quiet, 3, 1, fault=True)[promise.id], TAKEN).holds


def test_the_ledger_equals_the_providers_bill() -> None:
    promise = replace(load_promises()["ledger.independent_bill_difference"], min_n=400)
    measured = independent_bill(_quiet, 500, 2, 1)[promise.id]
    assert judge(promise, measured, TAKEN).holds, measured
    assert measured.details["kills"] == 2
    assert measured.details["reconciled"] > 0
    assert set(measured.details["below_bill_before"]) <= {"released"}


def test_a_bill_that_leaves_calls_out_falls_short() -> None:
    promise = replace(load_promises()["ledger.independent_bill_difference"], min_n=50)
    assert not judge(promise, independent_bill(_quiet, 100, 0, 1, forget=20)[promise.id], TAKEN).holds


def test_crashes_leak_no_reservation() -> None:
    promise = replace(load_promises()["budget.leaked_reservations"], min_n=12)
    measured = leaked(_quiet, 12, 0, 1)[promise.id]
    assert judge(promise, measured, TAKEN).holds, measured
    assert measured.details["orphans"] > 0


def test_a_dead_router_that_seems_to_live_falls_short() -> None:
    promise = replace(load_promises()["budget.leaked_reservations"], min_n=3)
    assert not judge(promise, leaked(_quiet, 3, 0, 1, deaf=True)[promise.id], TAKEN).holds


def test_both_databases_are_measured() -> None:
    try:
        find_binaries()
    except ServerMissingError as error:
        pytest.skip(str(error))
    measured = leaked(_quiet, 8, 0, 2)["budget.leaked_reservations"]
    assert (measured.value, measured.n) == (0, 8)


def _row(kind: str, nano: int, ts: int = NOON_MS, attempt: int = 1) -> Entry:
    held, amount = (nano, 0) if kind == "reserved" else (0, nano)
    return Entry(
        kind=kind,  # type: ignore[arg-type]
        request_id="r",
        attempt_no=attempt,
        ts=ts,
        backend="b",
        reserved_nano=held,
        amount_nano=amount,
    )


def test_the_watch_follows_holds_through_their_periods() -> None:
    watch = CapWatch({("all", "hour"): 100})
    watch.row(_row("reserved", 60))
    watch.row(_row("reserved", 40, attempt=2))
    assert watch.over == 0
    watch.row(_row("charged", 30, ts=NOON_MS + 3_600_000))  # it is settled in the next hour and belongs to the first
    assert watch.now("all", "hour") == 70
    watch.row(_row("reserved", 31, attempt=3))
    assert (watch.over, watch.peak) == (1, 1.01)
    watch.bill([("b", "r.1", 99), ("b", "r.2", 3), ("b", "nobody.1", 1)])
    assert (watch.over_bill, watch.without_hold) == (2, 1)
