"""The dashboard in a real browser: checks that fail, accessibility, requests elsewhere, the Money page over a million
rows, and what live pages cost the router.

The pictures of the documentation are made here, too.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
from loadtests.bench.processes import BenchError, Command, free_port, running

from evidence.dashboard.browser import SCHEMES, WIDTHS, Held, Seen, Shots, Timed, Visit, look, missing
from evidence.dashboard.scene import Scene, business, places, stories
from evidence.measures_report import CASES, FIRST_DAY, ROWS, fill_ledger
from evidence.results import Measurement, not_measured
from evidence.served import SPILLWAY
from spillway_router.testing import FakeEngine
from spillway_router.testing.harness import serving

CHECKS = ("dashboard.browser_checks_failed", "dashboard.axe_violations", "dashboard.foreign_requests")
MILLION_ROWS = "dashboard.million_rows_load"
VIEWERS = "dashboard.cpu_10_viewers"
RUNS = 5
PAGES = 10
HELD_S = 30.0
_PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
_REQUIRED = "keys: {required: true}\n"
_LIMIT_S = 30.0
_CONFIG = """
listen: 127.0.0.1:{port}
backends:
  - {{name: local, provider: vllm, local: true, model: m, base_url: "{engine}/v1"}}
  - {{name: mine, provider: generic, base_url: "http://127.0.0.1:9/v1", api_key: k, model: m,
     price: {{input_per_million: "0.15", output_per_million: "0.60"}}}}
gpu: {{price_per_hour: "1.39"}}
ledger: {{url: "sqlite:///{ledger}"}}
"""


def checks(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Open every page at three widths, light and dark; click, type and press keys. `n` counts checks, or visits."""
    why = missing()
    if why:
        return dict.fromkeys(CHECKS, not_measured(why))
    seen = asyncio.run(_looked())
    say(f"  {seen.visits} visits, {seen.checks} checks: {seen.failures + seen.axe + seen.foreign}")
    versions = {"chromium": seen.version}
    details: dict[str, Any] = {"visits": seen.visits, "widths_px": WIDTHS, "schemes": SCHEMES}
    return {
        name: Measurement(len(faults), number, details | {"found": faults[:20]}, versions)
        for name, faults, number in zip(
            CHECKS,
            (seen.failures, seen.axe, seen.foreign),
            (seen.checks, seen.visits, seen.visits),
            strict=True,
        )
    }


async def _looked() -> Seen:
    with tempfile.TemporaryDirectory() as folder:
        async with business(Path(folder), more=_REQUIRED) as scene:
            visit = Visit(scene.router.url, places(scene), key=scene.key, stories=stories(scene.key))
            seen = await look(visit)
            await _photograph(scene, scene.key)
    return seen


async def _photograph(scene: Scene, key: str) -> None:
    """Make the pictures of the documentation."""
    with tempfile.TemporaryDirectory() as folder:
        pages = tuple(place for place in places(scene) if place.name in ("money", "now"))
        still = tuple(type(place)(place.name, place.path) for place in pages)
        shots = Shots(folder, ("money", "now"))
        await look(Visit(scene.router.url, still, key=key, widths=(1200,), schemes=("light",), shots=shots))
        _PICTURES.mkdir(exist_ok=True)
        for name in ("money", "now"):
            shutil.copy(Path(folder, f"{name}-1200-light.png"), _PICTURES / f"{name}.png")


def million_rows(say: Callable[[str], None], rows: int = ROWS, runs: int = RUNS) -> dict[str, Measurement]:
    """Measure the seconds from asking for the Money page of a month with a million rows to its drawn chart: the median
    of `runs` loads, each in a new window. `n` counts rows."""
    why = missing()
    if why:
        return {MILLION_ROWS: not_measured(why)}
    case = CASES[1]
    last = FIRST_DAY + timedelta(days=case.days - 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill_ledger(folder / "spillway.db", rows, case)
        with _router(folder, "http://127.0.0.1:9") as (url, _):
            path = f"/money?from={FIRST_DAY}&to={last}"
            figures = httpx.get(url + path.replace("?", ".json?"), timeout=_LIMIT_S, trust_env=False).text
            seen = asyncio.run(look(Visit(url, (), widths=(), timed=Timed(path, runs))))
    times = sorted(seen.times_s)
    details = {"runs_s": [round(one, 3) for one in seen.times_s], "keys": case.keys, "failures": seen.failures}
    say(f"  {details}")
    if seen.failures or f'"requests":{rows}' not in figures:
        return {MILLION_ROWS: not_measured(f"the page is not right: {seen.failures}")}
    return {MILLION_ROWS: Measurement(round(times[len(times) // 2], 3), rows, details, {"chromium": seen.version})}


def viewers(say: Callable[[str], None], seconds: float = HELD_S, pages: int = PAGES) -> dict[str, Measurement]:
    """Measure the share of a core that ten live pages cost the router, with a request every second so that the board
    changes: its CPU time with the pages open less that without, per second. `n` counts pages."""
    why = missing()
    if why:
        return {VIEWERS: not_measured(why)}
    with_pages, without, seen = asyncio.run(_watched(seconds, pages))
    share = max(0.0, with_pages - without)
    details = {
        "share_with_pages": round(with_pages, 5),
        "share_without": round(without, 5),
        "seconds": seconds,
        "failures": seen.failures,
    }
    say(f"  {details}")
    if seen.failures:
        return {VIEWERS: not_measured(f"a page failed: {seen.failures[0]}")}
    return {VIEWERS: Measurement(round(share, 5), pages, details, {"chromium": seen.version})}


async def _watched(seconds: float, pages: int) -> tuple[float, float, Seen]:
    with tempfile.TemporaryDirectory() as name:
        async with serving(FakeEngine(["a", "b"])) as engine:
            with _router(Path(name), engine) as (url, process):
                async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=_LIMIT_S) as client:
                    async with asyncio.timeout(_LIMIT_S):
                        while (await client.get("/ready")).json()["backends"]["local"]["health"] != "up":
                            await asyncio.sleep(0.1)
                    without = await _share(client, process, seconds)
                    live = asyncio.Event()
                    visit = Visit(url, (), widths=(), held=Held("/", pages, seconds + 5))
                    looking = asyncio.create_task(look(visit, live.set))
                    await asyncio.wait({looking, asyncio.create_task(live.wait())}, return_when="FIRST_COMPLETED")
                    with_pages = await _share(client, process, seconds)
                    return with_pages, without, await looking


@contextmanager
def _router(folder: Path, engine: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run a router as a process of its own; yield its URL and its process once it answers."""
    port = free_port()
    file = folder / "spillway.yaml"
    file.write_text(_CONFIG.format(port=port, engine=engine, ledger=folder / "spillway.db"), encoding="utf-8")
    url, deadline_s = f"http://127.0.0.1:{port}", time.monotonic() + _LIMIT_S
    with running(Command((str(SPILLWAY), "route", "-c", str(file))), None, folder / "router.log") as process:
        while True:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise BenchError(f"the router did not start: {(folder / 'router.log').read_text()[-400:]}")
            time.sleep(0.05)
        yield url, psutil.Process(process.pid)


async def _share(client: httpx.AsyncClient, process: psutil.Process, seconds: float) -> float:
    """Return the share of a core that a router takes while it gets a request every second."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "Which eye?"}]}
    began_s, before = time.monotonic(), process.cpu_times()
    while (passed_s := time.monotonic() - began_s) < seconds:
        (await client.post("/v1/chat/completions", json=body)).raise_for_status()
        await asyncio.sleep(1.0 - (time.monotonic() - began_s - passed_s) % 1.0)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / (time.monotonic() - began_s)
