"""Background tasks go on after every error, and the watchdog notices those that don't."""

from __future__ import annotations

import asyncio
import logging

import pytest

from spillway_router.aio.enduring import FIRST_PAUSE_S, LONGEST_PAUSE_S, Enduring, enduring
from spillway_router.aio.periodic import SPARE_PAUSE_S, Periodic, Rhythm, TimeSource
from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.aio.watched import WATCHED, Watchdog
from spillway_router.testing import ManualClock

pytestmark = pytest.mark.unexpected_errors


class Steps:
    """A time source whose sleeps end at once; it notes the pauses and stops its caller after `most` of them."""

    def __init__(self, most: int) -> None:
        self.clock = ManualClock()
        self.pauses: list[float] = []
        self.over = asyncio.Event()
        self._most = most

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)
        if len(self.pauses) >= self._most:
            self.over.set()
            await asyncio.Event().wait()

    @property
    def time_source(self) -> TimeSource:
        return TimeSource(self.clock, self.sleep)


async def broken_off() -> None:
    """Await something that is cancelled, as a lost connection cancels who waits for it."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


def fail(*_: object) -> float:
    raise RuntimeError("seeded")


async def failing() -> None:
    fail()


async def succeeding() -> None:
    return


def not_a_number() -> float:
    return float("nan")


@pytest.mark.parametrize(
    ("work", "rhythm", "on_error", "pause_s"),
    [
        (failing, Rhythm(5.0), None, 5.0),
        (broken_off, Rhythm(5.0), None, 5.0),
        (failing, Rhythm(5.0), fail, 5.0),
        (broken_off, Rhythm(5.0), fail, 5.0),
        (succeeding, Rhythm(fail), None, SPARE_PAUSE_S),
        (failing, Rhythm(fail), fail, SPARE_PAUSE_S),
        (failing, Rhythm(not_a_number), None, SPARE_PAUSE_S),
        (failing, Rhythm(fail, wait_first=True), None, SPARE_PAUSE_S),
    ],
)
async def test_periodic_work_goes_on_whatever_fails(
    work: object, rhythm: Rhythm, on_error: object, pause_s: float
) -> None:
    steps = Steps(3)
    before = UNEXPECTED.counts["background"]
    periodic = Periodic("seeded", rhythm, work, on_error, time_source=steps.time_source)  # type: ignore[arg-type]
    periodic.start()
    await steps.over.wait()
    assert steps.pauses == [pause_s] * 3
    assert UNEXPECTED.counts["background"] > before
    await periodic.stop()


async def test_enduring_work_begins_again_after_growing_pauses() -> None:
    steps = Steps(8)
    errors = [failing, broken_off] * 4

    async def work() -> None:
        await errors.pop()()

    task = Enduring("seeded", work, steps.time_source)
    task.start()
    await steps.over.wait()
    assert steps.pauses[:6] == [FIRST_PAUSE_S * 2**n for n in range(5)] + [LONGEST_PAUSE_S]
    assert task.trouble() == ""
    await task.stop()
    await task.stop()


async def test_enduring_work_may_return() -> None:
    async def work() -> None:
        return

    await enduring("short", work)
    task = Enduring("short", work)
    task.start()
    await asyncio.wait([running for running in asyncio.all_tasks() if running.get_name() == "short"])
    assert task.trouble() == ""
    await task.stop()


async def test_the_watchdog_revives_a_task_that_somebody_ended(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    stopped: list[tuple[str, str]] = []
    watchdog = Watchdog(lambda task, trouble: stopped.append((task, trouble)))
    runs = asyncio.Semaphore(0)

    async def work() -> None:
        runs.release()
        await asyncio.Event().wait()

    tasks = (Enduring("enduring one", work), Periodic("periodic one", Rhythm(1.0), work))
    loop = asyncio.get_running_loop()
    for task in tasks:
        task.start()
        await runs.acquire()
    watchdog.look(loop)
    assert (stopped, watchdog.stopped) == ([], {})
    victims = [task for task in asyncio.all_tasks() if task.get_name().endswith(" one")]
    for victim in victims:
        victim.cancel()
    await asyncio.wait(victims)
    watchdog.look(loop)
    assert stopped == [(task.name, "its task was ended from outside") for task in tasks]
    for _ in tasks:
        await runs.acquire()
    watchdog.look(loop)
    assert watchdog.stopped == {}
    assert {task.name: watchdog.counts[task.name] for task in tasks} == {"enduring one": 1, "periodic one": 1}
    lines = [record.getMessage() for record in caplog.records if " one " in record.getMessage()]
    assert len([line for line in lines if "has stopped" in line]) == 2
    assert len([line for line in lines if "works again" in line]) == 2
    for task in tasks:
        await task.stop()
    watchdog.look(loop)
    assert not [task for task in WATCHED.of(loop) if task.name.endswith(" one")]


async def test_the_watchdog_notices_a_run_that_hangs_once() -> None:
    clock = ManualClock()
    stopped: list[str] = []
    watchdog = Watchdog(lambda task, trouble: stopped.append(f"{task}: {trouble}"))
    began = asyncio.Event()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    rhythm = Rhythm(1.0, longest_run_s=60.0)
    periodic = Periodic("hanging one", rhythm, hang, time_source=TimeSource(clock))
    periodic.start()
    await began.wait()
    loop = asyncio.get_running_loop()
    clock.advance(59.0)
    watchdog.look(loop)
    assert stopped == []
    clock.advance(11.0)
    watchdog.look(loop)
    watchdog.look(loop)
    assert stopped == ["hanging one: its run should have ended 10 s ago"]
    await periodic.stop()


async def test_the_watchdog_goes_on_when_it_fails_itself() -> None:
    looks = asyncio.Semaphore(0)

    class Odd:
        name = "odd one"

        def trouble(self) -> str:
            looks.release()
            raise RuntimeError("seeded")

        def revive(self) -> None:
            raise AssertionError

    odd = Odd()
    WATCHED.add(odd)
    watchdog = Watchdog(fail, every_s=0.01)  # type: ignore[arg-type]
    watchdog.start()
    async with asyncio.timeout(10):
        for _ in range(3):
            await looks.acquire()
    await watchdog.close()
    WATCHED.discard(odd)
