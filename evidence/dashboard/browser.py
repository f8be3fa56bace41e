"""Opens pages in a real headless Chromium by web/browser.mjs, which says what is wrong with them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

WEB = Path(__file__).parents[2] / "web"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (390, 1200, 1600)
SCHEMES = ("light", "dark")
LIMIT_S = 400.0


@dataclass(frozen=True, slots=True)
class Place:
    """A page to visit, and what to click once it is there."""

    name: str
    path: str
    click: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Story:
    """What somebody does, step by step; web/browser.mjs lists the actions."""

    name: str
    steps: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Shots:
    """The pages to photograph and the folder for the files; `full` takes whole pages, not only what the window
    shows."""

    folder: str
    names: tuple[str, ...]
    full: bool = True


@dataclass(frozen=True, slots=True)
class Timed:
    """A page to load so many times, each in a new window, until its chart is drawn."""

    path: str
    runs: int


@dataclass(frozen=True, slots=True)
class Held:
    """A live page to keep open in so many windows for some seconds."""

    path: str
    pages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Visit:
    """What to look at: the router's URL, the key to sign in with ("" for none), and the pages in which windows."""

    url: str
    pages: Sequence[Place]
    key: str = ""
    widths: Sequence[int] = WIDTHS
    schemes: Sequence[str] = SCHEMES
    stories: Sequence[Story] = ()
    shots: Shots | None = None
    timed: Timed | None = None
    held: Held | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the browser saw: how many visits and checks, those that failed, violations of accessibility, and addresses
    elsewhere that a page asked for."""

    version: str
    visits: int
    checks: int
    failures: list[str] = field(default_factory=list)
    axe: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)


def missing() -> str:
    """Return why no page can be opened here, "" if one can."""
    if _browser() is None or shutil.which("node") is None or not (WEB / "node_modules" / "playwright-core").exists():
        return "no browser to look with: run `make install-browser`"
    return ""


def _browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


async def look(visit: Visit, on_live: Callable[[], None] = lambda: None) -> Seen:
    """Open the pages; `on_live` is called when all held ones are live.

    Raises RuntimeError if the browser can't be run, TimeoutError after `LIMIT_S` seconds."""
    why = missing()
    if why:
        raise RuntimeError(why)
    plan: dict[str, Any] = asdict(visit) | {"chromium": _browser()}
    if visit.shots is not None:
        plan["shots"] = asdict(visit.shots)
        plan["full"] = visit.shots.full
    process = await asyncio.create_subprocess_exec(
        "node",
        "browser.mjs",
        cwd=WEB,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(json.dumps(plan).encode())
            process.stdin.close()
            errors = []
            async for line in process.stderr:
                errors.append(line.decode())
                if line == b"live\n":
                    on_live()
            output = await process.stdout.read()
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"the browser failed: {''.join(errors)[-600:]}")
    return Seen(**json.loads(output))
