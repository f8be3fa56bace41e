"""Spillway in front of the real vllm-router, production-stack's router in Rust, as docs/deploy/in-front-of.md has it.

Two fake engines run behind it. It is installed from a hash lock on first use, as `make bench` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from demo.processes import Child, start
from loadtests.bench.install import Unavailable, environment
from loadtests.bench.processes import free_port
from loadtests.scaleout.sites import ROOT, python, wait

from spillway_router.testing.processes import await_ready, running, write

pytestmark = pytest.mark.load
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}


def announced(child: Child) -> str | None:
    """The base URL that a fake engine has announced."""
    text = child.log.read_text(encoding="utf-8")
    return str(json.loads(text.splitlines()[0])["url"]) if "\n" in text else None


@contextmanager
def stack(folder: Path) -> Iterator[tuple[str, str, Child]]:
    """vllm-router before two engines, and a third one that stands for a cloud: their base URLs, and the router."""
    try:
        program = environment("vllm-router").with_name("vllm-router")
    except Unavailable as error:
        pytest.skip(str(error))
    with ExitStack() as ending:

        def begun(name: str, words: list[str]) -> Child:
            child = start(name, words, folder / f"{name}.log", {}, ROOT)
            ending.callback(child.stop, 10.0)
            return child

        engines = [begun(name, python("loadtests.fake_engine", "--model", "m")) for name in ("one", "two", "cloud")]
        one, two, cloud = (wait(child, 60, lambda child=child: announced(child)) for child in engines)
        port = free_port()
        words = [str(program), "--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin"]
        words += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
        words += ["--worker-urls", one.removesuffix("/v1"), two.removesuffix("/v1")]
        router = begun("vllm-router", words)
        root = f"http://127.0.0.1:{port}"

        def answers() -> bool | None:
            try:
                return httpx.get(f"{root}/health", trust_env=False).status_code == 200 or None
            except httpx.HTTPError:
                return None

        wait(router, 60, answers)
        yield f"{root}/v1", cloud, router


def configured(folder: Path, cluster: str, cloud: str) -> Path:
    """The second configuration of the page, with a cloud."""
    price = {"input_per_million": "0.15", "output_per_million": "0.60"}
    backends = [
        {
            "name": "cluster",
            "provider": "generic",
            "local": True,
            "base_url": cluster,
            "model": "m",
            "max_sequences": 64,
        },
        {"name": "cloud", "provider": "generic", "base_url": cloud, "model": "m", "api_key": "k", "price": price},
    ]
    return write(folder, {"backends": backends, "aliases": {"auto": {"chain": ["cluster", "cloud"]}}})


def test_answers_come_through_vllm_router_and_from_the_cloud_when_it_dies(tmp_path: Path) -> None:
    with ExitStack() as ending:
        cluster, cloud, vllm_router = ending.enter_context(stack(tmp_path))
        process = ending.enter_context(running("route", configured(tmp_path, cluster, cloud)))
        await_ready(process.url)
        with httpx.Client(base_url=process.url, timeout=30, trust_env=False) as client:

            def ask(private: bool = False, **more: Any) -> httpx.Response:
                headers = {"x-spillway-privacy": "local-only"} if private else {}
                return client.post("/v1/chat/completions", json={**BODY, **more}, headers=headers)

            whole = ask()
            assert (whole.status_code, whole.headers["x-spillway-backend"]) == (200, "cluster")
            assert whole.json()["usage"]["completion_tokens"] == 8
            stream = ask(stream=True, stream_options={"include_usage": True})
            events = [line[6:] for line in stream.text.splitlines() if line.startswith("data: ")]
            assert events[-1] == "[DONE]"
            assert json.loads(events[-2])["usage"]["completion_tokens"] == 8
            assert ask(private=True).headers["x-spillway-backend"] == "cluster"
            vllm_router.process.kill()
            vllm_router.process.wait(10)
            after = ask()
            assert (after.status_code, after.headers["x-spillway-backend"]) == (200, "cloud")
            refused = ask(private=True)
            assert refused.status_code == 503, refused.text
