"""Timers finer than an event loop's millisecond, so that paced events leave one by one.

uvloop and asyncio round timers to milliseconds. Then 200 streams of 50 events a second would leave in groups of ten per
tick, a proxy would wake up once for ten events, and the figure would describe the stub's timer instead of the proxy. A
timerfd (Linux, like the rest of the benchmark) fires with microsecond precision.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import os
from collections.abc import Callable

_MONOTONIC = 1
_NON_BLOCKING = os.O_NONBLOCK
_ABSOLUTE = 1


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class Timer:
    """One entry of a pacer; `cancel()` works like that of asyncio's handles."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Pacer:
    """Calls back at times of CLOCK_MONOTONIC in seconds (as `time.monotonic()` returns them)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self._now = now
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._armed = float("inf")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_MONOTONIC, _NON_BLOCKING)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        loop.add_reader(self._fd, self._fire)

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        """Call `call` at `when`, or in the next turn of the loop if that time has passed."""
        timer = Timer(call)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        if when < self._armed:
            self._arm(when)
        return timer

    def close(self) -> None:
        os.close(self._fd)

    def _arm(self, when: float) -> None:
        self._armed = when
        # A value of zero would disarm the timer.
        nanoseconds = max(1, int(when * 1e9))
        value = _TimeSpec(nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000)
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(_TimerSpec(_TimeSpec(0, 0), value)), None)

    def _fire(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._armed = float("inf")
        heap = self._heap
        now = self._now()
        while heap and heap[0][0] <= now:
            call = heapq.heappop(heap)[2].call
            if call is not None:
                call()
        if heap and heap[0][0] < self._armed:
            self._arm(heap[0][0])
