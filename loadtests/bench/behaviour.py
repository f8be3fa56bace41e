"""How a router behaves towards clients that leave, clients that read slowly, and many streams at a time.

    python -m loadtests.bench.behaviour --system spillway

When a client leaves, the upstream pays: a GPU keeps generating, a cloud keeps billing. So the figure is the time from
the client's close() to the moment at which the upstream sees its connection closed, on the clock that both share.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import Console

from loadtests.bench import cpu
from loadtests.bench.directive import Directive
from loadtests.bench.load import LoadTarget
from loadtests.bench.run import LoadProcess
from loadtests.bench.scenarios import PACED200, chat_body
from loadtests.bench.start import RunningSystem, started
from loadtests.bench.systems import SYSTEMS

LIMIT_S = 20.0
# Longer than any close should take, yet short enough that 200 upstreams which never close end within minutes.
WORK_MS = 3000
SLOW_S = 2.5
BIG = Directive(events=4000, event_bytes=8192)
# Warms up every code path, but is too small to leave free memory in the allocator that would hide a slow reader.
SMALL = Directive(events=64, event_bytes=8192)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WayOfLeaving:
    """One way of leaving. `before_answer`: the client leaves while the upstream still works on the first byte."""

    name: str
    stream: bool
    before_answer: bool

    def directive(self, tag: str) -> Directive:
        if self.before_answer:
            return Directive(delay_ms=WORK_MS, tag=tag)
        return Directive(pace_ms=WORK_MS, tag=tag)


LEAVES = (
    WayOfLeaving("mid-stream", stream=True, before_answer=False),
    WayOfLeaving("waiting for a whole answer", stream=False, before_answer=True),
    WayOfLeaving("waiting for a stream's first byte", stream=True, before_answer=True),
)


@dataclass(frozen=True, slots=True)
class LeaveTrial:
    """One trial: milliseconds until the upstream was closed, or, with `ran_to_end`, until it had done all its work."""

    how: str
    ms: float
    ran_to_end: bool


def p99(values: Sequence[float]) -> float:
    """Return the smallest value that at least 99% of the values don't exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * 0.99) - 1]


@contextlib.contextmanager
def _client(system: RunningSystem, directive: Directive, *, stream: bool) -> Iterator[socket.socket]:
    content = chat_body(directive, "demo", stream=stream)
    with socket.create_connection(("127.0.0.1", system.port), timeout=LIMIT_S) as client:
        client.sendall(LoadTarget(system.port, system.key).head(len(content)) + content)
        yield client


def disconnects(system: RunningSystem, trials: int, say: Say) -> list[LeaveTrial]:
    """Let `trials` clients leave, spread evenly over the ways of leaving.

    Raises:
        httpx.HTTPError: the stub reports that a request never reached it.
    """
    closed: list[LeaveTrial] = []
    with httpx.Client(base_url=f"http://127.0.0.1:{system.upstream_port}", timeout=LIMIT_S, trust_env=False) as stub:
        for number in range(trials):
            closed.append(_leave_once(system, LEAVES[number % len(LEAVES)], f"leave{number}", stub))
            if (number + 1) % 50 == 0:
                say(f"  {number + 1} of {trials} clients left")
    return closed


def _leave_once(system: RunningSystem, leave: WayOfLeaving, tag: str, stub: httpx.Client) -> LeaveTrial:
    with _client(system, leave.directive(tag), stream=leave.stream) as client:
        if leave.before_answer:
            stub.get("/_stub/wait", params={"tag": tag, "for": "received"}).raise_for_status()
        else:
            _read_until(client, b'"content":')
        left_ns = time.monotonic_ns()
    record = stub.get("/_stub/wait", params={"tag": tag, "for": "over"}).raise_for_status().json()
    ended_ns = record["closed_ns"] or record["completed_ns"]
    return LeaveTrial(leave.name, (ended_ns - left_ns) / 1e6, ran_to_end=not record["closed_ns"])


def _read_until(client: socket.socket, marker: bytes) -> None:
    seen = b""
    while marker not in seen:
        data = client.recv(65536)
        if not data:
            raise ConnectionError(f"the answer ended early: {seen[-200:]!r}")
        seen += data


@dataclass(frozen=True, slots=True)
class SlowReaderTrial:
    """One client that paused its reading. `got_all`: the answer was complete when it read on."""

    growth_mib: float
    answer_mib: float
    got_all: bool


def slow_readers(system: RunningSystem, trials: int, say: Say) -> list[SlowReaderTrial]:
    """Measure how resident memory grows over `SLOW_S` seconds while one client reads nothing of a 33 MB stream."""
    for _ in range(8):
        _slow_once(system, SMALL, 0.0)
    readers = []
    for number in range(trials):
        readers.append(_slow_once(system, BIG, SLOW_S))
        say(f"  slow reader {number + 1} of {trials}: {readers[-1].growth_mib:+.2f} MiB")
    return readers


def _slow_once(system: RunningSystem, directive: Directive, pause_s: float) -> SlowReaderTrial:
    before = cpu.use(system.pid).rss_mib
    most = before
    with _client(system, directive, stream=True) as client:
        until = time.monotonic() + pause_s
        while time.monotonic() < until:
            time.sleep(0.05)
            most = max(most, cpu.use(system.pid).rss_mib)
        size, tail = 0, b""
        while b"data: [DONE]" not in tail:
            data = client.recv(1 << 18)
            if not data:
                break
            size += len(data)
            tail = (tail + data)[-4096:]
    whole = b"data: [DONE]" in tail and size > directive.events * directive.event_bytes
    return SlowReaderTrial(most - before, size / (1 << 20), whole)


def held_streams(system: RunningSystem) -> dict[str, Any]:
    """Run 200 streams at a time for a few seconds; return how many were complete and the most the
    upstream saw at once.
    """
    load = LoadProcess(system.port, system.key, system.cores.load, quick=True)
    with httpx.Client(base_url=f"http://127.0.0.1:{system.upstream_port}", timeout=LIMIT_S, trust_env=False) as stub:
        stub.post("/_stub/reset").raise_for_status()
        seen = load.run(PACED200)
        peak = stub.get("/_stub/state").raise_for_status().json()["open_peak"]
    held = not seen["errors"] and seen["completed"] >= 200 and peak >= 200
    return {"held": held, "completed": seen["completed"], "errors": seen["errors"], "open_peak_upstream": peak}


def summary(closed: Sequence[LeaveTrial]) -> dict[str, Any]:
    """Summarise the trials per way of leaving: n, median, p99, worst (ms), and how many upstreams worked to the end."""
    figures: dict[str, Any] = {}
    for leave in LEAVES:
        mine = [one for one in closed if one.how == leave.name]
        values = sorted(one.ms for one in mine)
        if values:
            figures[leave.name] = {
                "n": len(values),
                "median_ms": round(values[len(values) // 2], 2),
                "p99_ms": round(p99(values), 2),
                "worst_ms": round(values[-1], 2),
                "ran_to_end": sum(one.ran_to_end for one in mine),
            }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Behaviour of a router towards difficult clients.")
    parser.add_argument("--system", choices=[name for name in SYSTEMS if name != "bare"], default="spillway")
    parser.add_argument("--trials", type=int, default=210, help="clients that leave (default 210)")
    parser.add_argument("--slow", type=int, default=5, help="slow readers (default 5)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end every started process, as Ctrl-C does
    console = Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, highlight=False, style="dim")

    system = SYSTEMS[options.system]
    say(f"{system.name} {system.prepare()}")
    with started(system) as running:
        result = {
            "held_streams": held_streams(running),
            "disconnect": summary(disconnects(running, options.trials, say)),
            "slow_reader_growth_mib": [round(one.growth_mib, 2) for one in slow_readers(running, options.slow, say)],
        }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
