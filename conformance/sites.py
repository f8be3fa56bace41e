"""What a suite runs against: the scripted upstream or the real engine, and a router in front of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence.served import serving

from conformance.model import NotRunError
from spillway_router.testing.processes import SpillwayProcess, await_ready, running, write

ROOT = Path(__file__).resolve().parents[1]
ENGINE_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
_ADDRESS = re.compile(r"listens on (http://[\w.:]+)")
_START_LIMIT_S = 60.0
_WIDE_SLO = {"ttft_ms": 60_000, "tpot_ms": 10_000}
"""A promise so wide that a busy machine sends nothing elsewhere."""


@dataclass(frozen=True, slots=True)
class Site:
    """Root URLs without a path: the upstream's own, and that of the router in front of it."""

    direct: str
    routed: str
    model: str

    def url(self, way: str) -> str:
        """Return the root URL of one way of running."""
        return self.direct if way == "direct" else self.routed


@contextmanager
def scripted(folder: Path, models: Sequence[str]) -> Iterator[Site]:
    """Run the scripted upstream with these models, and a router that has an alias for each of them."""
    with _upstream(models) as direct:
        backend = _paid("scripted", direct, models[0])
        with _router(folder, [backend], models) as routed:
            yield Site(direct, routed, models[0])


@contextmanager
def scripted_with_local(folder: Path) -> Iterator[tuple[str, str]]:
    """Run the scripted upstream as both a local engine and a cloud; yield the root URL of a router before both, and an
    administrator's key.

    With a local backend, a request may ask for privacy and for no cost.
    """
    with _upstream(("scripted",)) as direct:
        local = {
            "name": "engine",
            "provider": "generic",
            "local": True,
            "base_url": f"{direct}/v1",
            "model": "scripted",
        }
        with _router(folder, [local, _paid("scripted", direct, "scripted")], ()) as routed:
            yield routed, _admin_key(folder)


def _admin_key(folder: Path) -> str:
    command = [
        str(Path(sys.executable).with_name("spillway")),
        "keys",
        "create",
        "suite",
        "--role",
        "admin",
        "--may-route",
        "--json",
    ]
    command += ["--config", str(folder / "spillway.yaml")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True, env=_environ())
    return str(json.loads(ended.stdout)["key"])


@contextmanager
def engine(folder: Path, models: Sequence[str]) -> Iterator[Site]:
    """Run vLLM on the CPU with the demo model under each of these names, and a router that has an alias for each.

    Raises:
        NotRunError: the engine's environment is missing.
    """
    if not ENGINE_PYTHON.exists():
        raise NotRunError("the engine's environment .venv-vllm is missing: run `make install`")
    names = [f"--vllm-arg={word}" for word in ("--served-model-name", *models)]
    with serving(folder, "--model", "demo", *names) as (base_url, served):
        backend = {"name": "local", "provider": "vllm", "base_url": base_url, "model": served}
        with _router(folder, [backend], models) as routed:
            yield Site(base_url.removesuffix("/v1"), routed, served)


def _paid(name: str, root: str, model: str) -> Mapping[str, Any]:
    """Return the configuration of a cloud backend at this root URL."""
    return {
        "name": name,
        "provider": "generic",
        "base_url": f"{root}/v1",
        "api_key": "sk-conformance",
        "model": model,
        "price": {"input_per_million": "1", "output_per_million": "2"},
    }


@contextmanager
def _upstream(models: Sequence[str]) -> Iterator[str]:
    command = [sys.executable, "-m", "conformance.upstream", *(word for name in models for word in ("--model", name))]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=_environ()
    )
    watched = SpillwayProcess(process)
    watched.listen()
    try:
        yield watched.says(_ADDRESS, _START_LIMIT_S).group(1)
    finally:
        watched.end()
        assert process.stdout is not None
        process.stdout.close()


def _environ() -> Mapping[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


@contextmanager
def _router(folder: Path, backends: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    chain = {"chain": [backend["name"] for backend in backends]}
    settings = {
        "backends": [dict(backend) for backend in backends],
        "aliases": dict.fromkeys(("auto", *names), chain),
        "slo": _WIDE_SLO,
        "keys": {"required": False},
    }
    with running("route", write(folder, settings)) as process:
        for backend in backends:
            await_ready(process.url, str(backend["name"]))
        yield process.url
