"""A router and the engine behind it, as processes of their own, for as long as a measurement lasts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from loadtests.bench.processes import Command, free_port, running

START_LIMIT_S = 60.0
SPILLWAY = Path(sys.executable).with_name("spillway")
SEQUENCES = 8
SCALE = 4.0
"""Factor on the times of an A100: the engine then answers about 20 requests of 10 tokens per second."""
NO_CAP = 1_000_000
SLO_S = 2.0
"""The promised time to first token, in seconds. The promised time per token is that of an engine as slow as this."""


class SiteError(Exception):
    """A program under measurement did not start; the message holds its last output."""


@dataclass(frozen=True, slots=True)
class Site:
    """A running router: its port and process, and the tokens of its keys by name."""

    port: int
    pid: int
    keys: dict[str, str]
    log: Path

    def rss_bytes(self) -> int:
        """Return the resident memory of the router."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@contextmanager
def site(
    folder: Path,
    *,
    queue_cap: int = NO_CAP,
    keys: tuple[str, ...] = (),
    has_cloud: bool = False,
    sequences: int = SEQUENCES,
    has_metrics: bool = True,
    more: str = "",
) -> Iterator[Site]:
    """Run an engine, a cloud if there is one, and a router in front of them. Without metrics the router is told nothing
    of the engine but its address. Raises SiteError."""
    with ExitStack() as stack:
        engine = stack.enter_context(_engine(folder, "engine", queue_cap, sequences))
        settings_of_engine = (
            f"provider: vllm, max_sequences: {sequences}" if has_metrics else "provider: generic, local: true"
        )
        backends = [f"{{name: local, {settings_of_engine}, model: demo, base_url: '{engine}'}}"]
        if has_cloud:
            cloud = stack.enter_context(_engine(folder, "cloud", NO_CAP, 256))
            price = '{input_per_million: "1", output_per_million: "2"}'
            backends.append(
                f"{{name: cloud, provider: generic, model: demo, api_key: k, base_url: '{cloud}', price: {price}}}"
            )
        path, port = folder / "spillway.yaml", free_port()
        lines = "".join(f"  - {line}\n" for line in backends)
        path.write_text(
            f"listen: 127.0.0.1:{port}\nbackends:\n{lines}keys: {{required: {str(bool(keys)).lower()}}}\n"
            f"gpu: {{price_per_hour: '1'}}\nslo: {{ttft_ms: {SLO_S * 1000:.0f}, tpot_ms: 250}}\n{more}"
        )
        tokens = {name: _new_key(path, name) for name in keys}
        log = folder / "router.log"
        command = Command((str(SPILLWAY), "route", "--config", str(path)))
        process = stack.enter_context(running(command, None, log))
        _until_local(process, port, next(iter(tokens.values()), ""), log)
        yield Site(port, process.pid, tokens, log)


@contextmanager
def _engine(folder: Path, name: str, queue_cap: int, sequences: int) -> Iterator[str]:
    log = folder / f"{name}.log"
    words = ("--scale", str(SCALE), "--sequences", str(sequences), "--queue-cap", str(queue_cap))
    command = Command((sys.executable, "-m", "loadtests.fake_engine", *words))
    with running(command, None, log) as process:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and process.poll() is None:
            for line in log.read_text(errors="replace").splitlines():
                if line.startswith('{"url"'):
                    yield str(json.loads(line)["url"])
                    return
            time.sleep(0.05)
        raise SiteError(f"the {name} did not start: {log.read_text(errors='replace')[-400:]}")


def _new_key(path: Path, name: str) -> str:
    argv = [str(SPILLWAY), "keys", "create", name, "--role", "inference", "--config", str(path), "--json"]
    output = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=path.parent)
    values = json.loads(output.stdout).values()
    return next(value for value in values if isinstance(value, str) and value.startswith("sk-spill-"))


def _until_local(process: subprocess.Popen[bytes], port: int, key: str, log: Path) -> None:
    """Wait until the engine answers through the router."""
    deadline = time.monotonic() + START_LIMIT_S
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = {"model": "auto", "max_tokens": 2, "messages": [{"role": "user", "content": "Ready?"}]}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                reply = client.post("/v1/chat/completions", json=body, headers=headers)
            except httpx.HTTPError:
                time.sleep(0.1)
                continue
            if reply.status_code == 200 and reply.headers["x-spillway-backend"] == "local":
                return
            time.sleep(0.1)
    raise SiteError(f"the router was not ready: {log.read_text(errors='replace')[-400:]}")
