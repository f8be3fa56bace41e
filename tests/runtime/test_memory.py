"""Memory of large blocks is free once they are, whatever was allocated between them."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOLES = """
import os, sys
from spillway_router.runtime import serve
if sys.argv[1] == "given back":
    serve._tune_allocator()
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
