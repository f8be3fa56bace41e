"""Memory of large blocks is free once they are, whatever was allocated between them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from spillway_router.proxy.request.body_memory import BodyMemory, HeldBody
from spillway_router.runtime.allocator import WORTH_BYTES, HeapKeeper

HOLES = """
import os, sys
from spillway_router.runtime.allocator import tune_allocator
if sys.argv[1] == "given back":
    tune_allocator()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
bytearray(31 << 20)  # its end raises the C library's own limit for blocks in the heap
before, kept = resident(), []
for _ in range(3):
    blocks = []
    for _ in range(8):
        blocks.append(bytearray(12 << 20))
        kept.append(bytearray(100_000))
    del blocks
print((resident() - before) >> 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the statistics are Linux's")
@pytest.mark.parametrize("how", ["given back", "as by default"])
def test_freed_blocks_leave_no_holes(how: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", HOLES, how], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    kept_mib = int(shown)
    # The second half shows that the measurement can fail.
    assert (kept_mib < 10) is (how == "given back")


PINNED = """
import os
from spillway_router.runtime.allocator import give_free_memory_back, tune_allocator
tune_allocator()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = resident()
pieces = [bytearray(30_000) for _ in range(400)]
last = bytearray(30_000)  # it keeps what lies before it in the heap
del pieces
pinned = resident() - before
give_free_memory_back()
print(pinned >> 20, (resident() - before) >> 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the statistics are Linux's")
def test_trimming_frees_what_one_small_object_keeps_in_the_heap() -> None:
    shown = subprocess.run([sys.executable, "-c", PINNED], capture_output=True, text=True, timeout=60, check=True)
    pinned_mib, left_mib = map(int, shown.stdout.split())
    assert pinned_mib >= 10
    assert left_mib <= 2


async def test_the_heap_is_trimmed_once_after_large_bodies_are_gone() -> None:
    bodies, trims = BodyMemory(), list[int]()
    keeper = HeapKeeper(bodies, lambda: trims.append(bodies.held), lambda: 0)
    body = HeldBody(bodies)
    assert body.grow("key", WORTH_BYTES, 1 << 30, 1 << 25) is None
    await keeper.look()
    assert not trims  # the body is still held
    body.give_back()
    await keeper.look()
    assert not trims  # another may come at once
    await keeper.look()
    await keeper.look()
    assert trims == [0]
    small = HeldBody(bodies)
    assert small.grow("key", WORTH_BYTES // 2, 1 << 30, 1 << 25) is None
    small.give_back()
    await keeper.look()
    await keeper.look()
    assert trims == [0]


async def test_the_heap_is_trimmed_when_the_process_has_grown() -> None:
    """The memory of a report is free after it, but stays in the heap, which thus grew with each larger report."""
    resident, trims = 100 << 20, list[int]()

    def trim() -> None:
        nonlocal resident
        trims.append(resident)
        resident -= 1 << 20

    keeper = HeapKeeper(BodyMemory(), trim, lambda: resident)
    await keeper.look()
    resident += WORTH_BYTES - 1
    await keeper.look()
    assert not trims
    resident += 1
    await keeper.look()
    assert trims == [(100 << 20) + WORTH_BYTES]
    await keeper.look()  # what could not be given back is in use
    assert len(trims) == 1
    resident -= 10 << 20
    await keeper.look()
    resident += WORTH_BYTES
    await keeper.look()
    assert len(trims) == 2
