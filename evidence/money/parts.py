"""The parts of the money trials: the process of fake providers, routers, and clients that leave on command."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from spillway_router.testing.processes import ROOT, SPILLWAY, STOP_LIMIT_S, SpillwayProcess

LIMIT_S = 120.0
"""The limit of every wait."""
_ID = re.compile(rb"x-request-id: (\S+)\r\n", re.IGNORECASE)


class ProviderProcess:
    """A client of the process of fake providers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(timeout=LIMIT_S, trust_env=False)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def add(self, fake_providers: Mapping[str, Mapping[str, Any]]) -> None:
        """Open these fake providers (\"tills\")."""
        self._http.put(f"{self.url}/providers", content=json.dumps(fake_providers)).raise_for_status()

    def bill(self, since: int = 0) -> list[tuple[str, str, int]]:
        """Return the lines of the bill from number `since` on: provider, the caller's id of the call, nano-dollars."""
        lines: list[list[Any]] = self._http.get(f"{self.url}/bill?from={since}").raise_for_status().json()
        return [(str(till), str(call), int(nano)) for till, call, nano in lines]


@contextmanager
def fake_providers() -> Iterator[ProviderProcess]:
    """Run a process of fake providers, and end it afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtests.fake_providers"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        money = ProviderProcess(process.stdout.readline().strip())
        try:
            yield money
        finally:
            money.close()
    finally:
        process.terminate()
        process.wait(STOP_LIMIT_S)
        if process.stdout is not None:
            process.stdout.close()


def start_router(config: Path, *, ignores_caps: bool = False) -> SpillwayProcess:
    """Start `spillway route`, or the router with the seeded fault. End it with `stop_router`."""
    fault = [sys.executable, "-m", "evidence.money.faulty_router", str(config)]
    process = subprocess.Popen(
        fault if ignores_caps else [SPILLWAY, "route", "-c", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        cwd=ROOT,
    )
    router = SpillwayProcess(process)
    router.listen()
    return router


def stop_router(router: SpillwayProcess, *, kill: bool = False) -> None:
    """End a router with SIGTERM, or with SIGKILL."""
    if router.process.poll() is None:
        router.process.kill() if kill else router.process.terminate()
    router.ended()
    assert router.process.stdout is not None
    router.process.stdout.close()


def write_config(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the configuration of a router."""
    path.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", **settings}, sort_keys=False), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class MoneyRequest:
    """A request. The client hangs up `leave_s` after sending it, or with None stays to the end."""

    path: str
    body: Mapping[str, Any]
    token: str = ""
    leave_s: float | None = None


@dataclass(frozen=True, slots=True)
class ClientOutcome:
    """What the client saw: the status (0 without an answer), the request id if any, and whether it stayed to the
    end."""

    status: int
    request_id: str
    stayed: bool


async def send(url: str, asked: MoneyRequest) -> ClientOutcome:
    """Send a request on a connection of its own."""
    place = urlsplit(url)
    body = json.dumps(asked.body).encode()
    key = f"authorization: Bearer {asked.token}\r\n" if asked.token else ""
    head = (
        f"POST {asked.path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
        f"{key}content-length: {len(body)}\r\n\r\n"
    )
    got = bytearray()
    writer = None
    try:
        async with asyncio.timeout(LIMIT_S if asked.leave_s is None else asked.leave_s):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            writer.write(head.encode() + body)
            while data := await reader.read(65536):
                got += data
        return _told(bytes(got), stayed=True)
    except (TimeoutError, OSError):
        return _told(bytes(got), stayed=False)
    finally:
        if writer is not None:
            writer.transport.abort()
            await asyncio.sleep(0)  # the socket closes in the loop's next turn


def _told(got: bytes, *, stayed: bool) -> ClientOutcome:
    head = got.partition(b"\r\n\r\n")[0] + b"\r\n"
    request_id = _ID.search(head)
    status = int(got[9:12]) if got.startswith(b"HTTP/1.1 ") and len(got) > 12 else 0
    return ClientOutcome(status, request_id.group(1).decode() if request_id else "", stayed and status > 0)
