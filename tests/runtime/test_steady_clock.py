"""The time of day: it drifts with the wall clock, and does not jump with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.runtime.steady_clock import BELIEVED_S, STEP_S, ClockSources, SteadyClock, system_sources

NOON = 1_795_176_000.0
DAY = 86_400.0


def near(seconds: float) -> object:
    """Return what equals that many seconds to a hundredth."""
    return pytest.approx(seconds, rel=0, abs=0.01)


@dataclass
class Machine:
    """A machine whose wall clock a test sets."""

    monotonic_s: float = 1000.0
    ahead_s: float = 0.0
    boot: str = "b1"
    jumps: list[float] = field(default_factory=list)
    is_away: bool = False
    server_ahead_s: float = 0.0

    def clock(self, file: Path | None = None, server_s: Callable[[], float | None] = lambda: None) -> SteadyClock:
        sources = ClockSources(lambda: self.true_s() + self.ahead_s, lambda: self.monotonic_s, self.boot)
        return SteadyClock(sources, file, server_s, self.jumps.append)

    def server_s(self) -> float:
        if self.is_away:
            raise LedgerUnavailableError("away")
        return self.true_s() + self.server_ahead_s

    async def tend(self, clock: SteadyClock, seconds: float) -> None:
        """Let time pass as it does in a router."""
        for _ in range(int(seconds)):
            self.monotonic_s += 1.0
            await clock.tend()

    def true_s(self) -> float:
        return NOON + self.monotonic_s - 1000.0

    def wait(self, clock: SteadyClock, seconds: float) -> None:
        """Let time pass, with a look every second."""
        for _ in range(int(seconds)):
            self.monotonic_s += 1.0
            clock.look()


@pytest.mark.parametrize("jump_s", [DAY, -DAY, 26 * 3600, 10.0, -3.0])
def test_a_jump_there_and_back_moves_nothing(jump_s: float) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wait(clock, 10)
    machine.ahead_s = jump_s
    machine.wait(clock, BELIEVED_S - 60)
    assert clock.now() == near(machine.true_s())
    machine.ahead_s = 0.0
    machine.wait(clock, 5)
    assert clock.now() == near(machine.true_s())
    assert [round(ahead_s) for ahead_s in machine.jumps] == [jump_s]


def test_drift_is_followed_and_a_jump_that_lasts_as_well() -> None:
    machine = Machine()
    clock = machine.clock()
    for _ in range(100):
        machine.ahead_s += 0.5
        machine.wait(clock, 1)
    assert clock.now() == near(machine.true_s() + 50)
    machine.ahead_s -= 7200
    machine.wait(clock, BELIEVED_S + 5)
    assert clock.now() == near(machine.true_s() + machine.ahead_s)


async def test_a_restart_within_one_boot_believes_no_jump(tmp_path: Path) -> None:
    machine, file = Machine(), tmp_path / "clock"
    await machine.clock(file).tend()
    machine.ahead_s = DAY
    machine.monotonic_s += 60
    assert machine.clock(file).now() == near(machine.true_s())
    machine.boot = "b2"
    assert machine.clock(file).now() == near(machine.true_s() + DAY)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"boot": "b1", "offset_s": "x", "at_s": 1}', "null"])
def test_a_damaged_note_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "clock").write_text(text)
    machine = Machine()
    assert machine.clock(tmp_path / "clock").now() == near(machine.true_s())


def test_the_ledger_s_server_has_the_first_word() -> None:
    machine = Machine(ahead_s=DAY)
    clock = machine.clock(server_s=machine.true_s)
    machine.wait(clock, 30)
    assert clock.now() == near(machine.true_s())
    assert machine.jumps == []


@pytest.mark.parametrize("ahead_s", [DAY, -DAY, 30.0])
async def test_a_wrong_clock_that_is_put_right_later_moves_nothing(ahead_s: float) -> None:
    machine = Machine(ahead_s=ahead_s)
    clock = machine.clock(server_s=machine.true_s)
    await machine.tend(clock, 10)
    machine.ahead_s = 0.0
    await machine.tend(clock, BELIEVED_S + 120)
    assert clock.now() == near(machine.true_s())
    assert machine.jumps == []


async def test_a_jump_while_the_server_is_away_is_believed_only_with_it() -> None:
    machine = Machine()
    clock = machine.clock(server_s=machine.server_s)
    await machine.tend(clock, 10)
    machine.ahead_s, machine.is_away = DAY, True
    await machine.tend(clock, BELIEVED_S + 120)
    assert clock.now() == near(machine.true_s())
    machine.is_away = False
    await machine.tend(clock, 120)
    assert clock.now() == near(machine.true_s())
    assert machine.jumps == []


async def test_a_server_that_jumps_is_followed_once_it_has_lasted() -> None:
    machine = Machine()
    clock = machine.clock(server_s=machine.server_s)
    machine.server_ahead_s = DAY
    await machine.tend(clock, BELIEVED_S - 60)
    assert clock.now() == near(machine.true_s())
    assert [round(ahead_s) for ahead_s in machine.jumps] == [DAY]
    await machine.tend(clock, 240)
    assert clock.now() == near(machine.true_s() + DAY)


async def test_a_machine_that_drifts_stays_with_the_server() -> None:
    machine = Machine()
    clock = machine.clock(server_s=machine.true_s)
    for _ in range(200):
        machine.ahead_s += 0.1
        await machine.tend(clock, 10)
        assert abs(clock.now() - machine.true_s()) <= STEP_S
    assert machine.jumps == []


def test_a_machine_that_booted_without_a_clock_is_put_right() -> None:
    machine = Machine(ahead_s=-NOON + 100)
    clock = machine.clock()
    machine.ahead_s = 0.0
    machine.wait(clock, 2)
    assert clock.now() == near(machine.true_s())
    assert machine.jumps == []


@given(jumps=st.lists(st.floats(-5 * DAY, 5 * DAY), max_size=30))
def test_no_series_of_jumps_moves_it_faster_than_drift(jumps: list[float]) -> None:
    machine = Machine()
    clock = machine.clock()
    for ahead_s in jumps:
        machine.ahead_s = ahead_s
        machine.wait(clock, 1)
    assert abs(clock.now() - machine.true_s()) <= STEP_S * len(jumps) + 1e-3


def test_this_machine_has_a_boot_id() -> None:
    assert len(system_sources().boot) == 36
