"""How soon a router leaves out an engine that died or hangs: real vLLM on the CPU, under mixed traffic."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from evidence.results import Measurement, not_measured
from evidence.served import FailedError, serving
from spillway_router.testing import FakeEngine
from spillway_router.testing.harness import Router, cloud, routing, settings
from spillway_router.testing.harness import serving as serving_cloud

KILLED, HUNG = "engine.killed_out_of_rotation", "engine.hung_out_of_rotation"
ENGINE_PYTHON = Path(__file__).resolve().parents[1] / ".venv-vllm" / "bin" / "python"
RATE_S = 0.25
"""Seconds between two requests."""
OUT_LIMIT_S, BACK_LIMIT_S = 60.0, 240.0
LOOK_S = 0.01

Say = Callable[[str], None]
_OWN_WORKER = "--vllm-arg=--distributed-executor-backend=mp"
FAULTS = (("api", "KILL"), ("core", "KILL"), ("worker", "KILL"), ("core", "STOP"), ("api", "STOP"))
"""The kernel kills a process that wants more memory than there is by SIGKILL, too."""


@dataclass
class FaultRun:
    """One fault: which process got which signal, after how many seconds the engine was out, after how many it was back,
    how the requests ended that were under way when it left, and after how many seconds the last of them did."""

    process: str
    signal: str
    out_s: float = 0.0
    reason: str = ""
    back_s: float = 0.0
    in_flight: dict[str, int] = field(default_factory=dict)
    longest_wait_s: float = 0.0
    orphans: int = 0


def engine_faults(say: Say, faults: tuple[tuple[str, str], ...] = FAULTS) -> dict[str, Measurement]:
    """Send each signal to the engine's API server, its core or its worker, which is a process of its own here, and
    report the longest time of each kind.

    A run is void if a request that was in flight got neither an answer nor a clear refusal, if a process of the engine
    is left behind, or if the router did not count each outage once.
    """
    if not ENGINE_PYTHON.exists():
        return dict.fromkeys((KILLED, HUNG), not_measured("the engine's environment is missing: run `make install`"))
    try:
        with tempfile.TemporaryDirectory(prefix="spillway-engine-") as name:
            folder = Path(name)
            words = ("--model", "demo", "--device", "cpu", "--engine-python", str(ENGINE_PYTHON), _OWN_WORKER)
            with serving(folder, *words) as (base, model):
                runs = asyncio.run(_all(folder, base, model, faults, say))
    except (FailedError, TimeoutError, AssertionError) as error:
        return dict.fromkeys((KILLED, HUNG), not_measured(f"{type(error).__name__}: {error}"))
    return {
        KILLED: _measurement([run for run in runs if run.signal == "KILL"]),
        HUNG: _measurement([run for run in runs if run.signal == "STOP"]),
    }


def _measurement(runs: list[FaultRun]) -> Measurement:
    if not runs:
        return not_measured("no fault of this kind was chosen")
    details = {"runs": [asdict(run) for run in runs]}
    if orphans := sum(run.orphans for run in runs):
        return Measurement(None, 0, {"reason": f"{orphans} processes were left behind", **details})
    return Measurement(round(max(run.out_s for run in runs), 3), len(runs), details)


async def _all(folder: Path, base: str, model: str, faults: tuple[tuple[str, str], ...], say: Say) -> list[FaultRun]:
    engine = f"{{name: local, provider: vllm, local: true, model: '{model}', base_url: '{base}'}}"
    runs = []
    async with (
        serving_cloud(FakeEngine(("yes",))) as url,
        routing(settings(engine, cloud(url + "/v1")), folder) as router,
    ):
        for process, number in faults:
            await _until(lambda: _is_up(router), BACK_LIMIT_S)
            run = await _run(router, FaultRun(process, number))
            say(f"  {asdict(run)}")
            runs.append(run)
        outages = router.runtime.engine_watch.outages.counts["local"]
    if outages != len(faults):
        raise AssertionError(f"{outages} outages were reported, for {len(faults)} faults")
    return runs


async def _run(router: Router, run: FaultRun) -> FaultRun:
    """Send the signal under traffic, and note when the engine is out and when it is back."""
    requests: list[tuple[float, asyncio.Task[str]]] = []
    traffic = asyncio.create_task(_traffic(router, requests))
    await _until(lambda: sum(task.done() for _, task in requests) >= 8, BACK_LIMIT_S)
    family = _family()
    victim = _find(family, run.process)
    began = time.monotonic()
    os.kill(victim.pid, getattr(signal, f"SIG{run.signal}"))
    await _until(lambda: not _is_up(router), OUT_LIMIT_S)
    run.out_s = round(time.monotonic() - began, 3)
    run.reason = router.runtime.board.current(router.runtime.services.clock()).backends["local"].health_reason
    waiting = [task for _, task in requests if not task.done()]
    async with asyncio.timeout(OUT_LIMIT_S):
        run.in_flight = dict(Counter(await asyncio.gather(*waiting)))
    run.longest_wait_s = round(time.monotonic() - began, 3)
    if run.signal == "STOP":
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGCONT)
    await _until(lambda: _is_up(router), BACK_LIMIT_S)
    run.back_s = round(time.monotonic() - began, 3)
    traffic.cancel()
    await asyncio.gather(traffic, *(task for _, task in requests), return_exceptions=True)
    run.orphans = sum(p.pid not in {q.pid for q in _family()} and _lives(p) for p in family)
    return run


async def _traffic(router: Router, requests: list[tuple[float, asyncio.Task[str]]]) -> None:
    """Send whole, streamed and private requests in turn until cancelled."""
    kinds: tuple[Callable[[], Awaitable[httpx.Response]], ...] = (
        lambda: router.chat({"max_tokens": 60}),
        lambda: router.chat({"max_tokens": 60, "stream": True}),
        lambda: router.chat({"max_tokens": 60}, x_spillway_privacy="local-only"),
    )
    while True:
        kind = kinds[len(requests) % len(kinds)]
        requests.append((time.monotonic(), asyncio.create_task(_outcome(kind))))
        await asyncio.sleep(RATE_S)


async def _outcome(kind: Callable[[], Awaitable[httpx.Response]]) -> str:
    reply = await kind()
    if b"upstream_interrupted" in reply.content:
        return "200, ended with an error event"
    if reply.status_code != httpx.codes.OK:
        body: dict[str, Any] = reply.json()
        return f"{reply.status_code} {body['error']['code']}"
    return f"200 {reply.headers['x-spillway-backend']}"


async def _until(true: Callable[[], bool], limit_s: float) -> None:
    async with asyncio.timeout(limit_s):
        while not true():
            await asyncio.sleep(LOOK_S)


def _is_up(router: Router) -> bool:
    return router.runtime.board.is_available("local", router.runtime.services.clock())


def _family() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _find(family: list[psutil.Process], process: str) -> psutil.Process:
    """Return the API server, the engine core or its worker among these processes. The guard has the same words in its
    command."""
    for candidate in family:
        with suppress(psutil.Error):
            words = candidate.cmdline()
            line = " ".join(words)
            is_api = "vllm.entrypoints" in line and not any(word.endswith("guard.py") for word in words)
            if {"api": is_api, "core": "EngineCore" in line, "worker": "Worker" in line}[process]:
                return candidate
    raise AssertionError(f"the engine has no process {process}")


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
