"""Real `spillway` processes for tests: started from a config file, read line by line, and always ended."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import yaml

ROOT = Path(__file__).resolve().parents[3]
SPILLWAY = str(Path(sys.executable).parent / "spillway")
CACHE = ROOT / ".cache" / "vllm"
LISTENS = re.compile(r"listens on (https?://[\w.:\[\]]+)")
START_LIMIT_S = 60.0
STOP_LIMIT_S = 180.0
PAUSE_S = 0.05
"""The pause between two checks of a condition, in seconds; a deadline bounds the checks."""
Result = TypeVar("Result")


@dataclass(slots=True)
class SpillwayProcess:
    """A running process. `lines` has its output so far, stdout and stderr together."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _news: queue.Queue[str | None] = field(default_factory=queue.Queue)
    _reader: threading.Thread | None = None

    def listen(self) -> None:
        """Start reading the output."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._news.put(line.rstrip("\n"))
        self._news.put(None)

    def says(self, pattern: re.Pattern[str], limit_s: float = START_LIMIT_S) -> re.Match[str]:
        """Return the first match in the output, from its start.

        Raises:
            AssertionError: the process ended, or `limit_s` seconds passed before.
        """
        for line in self.lines:
            if (match := pattern.search(line)) is not None:
                return match
        deadline = time.monotonic() + limit_s
        while True:
            try:
                news = self._news.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not in the output within {limit_s} s: {pattern.pattern}\n{self.text}") from None
            if news is None:
                raise AssertionError(f"ended before its output had {pattern.pattern}:\n{self.text}")
            self.lines.append(news)
            if (match := pattern.search(news)) is not None:
                return match

    @property
    def url(self) -> str:
        """Return the router's root URL, once it is announced."""
        return self.says(LISTENS).group(1)

    @property
    def text(self) -> str:
        """Return the whole output so far."""
        return "\n".join(self.lines)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end and the last output; return the exit status."""
        status = self.process.wait(STOP_LIMIT_S)
        assert self._reader is not None
        self._reader.join(STOP_LIMIT_S)
        while (news := self._news.get(timeout=STOP_LIMIT_S)) is not None:
            self.lines.append(news)
        self._news.put(None)
        return status


def family(pid: int) -> list[psutil.Process]:
    """Return a process's descendants."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def sessions(processes: list[psutil.Process]) -> set[int]:
    """Return the sessions of these processes. The engine's guard has a session of its own, in which all its children
    stay.
    """
    return {os.getsid(process.pid) for process in processes}


def in_sessions(session_ids: set[int]) -> list[psutil.Process]:
    """Return the living processes of these sessions, including those that started after a look at the descendants."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in session_ids and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return members


def alive(processes: list[psutil.Process], limit_s: float) -> list[psutil.Process]:
    """Return the processes that still live after at most `limit_s` seconds."""
    _, left = psutil.wait_procs(processes, timeout=limit_s)
    return [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def running(command: str, config: Path, env: Mapping[str, str] | None = None) -> Iterator[SpillwayProcess]:
    """Run `spillway COMMAND -c config`. At the end send SIGTERM, and SIGKILL to whatever is left."""
    process = subprocess.Popen(
        [SPILLWAY, command, "-c", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "VLLM_CACHE_ROOT": str(CACHE), **(env or {})},
        cwd=config.parent,  # the engine's log goes to data/ in this folder
        start_new_session=True,
    )
    spillway = SpillwayProcess(process)
    spillway.listen()
    children: list[psutil.Process] = []
    try:
        yield spillway
    finally:
        children = family(process.pid)
        try:
            spillway.end()
        finally:
            for left in alive(children, 1.0):
                left.kill()
            if process.poll() is None:
                process.kill()
                process.wait(STOP_LIMIT_S)
            assert process.stdout is not None
            process.stdout.close()


def write(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Write a config file with these settings, a free port and a ledger in `folder`."""
    path = folder / "spillway.yaml"
    ledger = {"url": f"sqlite:///{folder / 'spillway.db'}"}
    path.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "ledger": ledger, **settings}, sort_keys=False))
    return path


def eventually(attempt: Callable[[], Result], until: type[Exception], limit_s: float = 10.0) -> Result:
    """Return the result of the first attempt that doesn't raise `until`. Routers look for changed
    keys once a second.
    """
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return attempt()
        except until:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(PAUSE_S)


def await_ready(url: str, backend: str | None = None, limit_s: float = START_LIMIT_S) -> None:
    """Wait until the router, or this backend of it, can answer."""
    deadline = time.monotonic() + limit_s
    while True:
        state = httpx.get(f"{url}/ready", timeout=10, trust_env=False).json()
        if state["ready"] if backend is None else state["backends"][backend]["health"] == "up":
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not ready within {limit_s} s: {state}")
        threading.Event().wait(PAUSE_S)
