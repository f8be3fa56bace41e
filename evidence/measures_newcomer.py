"""What a newcomer waits for: from a clone to the first answer, and to a Money page with a spill, by the commands of
docs/start.md."""

from __future__ import annotations

import asyncio
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from demo.product import free_ports

from evidence.results import Measurement, not_measured
from evidence.site.build import ROOT
from spillway_router.dashboard.money import REASONS
from spillway_router.testing import FakeEngine
from spillway_router.testing.harness import serving

FIRST_ANSWER = "newcomer.first_answer"
MONEY_PAGE = "newcomer.money_page"
BURST = 48
"""Requests at once, which are more than the demonstration model answers in the promised time."""
SPILL_LIMIT_S = 300.0
OVERFLOW_WORDS = REASONS["overflow"]
_QUESTION = {"model": "auto", "messages": [{"role": "user", "content": "What is biometry?"}], "max_tokens": 64}
_LIMIT_S = 900.0
_STOP_S = 30.0
_READY = "engine ready"
_FIRST = (".venv/bin/spillway", "extract", "docs/examples/report.txt")
_VALUE = "E178272"
"""A value of the document that the first command of the page reads."""


def first_answer(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Clone, `make up`, wait for the engine, and read the document of the page. Ports are free ones, and not the usual
    ones, because others may have them on this machine."""
    try:
        with _from_clone(say) as here:
            done = subprocess.run(
                _FIRST,
                cwd=here.clone,
                env=dict(here.environment),
                capture_output=True,
                text=True,
                timeout=_LIMIT_S,
                check=False,
            )
            took_s = time.monotonic() - here.started_s
    except NotReadyError as error:
        return {FIRST_ANSWER: not_measured(str(error))}
    if done.returncode or _VALUE not in done.stdout:
        return {FIRST_ANSWER: not_measured(f"{' '.join(_FIRST)}: {(done.stdout + done.stderr).strip()[-300:]}")}
    return {FIRST_ANSWER: Measurement(round(took_s, 1), 1, {**here.details, "load_of_the_machine": _load()})}


def money_page(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Clone, `make up` with a cloud behind the engine, fill the engine until a request spills over, and open the Money
    page, which says so. The cloud is a stand-in with a price: a newcomer has a key of a real one."""
    return asyncio.run(_money_page(say))


async def _money_page(say: Callable[[str], None]) -> dict[str, Measurement]:
    async with serving(FakeEngine(["In", " the", " cloud", "."])) as cloud:
        return await asyncio.to_thread(_spilled_from_clone, say, cloud)


def _spilled_from_clone(say: Callable[[str], None], cloud: str) -> dict[str, Measurement]:
    price = {"input_per_million": "0.15", "output_per_million": "0.60"}
    backend = {
        "name": "cloud",
        "provider": "generic",
        "model": "m",
        "api_key": "k",
        "base_url": f"{cloud}/v1",
        "price": price,
    }
    try:
        with _from_clone(say, backend) as here:
            seen = asyncio.run(spill(here.url))
            took_s = time.monotonic() - here.started_s
    except (NotReadyError, TimeoutError, httpx.HTTPError) as error:
        return {MONEY_PAGE: not_measured(f"{type(error).__name__}: {error}")}
    details = {**here.details, "requests": seen.requests, "sentence": seen.sentence, "load_of_the_machine": _load()}
    return {MONEY_PAGE: Measurement(round(took_s, 1), seen.overflowed, details)}


@dataclass(frozen=True, slots=True)
class Spill:
    """How many requests were sent, how many of them spilled over by the Money page, and the page's sentence."""

    requests: int
    overflowed: int
    sentence: str


async def spill(url: str, burst: int = BURST, limit_s: float = SPILL_LIMIT_S) -> Spill:
    """Send bursts of requests to a router until its Money page of today has an overflow. Raises TimeoutError."""
    sent = 0
    async with (
        asyncio.timeout(limit_s),
        httpx.AsyncClient(base_url=url, timeout=limit_s, trust_env=False) as client,
    ):
        while True:
            await asyncio.gather(*(client.post("/v1/chat/completions", json=_QUESTION) for _ in range(burst)))
            sent += burst
            figures = (await client.get("/money.json", params={"window": "today"})).raise_for_status().json()
            cost = {row["decision"]: row["served"]["answers"] for row in figures["by_day"]["cloud"]["rows"]}
            if not cost.get("overflow"):
                continue
            page = (await client.get("/money?window=today", headers={"accept": "text/html"})).raise_for_status().text
            if OVERFLOW_WORDS in page:
                return Spill(sent, cost["overflow"], figures["verdict"])


class NotReadyError(Exception):
    """A clone did not come up; the message says what was waited for."""


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone whose engine answers: its folder, its environment, the router's address, when cloning began (monotonic
    seconds), and how long its parts took."""

    clone: Path
    environment: Mapping[str, str]
    url: str
    started_s: float
    details: Mapping[str, float]


@contextmanager
def _from_clone(say: Callable[[str], None], *clouds: Mapping[str, Any]) -> Iterator[Clone]:
    """Clone and `make up`; yield once the engine answers. Raises NotReadyError."""
    listen, engine = free_ports(2)
    local = {"name": "local", "provider": "vllm", "model": "demo", "base_url": f"http://127.0.0.1:{engine}/v1"}
    configuration = {
        "listen": f"127.0.0.1:{listen}",
        "gpu": {"price_per_hour": "1.39" if clouds else "0"},
        "backends": [local, *clouds],
    }
    environment = {**_passed_on(), "SPILLWAY_YAML": json.dumps(configuration)}
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "spillway"
        started_s = time.monotonic()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True, timeout=_LIMIT_S)
        with _up(clone, environment) as lines:
            installed_s = _await(lines, started_s, "listens on", say)
            ready_s = None if installed_s is None else _await(lines, started_s, _READY, say)
            if installed_s is None or ready_s is None:
                raise NotReadyError(f"the engine was not ready after {_LIMIT_S:.0f} s")
            details = {"router_after_s": round(installed_s, 1), "engine_after_s": round(ready_s, 1)}
            yield Clone(
                clone=clone,
                environment=environment,
                url=f"http://127.0.0.1:{listen}",
                started_s=started_s,
                details=details,
            )


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"


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
