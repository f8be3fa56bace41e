"""What a newcomer waits for: from a clone to the first answer, by the commands of docs/start.md."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from demo.product import free_ports

from evidence.results import Measurement, not_measured
from evidence.site.build import ROOT

FIRST_ANSWER = "newcomer.first_answer"
_LIMIT_S = 900.0
_STOP_S = 30.0
_READY = "engine ready"
_FIRST = (".venv/bin/spillway", "extract", "docs/examples/report.txt")
_VALUE = "E178272"
"""A value of the document that the first command of the page reads."""


def first_answer(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Clone, `make up`, wait for the engine, and read the document of the page. Ports are free ones, and not the usual
    ones, because others may have them on this machine."""
    listen, engine = free_ports(2)
    configuration = {
        "listen": f"127.0.0.1:{listen}",
        "gpu": {"price_per_hour": "0"},
        "backends": [
            {"name": "local", "provider": "vllm", "model": "demo", "base_url": f"http://127.0.0.1:{engine}/v1"}
        ],
    }
    environment = {**_passed_on(), "SPILLWAY_YAML": json.dumps(configuration)}
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "spillway"
        started = time.monotonic()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True, timeout=_LIMIT_S)
        with _up(clone, environment) as lines:
            installed_s = _await(lines, started, "listens on", say)
            ready_s = None if installed_s is None else _await(lines, started, _READY, say)
            if ready_s is None:
                return {FIRST_ANSWER: not_measured(f"the engine was not ready after {_LIMIT_S:.0f} s")}
            done = subprocess.run(
                _FIRST, cwd=clone, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
            )
            took_s = time.monotonic() - started
    if done.returncode or _VALUE not in done.stdout:
        return {FIRST_ANSWER: not_measured(f"{' '.join(_FIRST)}: {(done.stdout + done.stderr).strip()[-300:]}")}
    details = {"router_after_s": round(installed_s or 0, 1), "engine_after_s": round(ready_s, 1)}
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    return {FIRST_ANSWER: Measurement(round(took_s, 1), 1, {**details, "load_of_the_machine": load})}


def _passed_on() -> dict[str, str]:
    """Return the environment of a newcomer's shell: where programs are, and how pip reaches its packages."""
    names = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "TORCH_CPU_INDEX")
    return {name: text for name, text in os.environ.items() if name in names or name.startswith("PIP_")}


@contextmanager
def _up(clone: Path, environment: Mapping[str, str]) -> Iterator[queue.Queue[str | None]]:
    """Run `make up` while the block runs; its lines come through the queue, None after the last."""
    process = subprocess.Popen(
        ["make", "up"],
        cwd=clone,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line.rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        yield lines
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(_STOP_S)


def _await(lines: queue.Queue[str | None], started: float, words: str, say: Callable[[str], None]) -> float | None:
    """Return after how many seconds a line had these words; None if none had in time."""
    while True:
        try:
            line = lines.get(timeout=max(0.0, started + _LIMIT_S - time.monotonic()))
        except queue.Empty:
            return None
        if line is None:
            return None
        if words in line:
            after_s = time.monotonic() - started
            say(f"  {after_s:.0f} s: {line}")
            return after_s
