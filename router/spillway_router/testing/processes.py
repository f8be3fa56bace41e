"""Real `spillway` processes for tests: started from a config file, heard line by line, never left behind."""

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
LISTENS = re.compile(r"listens on (http://[\w.:\[\]]+)")
START_LIMIT_S = 60.0
STOP_LIMIT_S = 90.0
PAUSE_S = 0.05
"""Between two looks at a condition; a deadline bounds them."""
Done = TypeVar("Done")


@dataclass(slots=True)
class SpillwayProcess:
    """A running process. `lines` is what it has said so far, stdout and stderr together."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _news: queue.Queue[str | None] = field(default_factory=queue.Queue)
    _reader: threading.Thread | None = None

    def listen(self) -> None:
        """Begin to read what it says."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._news.put(line.rstrip("\n"))
        self._news.put(None)

    def says(self, pattern: re.Pattern[str], limit_s: float = START_LIMIT_S) -> re.Match[str]:
        """The first match in what it says, from the start. Fails when it ends or `limit_s` is over before."""
        for line in self.lines:
            if (found := pattern.search(line)) is not None:
                return found
        deadline = time.monotonic() + limit_s
        while True:
            try:
                news = self._news.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not said within {limit_s} s: {pattern.pattern}\n{self.text}") from None
            if news is None:
                raise AssertionError(f"ended before it said {pattern.pattern}:\n{self.text}")
            self.lines.append(news)
            if (found := pattern.search(news)) is not None:
                return found

    @property
    def url(self) -> str:
        """The router's root, once it is announced."""
        return self.says(LISTENS).group(1)

    @property
    def text(self) -> str:
        """Everything it has said."""
        return "\n".join(self.lines)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end and for its last words; the exit status."""
        status = self.process.wait(STOP_LIMIT_S)
        assert self._reader is not None
        self._reader.join(STOP_LIMIT_S)
        while (news := self._news.get(timeout=STOP_LIMIT_S)) is not None:
            self.lines.append(news)
        self._news.put(None)
        return status


def family(pid: int) -> list[psutil.Process]:
    """A process's descendants."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def sessions(processes: list[psutil.Process]) -> set[int]:
    """The sessions they belong to: the engine's guard has one of its own, which everything it starts stays in."""
    return {os.getsid(process.pid) for process in processes}


def in_sessions(wanted: set[int]) -> list[psutil.Process]:
    """Living processes of these sessions, also those that began after a look at the descendants."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in wanted and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


def alive(processes: list[psutil.Process], limit_s: float) -> list[psutil.Process]:
    """Those that still live after at most `limit_s` seconds."""
    _, left = psutil.wait_procs(processes, timeout=limit_s)
    return [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def running(command: str, config: Path, env: Mapping[str, str] | None = None) -> Iterator[SpillwayProcess]:
    """`spillway COMMAND -c config`. At the end SIGTERM, and SIGKILL for whatever is left."""
    process = subprocess.Popen(
        [SPILLWAY, command, "-c", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "VLLM_CACHE_ROOT": str(CACHE), **(env or {})},
        cwd=config.parent,  # the engine's log goes to data/ there
        start_new_session=True,
    )
    found = SpillwayProcess(process)
    found.listen()
    children: list[psutil.Process] = []
    try:
        yield found
    finally:
        children = family(process.pid)
        try:
            found.end()
        finally:
            for left in alive(children, 1.0):
                left.kill()
            if process.poll() is None:
                process.kill()
                process.wait(STOP_LIMIT_S)
            assert process.stdout is not None
            process.stdout.close()


def write(folder: Path, settings: Mapping[str, Any]) -> Path:
    """A config file with these settings, a free port and a ledger in `folder`."""
    path = folder / "spillway.yaml"
    ledger = {"url": f"sqlite:///{folder / 'spillway.db'}"}
    path.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "ledger": ledger, **settings}, sort_keys=False))
    return path


def eventually(attempt: Callable[[], Done], until: type[Exception], limit_s: float = 10.0) -> Done:
    """The result of the first attempt that doesn't raise `until`. Routers look for changed keys once a second."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return attempt()
        except until:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(PAUSE_S)


def await_ready(url: str, backend: str | None = None, limit_s: float = START_LIMIT_S) -> None:
    """Wait until the router can answer, or until this backend of it can."""
    deadline = time.monotonic() + limit_s
    while True:
        state = httpx.get(f"{url}/ready", timeout=10, trust_env=False).json()
        if state["ready"] if backend is None else state["backends"][backend]["health"] == "up":
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not ready within {limit_s} s: {state}")
        threading.Event().wait(PAUSE_S)
