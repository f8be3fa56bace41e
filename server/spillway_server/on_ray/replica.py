"""A replica of Ray Serve that runs one engine as a process, and says where it is.

Ray places, counts and restarts replicas; requests do not pass through it. Each replica starts the engine on a free port
of its node and answers `GET /spillway/engine` with the engine's address, which is how the router finds it
(`discover: ray`). Anything else that comes to Ray's own port is redirected to the engine, so that clients that know
only Ray still get their answer.

A replica is healthy while its process runs and answers /health. When Ray takes it away, it is off the list at once; the
engine ends when its running requests have, or after `drain_s`.

This module runs in Ray's environment and needs nothing but Ray Serve and what that brings.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ENGINE_PATH = "/spillway/engine"
HOST, PORT = "{host}", "{port}"
"""Where the node's address and the engine's port stand in the command."""
ASK_S = 5.0
UNLISTED_S = 10.0
"""How long a replica that Ray took off its list still serves: routers look for engines every few seconds."""
DEPLOYMENT = "Engine"
"""The name of the deployment, which the scaler scales."""


def filled(command: Sequence[str], host: str, port: int) -> list[str]:
    """Return the command with the node's address and the engine's port."""
    return [word.replace(HOST, host).replace(PORT, str(port)) for word in command]


def free_port(host: str) -> int:
    """Return a port of this address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def work_of(metrics: str) -> float | None:
    """Return how many requests run or wait, from vLLM's metrics page; None where the page does not say."""
    counted = [
        float(line.rsplit(" ", 1)[1])
        for line in metrics.splitlines()
        if line.startswith(("vllm:num_requests_running", "vllm:num_requests_waiting{", "vllm:num_requests_waiting "))
    ]
    return sum(counted) if counted else None


class EngineProcess:
    """The engine of one replica. `ready_s` is how long it may take to answer /health for the first time."""

    def __init__(self, command: Sequence[str], host: str, ready_s: float, log: Path | None = None) -> None:
        self.port = free_port(host)
        self.root = f"http://{host}:{self.port}"
        self._ready_s = ready_s
        argv = filled(command, host, self.port)
        out = subprocess.DEVNULL if log is None else log.open("ab")
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=dict(os.environ)
        )

    async def until_ready(self) -> None:
        """Return when the engine answers. Raises RuntimeError when it ends before, or takes too long."""
        deadline = time.monotonic() + self._ready_s
        while not await asyncio.to_thread(self._is_healthy):
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"the engine was not ready within {self._ready_s:.0f} s")
            await asyncio.sleep(0.5)

    def check(self) -> None:
        """Raise RuntimeError if the process has ended."""
        status = self._process.poll()
        if status is not None:
            raise RuntimeError(f"the engine ended with status {status}")

    async def check_health(self) -> None:
        """Raise RuntimeError if the engine does not run, or does not answer."""
        self.check()
        if not await asyncio.to_thread(self._is_healthy):
            raise RuntimeError("the engine does not answer /health")

    def end(self, drain_s: float) -> None:
        """End the engine once nothing runs in it any more, or after `drain_s` seconds."""
        deadline = time.monotonic() + drain_s
        unlisted = time.monotonic() + min(UNLISTED_S, drain_s)
        while self._process.poll() is None and time.monotonic() < deadline:
            if time.monotonic() >= unlisted and not work_of(self._get("/metrics") or ""):
                break
            time.sleep(0.25)
        for number, patience_s in ((signal.SIGTERM, 30.0), (signal.SIGKILL, 5.0)):
            if self._process.poll() is None:
                os.killpg(self._process.pid, number)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
            return

    def _is_healthy(self) -> bool:
        return self._get("/health") is not None

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(self.root + path, timeout=ASK_S) as answer:  # noqa: S310 - our own address
                return str(answer.read(1 << 22).decode("utf-8", "replace"))
        except (OSError, urllib.error.URLError, ValueError):
            return None


def reply_to(path: str, query: str, root: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of what a replica answers: its engine's address, or a redirection to it."""
    if path.endswith(ENGINE_PATH):
        return 200, {"content-type": "application/json"}, json.dumps({"url": f"{root}/v1"}).encode()
    place = root + path + (f"?{query}" if query else "")
    return 307, {"location": place}, b""


def build(arguments: Mapping[str, Any]) -> Any:
    """Return the application for Ray Serve (IMPORT_PATH of application.py). `arguments`: command, ready_s, drain_s."""
    import ray
    from ray import serve

    command = [str(word) for word in arguments["command"]]
    ready_s, drain_s = float(arguments.get("ready_s", 1800)), float(arguments.get("drain_s", 130))
    log = arguments.get("log")

    class Engine:
        def __init__(self) -> None:
            self._engine = EngineProcess(
                command, ray.util.get_node_ip_address(), ready_s, None if log is None else Path(f"{log}.{os.getpid()}")
            )

        async def reconfigure(self, _config: object) -> None:
            await self._engine.until_ready()

        async def check_health(self) -> None:
            await self._engine.check_health()

        async def __call__(self, request: Any) -> Any:
            from starlette.responses import Response

            status, headers, body = reply_to(request.url.path, request.url.query, self._engine.root)
            return Response(body, status, headers)

        def __del__(self) -> None:
            self._engine.end(drain_s)

    return serve.deployment(name=DEPLOYMENT, user_config={}, graceful_shutdown_timeout_s=drain_s + 50)(Engine).bind()
