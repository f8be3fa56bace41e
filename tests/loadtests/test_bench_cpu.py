"""The CPU counter counts its own process, its children and dead children, and no other process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from loadtests.bench import cpu

# Burns CPU for each line, in itself, in a live child, or in a child that it waits for; prints a line when done.
_BURNER = """
import os, subprocess, sys, time
def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until: pass
if sys.argv[1:] == ["child"]:
    burn(0.3); print("done", flush=True); sys.stdin.read(); sys.exit()
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "self": burn(0.3)
    if line.strip() == "child":
        child = subprocess.Popen([sys.executable, __file__, "child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
    if line.strip() == "reap": child.stdin.close(); child.wait()
    print("ok", flush=True)
"""


@pytest.fixture
def burner(tmp_path: object) -> Iterator[subprocess.Popen[str]]:
    script = os.path.join(str(tmp_path), "burner.py")
    with open(script, "w", encoding="utf-8") as file:
        file.write(_BURNER)
    process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate(timeout=10)


def _send_word(process: subprocess.Popen[str], word: str) -> float:
    """Return the CPU microseconds that the tree used for one word."""
    assert process.stdin is not None
    assert process.stdout is not None
    before = cpu.use(process.pid).cpu_us
    process.stdin.write(word + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ok\n"
    return cpu.use(process.pid).cpu_us - before


def test_it_counts_the_processes_own_cpu(burner: subprocess.Popen[str]) -> None:
    assert 290_000 < _send_word(burner, "self") < 450_000


def test_it_counts_a_live_child_and_keeps_its_cpu_when_it_is_gone(burner: subprocess.Popen[str]) -> None:
    with_child = _send_word(burner, "child")
    assert with_child > 290_000
    assert cpu.use(burner.pid).processes == 2
    # The reaped child's time moves from its own clock to its parent's account: 10 ms ticks, twice rounded down.
    assert _send_word(burner, "reap") > -25_000
    assert cpu.use(burner.pid).processes == 1


def test_waiting_and_the_watchers_own_work_cost_nothing(burner: subprocess.Popen[str]) -> None:
    before = cpu.use(burner.pid).cpu_us
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert cpu.use(burner.pid).cpu_us - before < 10_000


def test_it_shows_resident_memory_and_says_when_the_process_is_gone() -> None:
    assert 1 < cpu.use(os.getpid()).rss_mib < 100_000
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait(timeout=20)
    with pytest.raises(ProcessLookupError, match="gone"):
        cpu.use(gone.pid)
