"""Starts, pins, awaits and stops the processes of a benchmark."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from loadtests.bench.directive import Directive
from loadtests.bench.scenarios import chat_body

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "bench"
_PIN = "import os,sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execvp(sys.argv[2], sys.argv[2:])"


class BenchError(Exception):
    """A benchmark could not continue; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores that system and load run on. None: no pinning, since fewer than two cores may be used."""

    system: int | None
    load: int | None

    @classmethod
    def of_this_machine(cls) -> Cores:
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[1]) if len(cores) > 1 else cls(None, None)


@dataclass(frozen=True, slots=True)
class Command:
    """How a process is started. `key` is the bearer token that its clients must send."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    key: str = ""


def free_port() -> int:
    """Return a port of 127.0.0.1 that was free a moment ago, for programs that can't report a port of their choice."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pinned(argv: tuple[str, ...], core: int | None) -> list[str]:
    """Return `argv`, changed so that the process and its children stay on one core."""
    return list(argv) if core is None else [sys.executable, "-c", _PIN, str(core), *argv]


@contextlib.contextmanager
def running(command: Command, core: int | None, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process while the block lasts; then end its whole process group (SIGTERM, after 5 s SIGKILL)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            pinned(command.argv, core),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **command.env},
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def stub_upstream(cores: Cores, scratch: Path) -> Iterator[int]:
    """Run the stub upstream on the load's core and yield its port."""
    log = scratch / "upstream.log"
    command = Command((sys.executable, "-m", "loadtests.bench.upstream"))
    with running(command, cores.load, log) as process:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and process.poll() is None:
            for line in log.read_text(errors="replace").splitlines():
                if line.startswith('{"port"'):
                    yield int(json.loads(line)["port"])
                    return
            time.sleep(0.05)
        raise BenchError(f"the stub upstream did not start; see {log}")


def wait_until_it_answers(
    process: subprocess.Popen[bytes], port: int, key: str, log: Path, limit_s: float = 90
) -> None:
    """Return when a chat request gets a complete answer.

    Raises:
        BenchError: the process ended, or there was no answer within `limit_s` seconds.
    """
    deadline = time.monotonic() + limit_s
    content = chat_body(Directive(), "demo", stream=False)
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    last = "no connection"
    with httpx.Client(timeout=10, trust_env=False) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise BenchError(f"it ended with status {process.returncode}: {_tail(log)}")
            try:
                answer = client.post(f"http://127.0.0.1:{port}/v1/chat/completions", content=content, headers=headers)
            except httpx.HTTPError as error:
                last = type(error).__name__
            else:
                if answer.status_code == 200:
                    return
                last = f"status {answer.status_code}: {answer.text[:200]}"
            time.sleep(0.2)
    raise BenchError(f"no answer within {limit_s:.0f} s ({last}); log: {_tail(log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return " | ".join(lines[-3:])[-400:]
