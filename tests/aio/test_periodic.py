"""Periodic work: when it runs, what follows an error, and how it stops. Time moves only where a test moves it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from spillway_router.aio.periodic import Periodic, Rhythm, TimeSource
from spillway_router.aio.tasks import end
from spillway_router.testing import ManualClock


class Pace:
    """The clock and the sleeps of a Periodic: each sleep is noted and lasts until `advance` ends it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.pauses: asyncio.Queue[float] = asyncio.Queue()
        self._release: asyncio.Event = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.pauses.put_nowait(seconds)
        self._release.clear()
        await self._release.wait()
        self.clock.advance(seconds)

    async def next_pause(self) -> float:
        async with asyncio.timeout(5):
            return await self.pauses.get()

    def advance(self) -> None:
        """End the sleep in progress."""
        self._release.set()


class Work:
    """Counts its runs, takes time on the clock, and raises the given errors in turn."""

    def __init__(self, clock: ManualClock, *errors: Exception | None, takes_s: float = 0.0) -> None:
        self.runs = 0
        self._clock, self._errors, self._takes_s = clock, list(errors), takes_s

    async def __call__(self) -> None:
        self.runs += 1
        self._clock.advance(self._takes_s)
        if self._errors and (error := self._errors.pop(0)) is not None:
            raise error


async def test_it_runs_at_once_and_pauses_after_each_run() -> None:
    pace = Pace()
    work = Work(pace.clock, takes_s=2.0)
    periodic = Periodic("test", Rhythm(10.0), work, time_source=TimeSource(pace.clock, pace.sleep))
    periodic.start()
    assert await pace.next_pause() == 10.0
    assert work.runs == 1
    pace.advance()
    assert await pace.next_pause() == 10.0
    assert work.runs == 2
    await periodic.stop()


async def test_it_can_pause_before_the_first_run() -> None:
    pace = Pace()
    work = Work(pace.clock)
    periodic = Periodic("test", Rhythm(10.0, wait_first=True), work, time_source=TimeSource(pace.clock, pace.sleep))
    periodic.start()
    assert await pace.next_pause() == 10.0
    assert work.runs == 0
    pace.advance()
    await pace.next_pause()
    assert work.runs == 1
    await periodic.stop()


@pytest.mark.parametrize(("takes_s", "pause_s"), [(2.0, 8.0), (10.0, 0.0), (15.0, 0.0)])
async def test_from_start_keeps_the_rhythm(takes_s: float, pause_s: float) -> None:
    pace = Pace()
    work = Work(pace.clock, takes_s=takes_s)
    periodic = Periodic("test", Rhythm(10.0, from_start=True), work, time_source=TimeSource(pace.clock, pace.sleep))
    periodic.start()
    assert await pace.next_pause() == pause_s
    await periodic.stop()


async def test_the_pause_may_depend_on_the_last_run() -> None:
    pace = Pace()
    work = Work(pace.clock)
    periodic = Periodic("test", Rhythm(lambda: float(work.runs)), work, time_source=TimeSource(pace.clock, pace.sleep))
    periodic.start()
    pauses = []
    for _ in range(3):
        pauses.append(await pace.next_pause())
        pace.advance()
    assert pauses == [1.0, 2.0, 3.0]
    await periodic.stop()


async def test_an_error_is_reported_and_the_work_is_repeated_after_the_usual_pause() -> None:
    pace = Pace()
    errors: list[Exception] = []
    broken = OSError("broken")
    work = Work(pace.clock, broken, None)
    periodic = Periodic("test", Rhythm(10.0), work, errors.append, time_source=TimeSource(pace.clock, pace.sleep))
    periodic.start()
    assert await pace.next_pause() == 10.0
    assert errors == [broken]
    pace.advance()
    await pace.next_pause()
    assert (work.runs, errors) == (2, [broken])
    await periodic.stop()


@pytest.mark.unexpected_errors
async def test_without_a_handler_an_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    pace = Pace()
    periodic = Periodic(
        "upkeep", Rhythm(10.0), Work(pace.clock, OSError("broken")), time_source=TimeSource(pace.clock, pace.sleep)
    )
    periodic.start()
    await pace.next_pause()
    await periodic.stop()
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "upkeep failed and will be repeated")
    assert "broken" in str(record.exc_info)


async def test_stop_cancels_the_run_in_progress_and_can_be_repeated() -> None:
    running, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    periodic = Periodic("test", Rhythm(10.0), work)
    await periodic.stop()
    assert not periodic.is_running
    periodic.start()
    periodic.start()
    await running.wait()
    assert periodic.is_running
    await periodic.stop()
    assert cancelled.is_set()
    await periodic.stop()
    assert not periodic.is_running


async def test_it_can_be_started_again() -> None:
    pace = Pace()
    work = Work(pace.clock)
    periodic = Periodic("test", Rhythm(10.0), work, time_source=TimeSource(pace.clock, pace.sleep))
    for runs in (1, 2):
        periodic.start()
        await pace.next_pause()
        assert work.runs == runs
        await periodic.stop()


async def test_stop_is_bounded_even_if_the_work_ignores_its_cancellation() -> None:
    running, release, released = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        running.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        released.set()

    periodic = Periodic("stubborn", Rhythm(10.0), stubborn)
    periodic.start()
    await running.wait()
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    with pytest.raises(TimeoutError, match="stubborn still running"):
        await periodic.stop(limit_s=0.01)
    release.set()
    await released.wait()
    await end(task)


async def test_end_cancels_all_tasks_and_raises_the_error_of_one() -> None:
    running = asyncio.Event()

    async def fail_when_cancelled() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("odd")

    failing = asyncio.ensure_future(fail_when_cancelled())
    waiting = asyncio.ensure_future(asyncio.Event().wait())
    await running.wait()
    with pytest.raises(ValueError, match="odd"):
        await end(None, failing, waiting)
    assert waiting.cancelled()
    await end()
