"""The engine to measure: a running one, or `spillway serve` with the flags of a profile."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from demo.processes import Child, start
from demo.product import spillway

from loadtests.scaleout.sites import ROOT, STOP_S, wait

_START_S = 1800.0
_NOT_FLAGS = ("--model", "--host", "--port", "--uds")


@dataclass(frozen=True, slots=True)
class EngineTarget:
    """A running engine: API base, model name, its flags, the version that it reports, its longest context in tokens."""

    base_url: str
    model: str
    flags: list[str]
    version: str
    context: int | None


@contextmanager
def served(model: str, flags: Sequence[str], device: str) -> Iterator[EngineTarget]:
    """Run `spillway serve MODEL` with these flags beside its own while the block lasts.

    Raises:
        ChildError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="spillway-profile-") as place:
        folder = Path(place)
        command = spillway("serve", "--model", model, "--port", "0", "--json", "--device", device)
        command += ["--log", str(folder / "engine.log"), *(f"--vllm-arg={flag}" for flag in flags)]
        env = {"PYTHONUNBUFFERED": "1", "VLLM_CACHE_ROOT": str(ROOT / ".cache" / "vllm")}
        child = start("spillway serve", command, folder / "serve.log", env, ROOT)
        try:
            ready = wait(child, _START_S, lambda: _event(child, "EngineReady"))
            argv = (_event(child, "EngineStarting") or {}).get("argv", [])
            yield running(str(ready["base_url"]), _flags(argv))
        finally:
            child.stop(STOP_S)


def running(base_url: str, flags: list[str]) -> EngineTarget:
    """Return a running engine.

    Raises:
        httpx.HTTPError: it doesn't answer.
    """
    root = re.sub(r"/v1/?$", "", base_url)
    with httpx.Client(timeout=30, trust_env=False) as client:
        card = client.get(f"{root}/v1/models").raise_for_status().json()["data"][0]
        answer = client.get(f"{root}/version")
        version = str(answer.json().get("version", "unknown")) if answer.status_code == 200 else "unknown"
    return EngineTarget(
        base_url=f"{root}/v1", model=str(card["id"]), flags=flags, version=version, context=card.get("max_model_len")
    )


def _flags(argv: Sequence[str]) -> list[str]:
    """Return the flags of a command line, without launcher, model and address."""
    flags: list[str] = []
    skip = False
    begun = False
    for word in argv:
        begun = begun or word.startswith("--")
        if skip and not word.startswith("--"):
            continue
        skip = word in _NOT_FLAGS
        if begun and not skip:
            flags.append(word)
    return flags


def _event(child: Child, name: str) -> dict[str, Any] | None:
    for line in child.log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("{") and f'"event": "{name}"' in line:
            try:
                event: dict[str, Any] = json.loads(line)
            except ValueError:
                return None
            return event
    return None
