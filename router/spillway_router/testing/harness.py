"""A whole router in the test's process, behind a real socket, between real upstream sockets and a client that sees
bytes.

    async def test_it(tmp_path: Path) -> None:
        async with FaultUpstream(answer) as cloud, routing(config(...), tmp_path) as router:
            reply = await router.chat()
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn

from spillway_router.config import load as config
from spillway_router.config.load import Loaded
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.providers.interface import CatalogueEntry
from spillway_router.runtime.router import Runtime
from spillway_router.testing import Answer, FakeEngine, FaultUpstream, MemoryLedger

LIMIT_S = 20.0
"""The longest wait of a test, in seconds."""
MESSAGES = [{"role": "user", "content": "Which eye?"}]
PRICE = '{input_per_million: "1", output_per_million: "2"}'


def local(upstream: FaultUpstream | str, name: str = "local") -> str:
    """Return a line of `backends:` for a local vLLM."""
    return f"{{name: {name}, provider: vllm, local: true, model: m, base_url: '{_url(upstream)}'}}"


def cloud(upstream: FaultUpstream | str, name: str = "cloud", price: str = PRICE) -> str:
    """Return a line of `backends:` for a priced cloud."""
    url = _url(upstream)
    return f"{{name: {name}, provider: generic, model: {name}-m, api_key: k, base_url: '{url}', price: {price}}}"


def _url(upstream: FaultUpstream | str) -> str:
    return upstream if isinstance(upstream, str) else upstream.url


def settings(*backends: str, more: str = "") -> str:
    """Return the text of a spillway.yaml with these backends; `auto` tries them in this order."""
    return "backends:\n" + "".join(f"  - {line}\n" for line in backends) + more


@dataclass(frozen=True)
class Router:
    """A running router and its internals."""

    url: str
    runtime: Runtime
    ledger: Ledger
    client: httpx.AsyncClient
    path: Path

    async def post(self, body: Any, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
        """POST JSON, or bytes as they are. Header names are given with underscores."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, content=data, headers={"content-type": "application/json", **named})

    @functools.cached_property
    def admin(self) -> dict[str, str]:
        """The headers with an administrator's key, which is created when it is first needed."""
        spec = KeySpec("admin", role="admin")
        key = KeyStore(self.ledger.keys).create(spec, secrets.token_bytes(6), secrets.token_bytes(32), 0)
        return {"authorization": f"Bearer {key.token}"}

    async def reload(self) -> httpx.Response:
        """Ask for a reload of the configuration, as its administrator."""
        return await self.post(b"", "/admin/reload", **self.admin)

    async def chat(self, fields: Mapping[str, Any] | None = None, **headers: str) -> httpx.Response:
        """Request a chat completion."""
        return await self.post({"model": "auto", "messages": MESSAGES, **(fields or {})}, **headers)

    def forget_failures(self, *names: str) -> None:
        """Close the breakers of these backends (all if none is named), as healthy traffic in between would."""
        board = self.runtime.board
        now = self.runtime.services.clock()
        for name in names or board.current(now).backends:
            board.health(name, "down", "reset by the test")
            board.health(name, "up", "")

    def forget_calls(self) -> None:
        """Forget all that calls have shown: failures, rate limits and speeds, as a new router would. No call may be in
        progress."""
        board, assembly = self.runtime.board, self.runtime.config.assembly
        board.update((), {})
        board.update(assembly.backends, assembly.rates)
        for backend in assembly.backends:
            board.health(backend.name, "up", "")

    def rows(self, reply: httpx.Response) -> list[Entry]:
        """Return the ledger rows of the request behind this reply, except reservations."""
        return [e for e in self.ledger.entries_of(reply.headers["x-request-id"]) if e.kind != "reserved"]

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until the condition holds.

        Raises:
            TimeoutError: it did not hold within `LIMIT_S` seconds.
        """
        async with asyncio.timeout(LIMIT_S):
            while not true():  # noqa: ASYNC110 - the condition may be anything, so nothing signals it
                await asyncio.sleep(0.002)


@asynccontextmanager
async def routing(
    text: str,
    folder: Path | None = None,
    clock: Callable[[], float] | None = None,
    environment: Mapping[str, str] | None = None,
    catalogue: Mapping[str, CatalogueEntry] | None = None,
    *,
    wait: bool = True,
) -> AsyncIterator[Router]:
    """Run a router with this configuration. Its ledger is a file in `folder`, or in memory if there is none.

    With `wait`, every local engine has been probed once when the block begins.
    """
    path = (folder or Path("nowhere")) / "spillway.yaml"
    if folder is None:
        loaded = Loaded(config.parse(text, environment or {}), None, text, environment or {})
        ledger: Ledger = MemoryLedger()
    else:
        path.write_text(f"ledger: {{url: 'sqlite:///{folder / 'ledger.db'}'}}\n{text}")
        loaded = config.read(str(path), environment or {})
        ledger = open_ledger(loaded.settings.ledger.url)
    runtime = Runtime(
        loaded=loaded,
        ledger=ledger,
        version="test",
        clock=clock or time.monotonic,
        catalogue=_shipped() if catalogue is None else catalogue,
    )
    runtime.start()
    try:
        async with (
            serving(runtime.app, runtime.front) as url,
            _client(url) as client,
        ):
            router = Router(url=url, runtime=runtime, ledger=ledger, client=client, path=path)
            if wait:
                await router.until(lambda: _settled(runtime))
            yield router
    finally:
        await runtime.close()


@asynccontextmanager
async def pair(
    first: Answer | None = None,
    second: Answer | None = None,
    *,
    more: str = "",
    folder: Path | None = None,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[tuple[FaultUpstream, FaultUpstream, Router]]:
    """Run a local engine, a cloud, and a router that tries them in this order."""
    async with (
        FaultUpstream(first) as engine,
        FaultUpstream(second) as other,
        routing(settings(local(engine), cloud(other), more=more), folder, clock) as router,
    ):
        yield engine, other, router


Engine = TypeVar("Engine", FakeEngine, FaultUpstream)


@asynccontextmanager
async def escalating(
    engine: Engine, strong: Answer, *, rule: str, folder: Path | None = None
) -> AsyncIterator[tuple[Engine, FaultUpstream, Router]]:
    """Run an engine, a cloud named `cloud` one tier up, and a router with this confidence rule."""
    async with (
        _reached(engine) as url,
        FaultUpstream(strong) as other,
        routing(settings(local(url), cloud(other), more=rule), folder) as router,
    ):
        yield engine, other, router


@asynccontextmanager
async def _reached(engine: FakeEngine | FaultUpstream) -> AsyncIterator[str]:
    """Serve an engine and yield its base URL."""
    if isinstance(engine, FaultUpstream):
        async with engine:
            yield engine.url
    else:
        async with serving(engine) as url:
            yield url + "/v1"


def _client(url: str) -> httpx.AsyncClient:
    # Nothing here speaks TLS, and reading the system's certificates takes longer than a request.
    return httpx.AsyncClient(base_url=url, timeout=LIMIT_S, verify=False)  # noqa: S501


@functools.cache
def _shipped() -> Mapping[str, CatalogueEntry]:
    """Return the shipped catalogue, read only once."""
    return load_catalogue()


def _settled(runtime: Runtime) -> bool:
    """Return whether every local engine was probed once."""
    backends = runtime.board.current(runtime.services.clock()).backends.values()
    return all(b.health_reason != "not probed yet" for b in backends)


class _Server(uvicorn.Server):
    """A uvicorn server that signals when it listens, ends as soon as it is asked to, and leaves the process's signals
    alone.

    uvicorn itself checks ten times a second whether it should end and whether its connections are gone, which takes a
    fifth of a second in each of a thousand tests.
    """

    def __init__(self, app: Any, front: Any) -> None:
        super().__init__(uvicorn.Config(app, lifespan="off", access_log=False, log_config=None, http=front, ws="none"))
        self.listening = asyncio.Event()
        self.ending = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.ending.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn names it
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - uvicorn signals neither
            await asyncio.sleep(0.001)
        for server in self.servers:
            await server.wait_closed()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: Any, front: Any = "httptools") -> AsyncIterator[str]:
    """Serve an ASGI application behind a frontend on a free port of the loopback, and yield its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = _Server(app, front)
    task = asyncio.create_task(server.serve([listener]))
    try:
        async with asyncio.timeout(LIMIT_S):
            await server.listening.wait()
        yield "http://{}:{}".format(*listener.getsockname())
    finally:
        server.ending.set()
        async with asyncio.timeout(LIMIT_S):
            await task
        listener.close()


def events(reply: httpx.Response) -> list[bytes]:
    """Return the data of each event of a complete SSE body."""
    assert reply.headers["content-type"].startswith("text/event-stream"), reply.text
    blocks = reply.content.split(b"\n\n")
    assert blocks.pop() == b"", "the stream ended inside an event"
    lines = [line for block in blocks for line in block.split(b"\n")]
    return [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data:")]


def error_of(reply: httpx.Response) -> dict[str, Any]:
    """Return the error object of a reply after checking that it has its endpoint's shape."""
    body = reply.json()
    anthropic = reply.request.url.path.startswith("/v1/messages")
    assert set(body) == ({"type", "error"} if anthropic else {"error"}), body
    assert not anthropic or body["type"] == "error", body
    error: dict[str, Any] = {"param": None, **body["error"]} if anthropic else body["error"]
    assert set(error) == {"message", "type", "param", "code"}, body
    assert error["message"]
    return error
