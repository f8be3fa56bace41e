"""The processes of a trial: engines that can be drained or killed, and routers that share a ledger."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from demo.processes import Child, ChildError, start
from demo.product import CloudProcess, spillway

ROOT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
VLLM_START_S = 280.0
START_S = 60.0
STOP_S = 75.0
"""Longer than the supervisor waits for running requests and for the end of vLLM together."""
Found = TypeVar("Found")
_LISTENS = re.compile(r"listens on (http://[\w.:\[\]]+)")


@dataclass(frozen=True, slots=True)
class EngineSite:
    """One engine: its API base and the process that receives its signals."""

    name: str
    base_url: str
    model: str
    child: Child

    def drain(self) -> None:
        """Ask the engine to end in order, as an orchestrator does: SIGTERM."""
        self.child.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the engine and its children at once."""
        os.killpg(self.child.process.pid, signal.SIGKILL)

    @property
    def ended(self) -> bool:
        """Return whether the process is gone."""
        return self.child.process.poll() is not None


@dataclass(frozen=True, slots=True)
class RouterSite:
    """One router: its address and its config file."""

    url: str
    config: Path
    child: Child


Starter = Callable[[str, Path], "StartingEngine"]


@dataclass(frozen=True, slots=True)
class StartingEngine:
    """An engine that is starting, and how to wait for it."""

    child: Child
    address: Callable[[], tuple[str, str]]


def vllm(name: str, folder: Path) -> StartingEngine:
    """Start real vLLM with the demo model under `spillway serve`, with small limits, since two engines share a
    machine's cores.

    `--shutdown-timeout`: when asked to end, vLLM finishes running requests instead of aborting them. `--block-size`:
    the prefix cache holds whole blocks, and the CPU's own size of 128 tokens is longer than most turns here.
    """
    options = ["--max-num-seqs=16", "--max-model-len=1024", "--shutdown-timeout=15", "--block-size=32"]
    command = spillway("serve", "--model", "demo", "--port", "0", "--device", "cpu", "--json")
    command += ["--engine-python", str(ENGINE_PYTHON), "--log", str(folder / f"{name}-engine.log")]
    command += [f"--vllm-arg={option}" for option in options]
    log = folder / f"{name}.log"
    env = {"VLLM_CACHE_ROOT": str(ROOT / ".cache" / "vllm"), "PYTHONUNBUFFERED": "1"}
    child = start(name, command, log, env, ROOT)

    def ready() -> tuple[str, str]:
        event = wait(child, VLLM_START_S, lambda: _event(child, "base_url"))
        return str(event["base_url"]), str(event["served_model"])

    return StartingEngine(child, ready)


def fake(*extra: str) -> Starter:
    """Start the fake engine with these options."""

    def begin(name: str, folder: Path) -> StartingEngine:
        child = start(name, python("loadtests.fake_engine", *extra), folder / f"{name}.log", {}, ROOT)
        return StartingEngine(child, lambda: (str(wait(child, START_S, lambda: _event(child, "url"))["url"]), "demo"))

    return begin


@contextmanager
def engines(starter: Starter, folder: Path, names: tuple[str, ...] = ("left", "right")) -> Iterator[list[EngineSite]]:
    """Run engines side by side; they end with the block.

    Raises:
        ChildError: one does not start.
    """
    with ExitStack() as stack:
        started = []
        for name in names:
            one = starter(name, folder)
            stack.callback(one.child.stop, STOP_S)
            started.append((name, one))
        sites = []
        for name, one in started:
            base_url, model = one.address()
            sites.append(EngineSite(name=name, base_url=base_url, model=model, child=one.child))
        yield sites


@contextmanager
def routers(
    settings: Mapping[str, Any], cloud: CloudProcess, folder: Path, count: int = 2
) -> Iterator[list[RouterSite]]:
    """Run routers from one configuration, each on a port of its own.

    Raises:
        ChildError: one does not start.
    """
    with ExitStack() as stack:
        sites = []
        for number in range(count):
            place = folder / f"router{number}"
            place.mkdir()
            config = place / "spillway.yaml"
            config.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", **settings}, sort_keys=False))
            env = {"STANDIN_API_KEY": cloud.key, "PYTHONUNBUFFERED": "1"}
            child = start(f"router {number}", spillway("route", "-c", str(config)), place / "router.log", env, place)
            stack.callback(child.stop, STOP_S)
            sites.append((config, child))
        yield [RouterSite(listening(child), config, child) for config, child in sites]


def settings(local: list[EngineSite], cloud: CloudProcess, ledger_url: str, cap_usd: str) -> dict[str, Any]:
    """Return the configuration of both routers: all engines, a capped cloud under a name of its
    own, the shared ledger.
    """
    backends: list[dict[str, Any]] = [
        {"name": engine.name, "provider": "vllm", "local": True, "base_url": engine.base_url, "model": engine.model}
        for engine in local
    ]
    backends.append(
        {
            "name": "cloud",
            "provider": "groq",
            "base_url": cloud.url,
            "api_key": "${STANDIN_API_KEY}",
            "model": "openai/gpt-oss-20b",
        }
    )
    return {
        "gpu": {"price_per_hour": "1.39", "count": len(local)},
        "backends": backends,
        "aliases": {"auto": {"chain": [engine.name for engine in local]}, "paid": {"chain": ["cloud"]}},
        # Wide limits: this asks whether requests are lost, not how fast a busy machine answers.
        "slo": {"ttft_ms": 60_000, "tpot_ms": 10_000},
        "confidence": {"threshold": 0.0, "escalate_to": []},
        "budgets": [{"scope": "backend:cloud", "period": "month", "limit_usd": cap_usd}],
        "ledger": {"url": ledger_url},
    }


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this project."""
    return [sys.executable, "-m", module, *arguments]


def listening(child: Child) -> str:
    """Return the address that a router announces.

    Raises:
        ChildError: it announces none.
    """
    return wait(child, START_S, lambda: _LISTENS.search(_said(child))).group(1)


def wait(child: Child, limit_s: float, look: Callable[[], Found | None]) -> Found:
    """Return the first result that is not None.

    Raises:
        ChildError: the process ends, or `limit_s` seconds pass before.
    """
    deadline = time.monotonic() + limit_s
    while True:
        result = look()
        if result is not None:
            return result
        child.check()
        if time.monotonic() > deadline:
            raise ChildError(f"{child.name} was not ready within {limit_s:.0f} s:\n{child.tail()}")
        time.sleep(0.1)


def _said(child: Child) -> str:
    return child.log.read_text(encoding="utf-8", errors="replace")


def _event(child: Child, field: str) -> dict[str, Any] | None:
    """Return the last complete JSON line of the log that has this field."""
    for line in reversed(_said(child).splitlines()):
        if line.startswith("{") and f'"{field}"' in line:
            try:
                event: dict[str, Any] = json.loads(line)
            except ValueError:
                return None  # the line is still incomplete
            return event
    return None
