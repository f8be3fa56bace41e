"""When the demo is stopped half-way, nothing of it is left: no process, and so no open port, and no folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from demo.processes import ChildError, start

ROOT = Path(__file__).resolve().parents[2]
ENGINE_STARTS = "router at http"
LIMIT_S = 120.0

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_the_engine_starts(number: signal.Signals, tmp_path: Path) -> None:
    if not (ROOT / ".venv-vllm" / "bin" / "python").exists():
        pytest.skip("the engine's environment .venv-vllm is missing: run `make install`")
    command = [sys.executable, "-m", "demo", "--fast"]
    demo = start("demo", command, tmp_path / "log", {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}, ROOT)
    try:
        _until(demo.log, ENGINE_STARTS, demo.process)
        family = _with_engine(demo.process)
        demo.process.send_signal(number)
        assert demo.process.wait(LIMIT_S) == 130
        gone, alive = psutil.wait_procs(family, timeout=0)
        assert not alive, f"left over: {alive}"
        assert len(gone) == len(family)
    finally:
        demo.stop(1.0)
    assert "Interrupted" in demo.tail()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("spillway-demo-")]


def test_says_why_it_can_not_run(tmp_path: Path) -> None:
    """Without the product's command beside the interpreter, the demo ends with 2, says so, and leaves nothing."""
    home = tmp_path / "bin"
    home.mkdir()
    (home / "python").symlink_to(sys.executable)
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(
        [str(home / "python"), "-m", "demo", "--fast"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "can't start spillway up" in " ".join(ended.stdout.split())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("spillway-demo-")]


def _until(log: Path, words: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(int(LIMIT_S / 0.1)):
        if words in log.read_text():
            return
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise ChildError(f"{words!r} never came:\n{log.read_text()}")


def _with_engine(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return all descendants of the demo, once the engine is one of them."""
    for _ in range(int(LIMIT_S / 0.1)):
        family = psutil.Process(process.pid).children(recursive=True)
        if any("vllm" in " ".join(_words(member)) for member in family):
            return family
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise ChildError("the engine never started")


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
