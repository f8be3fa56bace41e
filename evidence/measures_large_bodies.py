"""What large bodies cost everybody else: the longest wait for /health while they arrive, and the memory they leave."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from loadtests.bench.processes import CACHE, BenchError, Command, free_port, running

from evidence.large_bodies import KINDS, REQUESTS, SIZE, Sent
from evidence.large_events import ROUNDS as EVENT_ROUNDS
from evidence.large_events import SIZES
from evidence.results import Measurement, not_measured
from evidence.served import SPILLWAY

HEALTH_WAIT, KEPT_MEMORY = "wire.health_wait_max", "wire.rss_after_large_bodies"
AT_ONCE = 2
"""Bodies of one kind that arrive at the same time."""
ROUNDS = 2
BODIES = 1000
SETTLE_S = 60.0
START_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Site:
    """A router behind which stands a server that takes any body, and the control beside it."""

    port: int
    control_port: int
    pid: int


@contextlib.contextmanager
def _site() -> Iterator[Site]:
    CACHE.mkdir(parents=True, exist_ok=True)
    port, upstream, events, control, failing = (free_port() for _ in range(5))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=CACHE, prefix="bodies-")))
        config = folder / "spillway.yaml"
        config.write_text(
            f"listen: 127.0.0.1:{port}\n"
            "backends:\n"
            f"  - {{name: up, provider: vllm, local: true, model: m, base_url: 'http://127.0.0.1:{upstream}/v1'}}\n"
            f"  - {{name: events, provider: vllm, local: true, model: m, base_url: 'http://127.0.0.1:{events}/v1'}}\n"
            f"  - {{name: failing, provider: vllm, local: true, model: m, base_url: 'http://127.0.0.1:{failing}/v1'}}\n"
            "aliases: {auto: {chain: [up]}, fail: {chain: [failing, up]}}\n"
            "privacy: {keywords: [password, ssn]}\n"
            "policy: {rules: [{name: code, when: {task: code, complexity: {at_least: 4}}, chain: [up]}]}\n"
            f"ledger: {{url: 'sqlite:///{folder}/ledger.db'}}\n"
        )
        for server in (upstream, control):
            bare = Command((sys.executable, "-m", "evidence.bare_server", str(server)))
            stack.enter_context(running(bare, None, folder / f"{server}.log"))
        stack.enter_context(
            running(
                Command((sys.executable, "-m", "evidence.bare_server", str(failing), "500")), None, folder / "500.log"
            )
        )
        streaming = Command((sys.executable, "-m", "evidence.large_events", str(events)))
        stack.enter_context(running(streaming, None, folder / "events.log"))
        log = folder / "router.log"
        argv = (str(SPILLWAY), "route", "--config", str(config))
        process = stack.enter_context(running(Command(argv), None, log))
        for each in (control, upstream, events, failing, port):
            _wait_for(each, process, log)
        yield Site(port, control, _listener(process.pid))


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        time.sleep(0.05)
    raise BenchError(f"port {port} did not open: {log.read_text(errors='replace')[-400:]}")


def _listener(pid: int) -> int:
    """Return the process that does the work: the one of the tree with the most memory."""
    root = psutil.Process(pid)
    tree = [root, *root.children(recursive=True)]
    return max(tree, key=lambda process: process.memory_info().rss).pid


def health_wait(
    say: Callable[[str], None], kinds: tuple[str, ...] = (*KINDS, *REQUESTS), size: int = SIZE
) -> dict[str, Measurement]:
    """Measure the longest wait for /health while two bodies of each kind arrive, beside that of a bare server.

    The details also have that wait while two streams with events of several MB pass.
    """
    try:
        with _site() as site:
            waits = _waits_by_kind(site, kinds, size, say)
    except (BenchError, OSError) as error:
        return {HEALTH_WAIT: not_measured(str(error))}
    streamed = waits.pop(EVENTS)
    worst = max(one["router"]["max_ms"] for one in waits.values())
    details = {
        "by_kind_ms": {name: one["router"]["max_ms"] for name, one in waits.items()},
        "bare_server_max_ms": max(one["control"]["max_ms"] for one in waits.values()),
        "idle_ms": waits.get(IDLE, {}).get("router", {}).get("max_ms"),
        "statuses": {name: one["statuses"] for name, one in waits.items() if name != IDLE},
        "streamed_events_max_ms": streamed["router"]["max_ms"],
        "streamed_events_control_max_ms": streamed["control"]["max_ms"],
        "streams": streamed["statuses"],
        "event_bytes": list(SIZES),
        "bytes": size,
        "at_once": AT_ONCE,
        "rounds": ROUNDS,
    }
    return {HEALTH_WAIT: Measurement(worst, int(sum(one["router"]["n"] for one in waits.values())), details)}


IDLE = "nothing"
EVENTS = "streamed events of 4 and 8 MB"
_SMALL = Sent("/v1/chat/completions", b'{"model":"auto","messages":[{"role":"user","content":"hi"}]}')
_ASKED = b'{"model":"events","stream":true,"messages":[{"role":"user","content":"hi"}]}'


def _waits_by_kind(
    site: Site, kinds: tuple[str, ...], size: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    command = (sys.executable, "-m", "evidence.health_prober", str(site.port), str(site.control_port))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as prober:
        try:
            _send(site.port, _request("one picture", size))  # the first of its kind loads code
            _reported(prober)
            time.sleep(2.0)
            waits = {IDLE: {**_named(site, _reported(prober)), "statuses": {}}}
            for name in kinds:
                rounds = [[_request(name, size) for _ in range(AT_ONCE)] for _ in range(ROUNDS)]
                _reported(prober)
                statuses = Counter(status for sent in rounds for status in _send_at_once(site.port, sent))
                waits[name] = {**_named(site, _reported(prober)), "statuses": dict(statuses)}
                say(f"  {name}: {waits[name]}")
            _reported(prober)
            read = [_stream(site.port) for _ in range(ROUNDS)]
            waits[EVENTS] = {**_named(site, _reported(prober)), "statuses": dict(Counter(read))}
            say(f"  {EVENTS}: {waits[EVENTS]}")
            return waits
        finally:
            prober.terminate()


def _reported(prober: subprocess.Popen[str]) -> dict[str, Any]:
    assert prober.stdin is not None
    assert prober.stdout is not None
    prober.stdin.write("\n")
    prober.stdin.flush()
    line = prober.stdout.readline()
    if not line:
        raise BenchError("the prober ended: a server closed its connection")
    report: dict[str, Any] = json.loads(line)
    return report


def _named(site: Site, report: dict[str, Any]) -> dict[str, Any]:
    return {"router": report[str(site.port)], "control": report[str(site.control_port)]}


def _request(kind: str, size: int) -> Sent:
    if kind in REQUESTS:
        return REQUESTS[kind](size)
    body = KINDS[kind](size)
    return Sent(next((path for field, path in _PATHS.items() if field in body[:60]), "/v1/chat/completions"), body)


def _send_at_once(port: int, requests: list[Sent]) -> list[str]:
    statuses: list[str] = []
    threads = [threading.Thread(target=lambda one=one: statuses.append(_send(port, one))) for one in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


_PATHS = {b'"input"': "/v1/embeddings", b'"prompt"': "/v1/completions"}


def _send(port: int, request: Sent) -> str:
    """Send one request on a connection of its own; return the status of its answer."""
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), 60.0) as connection:
        with contextlib.suppress(ConnectionError):  # a refusal may come before the body is read
            connection.sendall(head % (request.path.encode(), request.headers, len(request.body)))
            connection.sendall(request.body)
        try:
            return connection.recv(400).decode("latin-1").partition(" ")[2][:3]
        except OSError as error:
            return type(error).__name__


def _stream(port: int) -> str:
    """Read two streams at once; return whether both were whole."""
    ends: list[bool] = []
    threads = [threading.Thread(target=lambda: ends.append(_is_read_whole(port))) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "whole" if ends == [True] * AT_ONCE else "broken"


def _is_read_whole(port: int) -> bool:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    head += b"content-type: application/json\r\n"
    size, last = 0, b""
    with socket.create_connection(("127.0.0.1", port), 60.0) as connection:
        connection.sendall(head + b"content-length: %d\r\n\r\n" % len(_ASKED) + _ASKED)
        while data := connection.recv(1 << 20):
            size += len(data)
            last = (last + data)[-40:]
    return size > EVENT_ROUNDS * sum(SIZES) and b"[DONE]" in last


def kept_memory(say: Callable[[str], None], bodies: int = BODIES, settle_s: float = SETTLE_S) -> dict[str, Measurement]:
    """Measure by how much the router's memory is above its idle memory, a minute after a thousand large bodies."""
    shapes = [
        _request(name, size) for name in ("one picture", "one plain text") for size in (SIZE // 4, SIZE // 2, SIZE)
    ]
    try:
        with _site() as site:
            process = psutil.Process(site.pid)
            for _ in range(20):  # idle is a router that has served
                _send(site.port, _SMALL)
            time.sleep(5.0)
            idle = process.memory_info().rss
            peak, statuses = idle, Counter[str]()
            for number in range(bodies):
                statuses[_send(site.port, shapes[number % len(shapes)])] += 1
                if number % 50 == 0:
                    peak = max(peak, process.memory_info().rss)
                    say(f"  {number} bodies, {process.memory_info().rss / 2**20:.0f} MiB")
            time.sleep(settle_s)
            kept = process.memory_info().rss
    except (BenchError, OSError) as error:
        return {KEPT_MEMORY: not_measured(str(error))}
    details = {
        "idle_mib": round(idle / 2**20, 1),
        "seen_peak_mib": round(peak / 2**20, 1),
        "statuses": dict(statuses),
        "body_bytes": sorted({len(shape.body) for shape in shapes}),
        "cores": os.cpu_count(),
    }
    return {KEPT_MEMORY: Measurement(round((kept - idle) / 2**20, 1), bodies, details)}
