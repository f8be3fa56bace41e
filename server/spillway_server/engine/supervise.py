"""Run one engine until it is stopped: the I/O around `lifecycle`.

One loop takes events from a queue and carries out the actions of the state machine. The events come from small tasks:
one reads the log and then reports the exit, one probes for the first token, one watches metrics, one waits for the
stop. The engine runs under `guard.py`, which outlives neither the engine nor this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from spillway_server.engine import diagnosis, events, guard, lifecycle
from spillway_server.engine.client import EngineAddress, EngineClient
from spillway_server.engine.lifecycle import Action, Event, Lifecycle, Rules, State
from spillway_server.engine.liveness import ProgressWatch, observe
from spillway_server.engine.log import EngineLog, phase_of
from spillway_server.obstacle import Obstacle

log = logging.getLogger("spillway.engine")

_LOG_LINE_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run and how to reach it: the command, its whole environment, its address and its log file."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(repr=False)
    address: EngineAddress
    log_path: Path


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often the supervisor polls, and how long an engine may make no progress, in seconds."""

    probe_s: float = 0.25
    drain_s: float = 0.1
    watch_s: float = 5.0
    stall_after_s: float = 120.0
    prove_after_s: float = 60.0
    """An engine that has counted no token for so long is asked for one."""
    prove_within_s: float = 90.0
    """How long that token may take."""


class Supervisor:
    """Keep one engine alive until `stop` is set or it fails too often; `on_event` receives everything that happens.

    `clock` (monotonic seconds) and `chance` are arguments, so that a test can control them.
    """

    def __init__(
        self,
        launch: Launch,
        on_event: Callable[[events.EngineEvent], None],
        *,
        rules: Rules = Rules(),  # noqa: B008 - frozen
        intervals: Intervals = Intervals(),
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._launch = launch
        self._hear = on_event
        self._rules = rules
        self._intervals = intervals
        self._clock = clock
        self._chance = chance
        # A few tasks send one event at a time each, so that the limit can't be reached in practice.
        self._queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue(maxsize=100)
        self._life = Lifecycle(State.STOPPED)
        self._launches = 0
        self._launched_at = 0.0
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = EngineLog(launch.log_path)
        self._client = EngineClient(launch.address)
        self._last_diagnosis: Obstacle | None = None

    async def run(self, stop: asyncio.Event) -> Obstacle | None:
        """Supervise until the end. Returns None after a requested stop, else why the engine was given up."""
        with self._log:
            async with self._client:
                try:
                    return await self._loop(stop)
                finally:
                    await asyncio.shield(self._clear())

    def _on_event(self, event: events.EngineEvent) -> None:
        """Tell what happened. Whoever hears it may fail, as a terminal that was closed does; the engine goes on."""
        try:
            self._hear(event)
        except Exception:
            log.exception("an event of the engine could not be reported: %s", type(event).__name__)

    async def _loop(self, stop: asyncio.Event) -> Obstacle | None:
        stopper = asyncio.create_task(self._await_stop(stop))
        try:
            life, actions = lifecycle.begin(self._clock(), self._rules)
            await self._apply(life, actions)
            while not self._life.is_final:
                number, event = await self._next_event()
                # An event of an earlier process says nothing about this one; number 0 marks the supervisor's own
                # events.
                if number in (0, self._launches):
                    life, actions = lifecycle.step(self._life, event, self._clock(), self._rules, self._chance())
                    self._record_reason(event)
                    await self._apply(life, actions)
        finally:
            stopper.cancel()
        if self._life.state is State.STOPPED:
            self._on_event(events.EngineStopped())
            return None
        return self._last_diagnosis

    async def _next_event(self) -> tuple[int, Event]:
        deadline = self._life.deadline_s
        timeout_s = None if deadline is None else max(0.0, deadline - self._clock())
        try:
            return await asyncio.wait_for(self._queue.get(), timeout_s)
        except TimeoutError:
            return 0, lifecycle.Tick()

    def _record_reason(self, event: Event) -> None:
        """Record why the engine goes down, before the state changes."""
        if isinstance(event, lifecycle.Stalled):
            self._last_diagnosis = diagnosis.HUNG
        elif isinstance(event, lifecycle.Tick) and self._life.state is State.STARTING:
            self._last_diagnosis = diagnosis.TOO_SLOW

    async def _apply(self, life: Lifecycle, actions: tuple[Action, ...]) -> None:
        before, self._life = self._life, life
        for action in actions:
            match action:
                case Action.LAUNCH:
                    await self._start()
                case Action.ANNOUNCE:
                    self._announce()
                case Action.WITHDRAW:
                    self._on_event(events.EngineUnready(f"the engine is {life.state}"))
                case Action.TERMINATE:
                    self._signal(signal.SIGTERM)
                case Action.KILL:
                    self._signal(signal.SIGKILL)
                case Action.GIVE_UP:
                    self._on_event(events.EngineFailed(self._last_diagnosis or diagnosis.TOO_SLOW, self._log.tail))
        if life.state is State.DRAINING and before.state is not State.DRAINING:
            self._spawn(self._drain)
        if life.state is State.BACKOFF and before.state is not State.BACKOFF:
            wait = (life.deadline_s or life.since_s) - life.since_s
            self._on_event(events.EngineRestarting(wait, life.failures))

    async def _start(self) -> None:
        self._launches += 1
        self._launched_at = self._clock()
        _remove_stale_socket(self._launch.address.uds)
        self._on_event(events.EngineStarting(self._life.failures + 1, self._launch.argv, str(self._launch.log_path)))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", guard.__file__, str(self._rules.grace_s), *self._launch.argv),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._launch.env,
            limit=_LOG_LINE_LIMIT,
            start_new_session=True,
        )
        self._spawn(partial(self._follow, self._process, self._launches))
        self._spawn(partial(self._await_ready, self._launches))

    def _announce(self) -> None:
        address, elapsed = self._launch.address, self._clock() - self._launched_at
        self._on_event(
            events.EngineReady(
                base_url=address.base_url, served_model=address.served_model, elapsed_s=elapsed, uds=address.uds
            )
        )
        self._spawn(partial(self._watch, self._launches))

    def _spawn(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = asyncio.create_task(self._carry_out(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do the work, and again after a moment if it fails: without it nobody would notice how the engine ends."""
        while True:
            try:
                await work()
                return
            except Exception:
                log.exception("the supervision of the engine failed and is repeated")
            await asyncio.sleep(self._intervals.watch_s)

    async def _await_stop(self, stop: asyncio.Event) -> None:
        await stop.wait()
        await self._queue.put((0, lifecycle.StopRequested()))

    async def _follow(self, process: asyncio.subprocess.Process, number: int) -> None:
        """Write the log until it ends, then report the exit."""
        assert process.stdout is not None
        reported = ""
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue  # asyncio drops a line over the limit and continues with the next one
            if not line:
                break
            phase = phase_of(self._log.write(line))
            if phase and phase != reported and self._life.state is State.STARTING:
                reported = phase
                self._on_event(events.EngineProgress(phase, self._clock() - self._launched_at))
        status = await process.wait()
        permanent = False
        if self._life.state in (State.STARTING, State.READY):
            cause = diagnosis.diagnose(status, self._log.tail)
            self._last_diagnosis, permanent = cause.obstacle, cause.permanent
            self._on_event(events.EngineExited(status, self._last_diagnosis, self._log.tail))
        await self._queue.put((number, lifecycle.Exited(permanent)))

    async def _await_ready(self, number: int) -> None:
        while number == self._launches and self._life.state is State.STARTING:
            if await self._client.generates():
                await self._queue.put((number, lifecycle.ProbeOk()))
                return
            await asyncio.sleep(self._intervals.probe_s)

    async def _watch(self, number: int) -> None:
        """Report a stall: of the counters while there is work, of the metrics, or of a token that was requested."""
        watch, heard_s, limits = ProgressWatch(since_s=self._clock()), self._clock(), self._intervals
        tokens, proved_s = -1.0, self._clock()
        while number == self._launches and self._life.state is State.READY:
            activity = await self._client.activity()
            now_s = self._clock()
            stalled = activity is None and now_s - heard_s >= limits.stall_after_s
            if activity is not None:
                heard_s = now_s
                watch, stalled = observe(watch, activity, now_s, limits.stall_after_s)
                if activity.tokens != tokens:
                    tokens, proved_s = activity.tokens, now_s
            if not stalled and now_s - proved_s >= limits.prove_after_s:
                stalled, proved_s = not await self._proves_itself(), self._clock()
            if stalled:
                await self._queue.put((number, lifecycle.Stalled()))
                return
            await asyncio.sleep(limits.watch_s)

    async def _proves_itself(self) -> bool:
        """Return whether the engine answers a request for a token in time. What has ended is reported by `_follow`."""
        try:
            async with asyncio.timeout(self._intervals.prove_within_s):
                await self._client.generates()
        except TimeoutError:
            return False
        return True

    async def _drain(self) -> None:
        reported: int | None = -1  # only changes are reported
        while self._life.state is State.DRAINING:
            activity = await self._client.activity()
            count = None if activity is None else activity.running + activity.waiting
            if count != reported:
                reported = count
                self._on_event(events.EngineDraining(count))
            if count is not None:
                await self._queue.put((0, lifecycle.InFlight(count)))
            await asyncio.sleep(self._intervals.drain_s)

    def _signal(self, number: signal.Signals) -> None:
        """Send SIGTERM to the guard, which passes it on, or SIGKILL to the guard's whole process group."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)

    async def _clear(self) -> None:
        """Leave no task and no process behind, however the loop ended."""
        process = self._process
        if process is not None and process.returncode is None:
            # After a cancellation, the exit that follows is intended and must not be reported as a crash.
            self._life = Lifecycle(State.TERMINATING)
            self._signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), self._rules.grace_s)
            except TimeoutError:
                self._signal(signal.SIGKILL)
                await process.wait()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _remove_stale_socket(uds: str | None) -> None:
    # A socket file left by a killed engine would make the new one fail to bind.
    if uds and Path(uds).is_socket():
        Path(uds).unlink(missing_ok=True)
