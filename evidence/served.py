"""`spillway serve` with the real engine, for as long as a measurement lasts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from loadtests.bench.processes import Command, free_port, running

ENGINE_LIMIT_S = 300
SPILLWAY = Path(sys.executable).with_name("spillway")


class FailedError(Exception):
    """A program under measurement failed; the message holds its last output."""


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[str, str]]:
    """Run `spillway serve` with these options and its logs in `folder`; yield base URL and served model once it
    generates.

    Raises:
        FailedError: the engine was not ready in time.
    """
    log, port = folder / "serve.log", free_port()
    argv = (str(SPILLWAY), "serve", *words, "--port", str(port), "--log", str(folder / "engine.log"))
    with running(Command(argv), None, log) as process:
        base = f"http://127.0.0.1:{port}/v1"
        yield base, _ready(process, base, log)


def _ready(process: subprocess.Popen[bytes], base: str, log: Path) -> str:
    deadline = time.monotonic() + ENGINE_LIMIT_S
    with httpx.Client(timeout=20, trust_env=False) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                name = str(client.get(f"{base}/models").raise_for_status().json()["data"][0]["id"])
                body = {"model": name, "prompt": "1", "max_tokens": 1}
                client.post(f"{base}/completions", json=body).raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.5)
            else:
                return name
    raise FailedError(f"the engine was not ready: {log.read_text(errors='replace')[-400:]}")
