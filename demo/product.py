"""Starts the subject of the demo: the fake cloud and the product, from a config file as a user would write it."""

from __future__ import annotations

import json
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from loadtests.fake_cloud.corpus import save

from demo.processes import Child, ChildError, start
from demo.workload import DocumentJob
from spillway_server import demo_model

LOCAL_MODEL = "demo"
CHEAP, STRONG = "cloud", "strong"
SLO_TTFT_MS = 2000
"""What the demo promises its clients, and what their answers are judged by."""
AIM_TTFT_MS = 1000
"""The router's setting. The difference allows for two things: a doubtful answer takes a local draft and then the
cloud's time on top, and client, fake cloud, router and engine share the machine's few cores here, so that the engine
slows down just while its queue is longest, which no router can know beforehand."""
SLO_TPOT_MS = 100
CALIBRATION = Path(demo_model.__file__).with_name("calibration.json")
"""Made by `spillway calibrate` on other documents than the demo's; its certified threshold applies."""
GPU_PRICE_PER_HOUR = "1.39"

_ANNOUNCE_TIMEOUT_S = 30.0
_LISTEN_TIMEOUT_S = 60.0
_LISTENS = re.compile(r"listens on (http://[\w.:\[\]]+)")
STOP_PATIENCE_S = 30.0
_ROOT = Path(__file__).resolve().parents[1]
_KEY_VARIABLE = "STANDIN_API_KEY"


@dataclass(frozen=True, slots=True)
class CloudProcess:
    """The running fake cloud: `url` is its API base, `root` its address, `key` its API key."""

    url: str
    root: str
    key: str
    child: Child


@dataclass(frozen=True, slots=True)
class Product:
    """The running product: the router's address, its config file, and its environment variables."""

    url: str
    config: Path
    env: dict[str, str]
    child: Child


def spillway(*arguments: str) -> list[str]:
    """Return the product's own command, from the environment that runs the demo."""
    return [str(Path(sys.executable).parent / "spillway"), *arguments]


@contextmanager
def cloud(folder: Path, jobs: Sequence[DocumentJob]) -> Iterator[CloudProcess]:
    """Run a fake cloud that knows the documents of `jobs`.

    Raises:
        ChildError: it does not start.
    """
    corpus, announced = folder / "corpus.jsonl", folder / "cloud.json"
    save(corpus, ((job.text, job.answer) for job in jobs))
    key = "gsk_" + secrets.token_hex(20)
    command = [sys.executable, "-m", "loadtests.fake_cloud", "--corpus", str(corpus), "--announce", str(announced)]
    child = start("stand-in cloud", command, folder / "cloud.log", {_KEY_VARIABLE: key}, _ROOT)
    try:
        deadline = time.monotonic() + _ANNOUNCE_TIMEOUT_S
        while not announced.exists():
            child.check()
            if time.monotonic() > deadline:
                raise ChildError(f"the stand-in cloud said nothing for {_ANNOUNCE_TIMEOUT_S:.0f} s:\n{child.tail()}")
            time.sleep(0.05)
        address = json.loads(announced.read_text())
        yield CloudProcess(url=address["url"], root=address["root"], key=key, child=child)
    finally:
        child.stop(5.0)


@contextmanager
def product(folder: Path, cloud: CloudProcess) -> Iterator[Product]:
    """Run the product, and stop it in order at the end.

    Raises:
        ChildError: it can't be started.
    """
    (engine_port,) = free_ports(1)
    config = folder / "spillway.yaml"
    config.write_text(yaml.safe_dump(settings(folder, cloud.url, engine_port), sort_keys=False))
    env = {_KEY_VARIABLE: cloud.key}
    child = start("spillway up", spillway("up", "--config", str(config)), folder / "spillway.log", env, _ROOT)
    try:
        yield Product(_listening(child), config, env, child)
    finally:
        child.stop(STOP_PATIENCE_S)


def _listening(child: Child) -> str:
    """Return the address that the router announces once it listens.

    Raises:
        ChildError: it announces none.
    """
    deadline = time.monotonic() + _LISTEN_TIMEOUT_S
    while True:
        announced = _LISTENS.search(child.log.read_text(encoding="utf-8", errors="replace"))
        if announced is not None:
            return announced.group(1)
        child.check()
        if time.monotonic() > deadline:
            raise ChildError(f"spillway up didn't listen within {_LISTEN_TIMEOUT_S:.0f} s:\n{child.tail()}")
        time.sleep(0.05)


def settings(folder: Path, cloud_url: str, engine_port: int) -> dict[str, object]:
    """Return the config file's content: local first, a cheap cloud model to overflow to, a strong
    one to escalate to.
    """
    return {
        "listen": "127.0.0.1:0",
        "server": {"model": "auto"},
        "gpu": {"price_per_hour": GPU_PRICE_PER_HOUR, "count": 1},
        "backends": [
            {
                "name": "local",
                "provider": "vllm",
                "local": True,
                "base_url": f"http://127.0.0.1:{engine_port}/v1",
                "model": LOCAL_MODEL,
            },
            _groq(CHEAP, cloud_url, "openai/gpt-oss-20b"),
            _groq(STRONG, cloud_url, "openai/gpt-oss-120b"),
        ],
        "aliases": {"auto": {"chain": ["local", CHEAP]}},
        "slo": {"ttft_ms": AIM_TTFT_MS, "tpot_ms": SLO_TPOT_MS},
        "confidence": {"calibration": str(CALIBRATION), "escalate_to": [STRONG]},
        "ledger": {"url": f"sqlite:///{folder / 'spillway.db'}"},
    }


def _groq(name: str, url: str, model: str) -> dict[str, object]:
    return {"name": name, "provider": "groq", "base_url": url, "api_key": f"${{{_KEY_VARIABLE}}}", "model": model}


def free_ports(count: int) -> list[int]:
    """Return ports that the OS reports as free. If another process takes one in between, the start fails with a
    message.
    """
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()
