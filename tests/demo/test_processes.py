"""Children of the demo end with it, and so do their own children."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
from demo.processes import ChildError, start

# Both print a line when they are ready; the grandchild under PARENT ignores SIGTERM.
POLITE = (
    "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
)
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('child up', flush=True); signal.pause()"
PARENT = (
    "import signal, subprocess, sys;"
    f"subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True);"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); signal.pause()"
)


def wait_for(log: Path, word: str, pid: int) -> None:
    process = psutil.Process(pid)
    for _ in range(600):
        if word in log.read_text():
            return
        try:
            process.wait(0.05)
        except psutil.TimeoutExpired:
            continue
        break
    raise AssertionError(f"{word!r} never came: {log.read_text()}")


def test_polite_child_ends_with_its_own_status(tmp_path: Path) -> None:
    child = start("polite", [sys.executable, "-c", POLITE], tmp_path / "log", {}, tmp_path)
    wait_for(child.log, "up", child.process.pid)
    assert child.stop(20.0) == (0, ())
    assert child.stop(20.0) == (0, ())


def test_stubborn_grandchild_in_its_own_session_is_killed_and_named(tmp_path: Path) -> None:
    child = start("parent", [sys.executable, "-c", PARENT], tmp_path / "log", {}, tmp_path)
    wait_for(child.log, "child up", child.process.pid)
    family = psutil.Process(child.process.pid).children(recursive=True)
    assert len(family) == 1
    status, killed = child.stop(20.0)
    assert status == 3
    assert len(killed) == 1
    assert not family[0].is_running()


def test_child_that_ended_is_reported_with_its_last_words(tmp_path: Path) -> None:
    child = start(
        "short", [sys.executable, "-c", "print('so long'); raise SystemExit(7)"], tmp_path / "log", {}, tmp_path
    )
    child.process.wait(20)
    with pytest.raises(ChildError, match=r"exit status 7(?s:.)*so long"):
        child.check()


def test_missing_program_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="can't start nothing"):
        start("nothing", [str(tmp_path / "no-such")], tmp_path / "log", {}, tmp_path)
