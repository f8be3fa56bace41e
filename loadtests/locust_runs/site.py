"""The product under load: fake engine, fake cloud and the real router, as processes with a config file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from demo.processes import Child, ChildError, start
from demo.product import spillway

from loadtests.fake_cloud.corpus import save
from loadtests.locust_runs.plan import EXTRACT, RequestPlan
from loadtests.locust_runs.samples import LatencyPromise
from loadtests.locust_runs.scenarios import KEYS
from loadtests.scaleout import sites

GPU_USD_PER_HOUR = "1.39"
_STANDIN_KEY = "gsk_loadtest_not_a_secret_of_anyone"
_COMMAND_S = 60.0


@dataclass(frozen=True, slots=True)
class Site:
    """A running product: the router's address, that of the bare engine, and the secrets of the keys by name."""

    url: str
    engine_url: str
    keys: dict[str, str]
    children: tuple[Child, ...]

    @property
    def extracts(self) -> bool:
        """Return whether the router has the endpoint for documents."""
        headers = {"authorization": f"Bearer {self.keys['load']}"}
        answer = httpx.post(self.url + EXTRACT, json={}, headers=headers, timeout=30, trust_env=False)
        return answer.status_code not in (404, 405, 501)


@contextmanager
def site(
    folder: Path, plans: Sequence[RequestPlan], promise: LatencyPromise, engine: Sequence[str] = ()
) -> Iterator[Site]:
    """Run everything for plans whose answers both fakes know; `engine` holds further options of the fake engine.

    Raises:
        ChildError: a process does not start.
    """
    corpus = folder / "corpus.jsonl"
    save(corpus, dict(pair for plan in plans for pair in plan.answers).items())
    options = ("--corpus", str(corpus), *engine)
    with sites.engines(sites.fake(*options), folder, ("local",)) as (local,), _cloud(folder, corpus) as (cloud, url):
        settings = _settings(folder, local.base_url, url, promise)
        keys = _make_keys(folder, settings)
        config = folder / "spillway.yaml"
        child = start(
            "router",
            spillway("route", "-c", str(config)),
            folder / "router.log",
            {"STANDIN_API_KEY": _STANDIN_KEY},
            folder,
        )
        try:
            address = sites.listening(child)
            _await_local(address, keys["load"], child)
            yield Site(address, local.base_url, keys, (local.child, cloud, child))
        finally:
            child.stop(sites.STOP_S)


@contextmanager
def _cloud(folder: Path, corpus: Path) -> Iterator[tuple[Child, str]]:
    announced = folder / "cloud.json"
    command = sites.python("loadtests.fake_cloud", "--corpus", str(corpus), "--announce", str(announced))
    # The cloud's own rate limits are not measured here.
    command += ["--tokens-per-minute", "1000000000", "--requests-per-day", "1000000000"]
    child = start("fake cloud", command, folder / "cloud.log", {"STANDIN_API_KEY": _STANDIN_KEY}, sites.ROOT)
    try:
        sites.wait(child, sites.START_S, lambda: announced.exists() or None)
        yield child, str(json.loads(announced.read_text())["url"])
    finally:
        child.stop(5.0)


def _settings(folder: Path, engine_url: str, cloud_url: str, promise: LatencyPromise) -> dict[str, Any]:
    cloud = {"name": "cloud", "provider": "groq", "base_url": cloud_url, "api_key": "${STANDIN_API_KEY}"}
    return {
        "listen": "127.0.0.1:0",
        "gpu": {"price_per_hour": GPU_USD_PER_HOUR},
        "backends": [
            {"name": "local", "provider": "vllm", "local": True, "base_url": engine_url, "model": "demo"},
            {**cloud, "model": "openai/gpt-oss-20b"},
        ],
        "aliases": {"auto": {"chain": ["local", "cloud"]}},
        "slo": {"ttft_ms": 1000 * promise.ttft_s, "tpot_ms": 1000 * promise.tpot_s},
        # This tests load; an escalation would send requests away for another reason.
        "confidence": {"threshold": 0.0, "escalate_to": []},
        "keys": {"required": True},
        "ledger": {"url": f"sqlite:///{folder / 'spillway.db'}"},
    }


def _make_keys(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Make keys with the product's own command, which needs the config file first; return their secrets by name."""
    config = folder / "spillway.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    secrets = {}
    for name in ("load", *KEYS):
        command = spillway("keys", "create", name, "-c", str(config), "--json")
        created = subprocess.run(
            command,
            env={"STANDIN_API_KEY": _STANDIN_KEY, "PATH": "/usr/bin:/bin"},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
        if created.returncode != 0:
            raise ChildError(f"no key could be made: {created.stderr[-400:]}")
        secrets[name] = str(json.loads(created.stdout)["key"])
    return secrets


def _await_local(url: str, key: str, child: Child) -> None:
    """Return when the router considers the engine healthy: the load concerns a running product, not its start."""

    def up() -> bool | None:
        headers = {"authorization": f"Bearer {key}"}
        answer = httpx.get(f"{url}/ready", headers=headers, timeout=10, trust_env=False)
        return answer.json()["backends"]["local"]["health"] == "up" or None

    sites.wait(child, sites.START_S, up)
