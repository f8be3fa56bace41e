"""The measurements of a hung ledger, of leaks and of long traffic, short: they hold, and a seeded fault fails them."""

from __future__ import annotations

import asyncio

import pytest
from evidence.measures_leaks import LEAKS, SLOPE, rss_slope, tasks_and_fds, trend
from evidence.measures_ledger_away import LOST, WAIT, ledger_away

from evidence import measures_leaks


def quiet(_: str) -> None:
    """Say nothing."""


def test_local_answers_go_on_while_the_ledger_s_lock_is_held_and_no_row_is_lost() -> None:
    measured = ledger_away(quiet, answers=40, absences=("lock held",))
    details = measured[WAIT].details["lock held"]
    assert (measured[LOST].value, details["local"]["away"], details["up_meanwhile"]) == (0, {200: 40}, 0.0)
    assert list(details["paid"]["away"]) == ["503 ledger_unavailable"]
    assert (details["paid_rows"], details["verify"]) == (details["paid_calls"], 0)


def test_clients_that_leave_leave_nothing_behind() -> None:
    assert tasks_and_fds(quiet, 300)[LEAKS].value == 0


def test_a_task_that_stays_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    stayed: list[asyncio.Task[None]] = []
    leave = measures_leaks._leave

    async def leaving(url: str, way: str) -> None:
        await leave(url, way)
        if way == "reset":
            stayed.append(asyncio.create_task(asyncio.sleep(3600), name="stays"))

    monkeypatch.setattr(measures_leaks, "_leave", leaving)
    monkeypatch.setattr(measures_leaks, "SETTLE_S", 0.5)
    assert tasks_and_fds(quiet, 60)[LEAKS].value == 10


def test_memory_is_followed_over_mixed_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures_leaks, "SAMPLE_S", 0.01)
    measured = rss_slope(quiet, requests=1_500, seconds=60)[SLOPE]
    assert measured.n >= 1_500
    assert set(measured.details["statuses"]) == {"200", "404", "left"}


def test_the_slope_of_a_leak_is_found_and_that_of_noise_is_not() -> None:
    noise = [3.0, -2.0, 0.5, -1.5] * 250
    leaking = [(number * 1000, 80 + number * 0.004 + noise[number]) for number in range(1000)]
    slope, upper = trend(leaking)
    assert slope == pytest.approx(4.0, abs=0.1)
    assert upper > slope
    assert trend([(x, 80 + noise[x // 1000]) for x, _ in leaking])[1] < 1.0


def test_memory_that_stays_for_a_while_makes_the_interval_wider() -> None:
    """As many looks at the same few values say no more than those values."""
    uneven = [3.0, -2.0, 0.5, -1.5, 2.5, -3.0, 1.0, -0.5]
    brief = [(number * 1000, 80 + uneven[number % 8]) for number in range(1000)]
    lasting = [(number * 1000, 80 + uneven[number // 60 % 8]) for number in range(1000)]
    (_, narrow), (slope, wide) = trend(brief), trend(lasting)
    assert wide - slope > 5 * narrow
