"""Other gateways in front of the same fake engine, for the sweep; each is started here on a port of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from demo.processes import ChildError, start

from loadtests.bench.install import Unavailable
from loadtests.bench.processes import free_port
from loadtests.bench.systems import LiteLlm, StartSite
from loadtests.scaleout import sites

_START_S = 120.0


@contextmanager
def litellm(engine_url: str, folder: Path) -> Iterator[str]:
    """Start LiteLLM's proxy before the engine, from the benchmark's environment; yield its base URL.

    As in the benchmark, it has one worker, no keys and no database.

    Raises:
        ChildError: it is not available or does not start.
    """
    system = LiteLlm()
    try:
        version = system.prepare()
    except Unavailable as error:
        raise ChildError(f"LiteLLM can't be had here: {error}") from None
    scratch = folder / "litellm"
    scratch.mkdir()
    port = free_port()
    command = system.command(StartSite(port, urlsplit(engine_url).port or 80, scratch))
    child = start(f"LiteLLM {version}", command.argv, folder / "litellm.log", command.env, scratch)
    url = f"http://127.0.0.1:{port}"
    try:
        sites.wait(child, _START_S, lambda: _answers(url))
        yield url
    finally:
        child.stop(10.0)


def _answers(url: str) -> bool | None:
    try:
        return httpx.get(f"{url}/v1/models", timeout=10, trust_env=False).is_success or None
    except httpx.HTTPError:
        return None
