"""How the process keeps memory: what the C library and the garbage collector are told at start, and when free memory
returns to the system.

Blocks below LARGE_BLOCK lie in the heap. Freed ones leave it only if they are at its end, and a single small object
that was made meanwhile keeps megabytes behind it. So the heap is trimmed after large bodies, and whenever the process
has grown: SQLite's pages and sorted rows of a report are free after it, and lie before what requests made meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
from collections.abc import Callable

from spillway_router.aio.periodic import Periodic, Rhythm
from spillway_router.proxy.request.body_memory import BodyMemory

LARGE_BLOCK = 9 << 20
"""Bytes from which a block of memory is mapped by itself: more than the largest event of a stream. The pages of a fresh
mapping cost a millisecond per MB, so smaller blocks stay in the heap."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h
LOOK_S = 10.0
"""Seconds between two looks at whether the heap is to be trimmed."""
WORTH_BYTES = 4 << 20
"""Bytes of bodies that came and went, or by which the process grew, since the last time, from which trimming is worth
its milliseconds."""


def tune_allocator() -> None:
    """Have the C library keep one heap for all threads, and map large blocks one by one, so that their memory is free
    at once when they are.

    By default it makes a heap for each of the first threads, of which only one runs at a time here. And it raises the
    limit of large blocks with the first one that is freed: from then on the bodies of requests lie in the heap, where
    they leave holes, and where one that grows is copied each time.
    """
    with contextlib.suppress(OSError, AttributeError):  # a C library without mallopt
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, LARGE_BLOCK // 2)


def relieve_garbage_collector() -> None:
    """Exclude everything built so far from garbage collection, collect less often, and give free memory back.

    What was built so far lives as long as the process, and requests leave few cycles behind. With the default
    thresholds the collector took a tenth of the router's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    give_free_memory_back()


def give_free_memory_back() -> None:
    """Return all free pages of the heap to the system, which takes about a millisecond per 10 MB."""
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)


def own_resident_bytes() -> int:
    """Return the bytes of memory that this process takes besides its files; 0 where the system doesn't tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statistics:
            _, resident, shared = map(int, statistics.read().split()[:3])
    except OSError:
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


class HeapKeeper:
    """Trims the heap once large bodies have come and gone, or the process has grown. Call `start` inside the event
    loop."""

    def __init__(
        self,
        bodies: BodyMemory,
        trim: Callable[[], None] = give_free_memory_back,
        resident_bytes: Callable[[], int] = own_resident_bytes,
    ) -> None:
        self._bodies = bodies
        self._trim = trim
        self._resident_bytes = resident_bytes
        self._seen_bytes = self._trimmed_bytes = 0
        self._least_resident = resident_bytes()
        self._periodic = Periodic("heap", Rhythm(LOOK_S, wait_first=True), self.look)

    def start(self) -> None:
        """Start to look."""
        self._periodic.start()

    async def stop(self) -> None:
        """Stop to look."""
        await self._periodic.stop()

    async def look(self) -> None:
        """Trim the heap in a thread if it is worth it.

        Whoever wants memory waits meanwhile. So this is not done while large bodies come, which use it again anyway:
        none may have gone since the look before.
        """
        returned, before = self._bodies.returned_bytes, self._seen_bytes
        self._seen_bytes = returned
        if returned != before or self._bodies.held:
            return
        resident = self._resident_bytes()
        self._least_resident = min(self._least_resident, resident)
        if max(returned - self._trimmed_bytes, resident - self._least_resident) < WORTH_BYTES:
            return
        self._trimmed_bytes = returned
        await asyncio.to_thread(self._trim)
        self._least_resident = self._resident_bytes()
