"""Serving until a signal: the listener, uvicorn, what runs beside it, and the order in which they end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import uvicorn

from spillway_router.config.load import Loaded
from spillway_router.runtime.router import Runtime

DRAIN_S = 30
BACKLOG = 4096
KEEP_ALIVE_S = 75
"""How long a client's connection may rest: longer than the pools of usual clients keep theirs, so that they end it."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: it raises the signal again when it has served, which would end the
    process before the ledger is flushed and the engine stopped."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `route`."""
        yield


async def route(loaded: Loaded, version: str, on_listening: Callable[[str], None], beside: Sequence[Any] = ()) -> None:
    """Serve until SIGTERM or SIGINT. `beside`: coroutines that run as long (the engine's supervisor).

    Raises ConfigError, LedgerError, or OSError if the address is taken.
    """
    runtime = Runtime.open(loaded, version)
    settings = loaded.settings
    server = _Server(
        uvicorn.Config(
            runtime.app,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            date_header=False,
            timeout_graceful_shutdown=DRAIN_S,
            http=cast("type[asyncio.Protocol]", runtime.front),
            ws="none",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )
    listener = _listen(settings.host, settings.port)
    loop = asyncio.get_running_loop()
    helpers = [loop.create_task(work) for work in beside]
    reloads: set[asyncio.Task[list[str]]] = set()

    def reload() -> None:
        task = loop.create_task(runtime.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    for ending in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ending, server.handle_exit, ending, None)
    runtime.start()
    _spare_the_collector()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    on_listening(f"http://{host}:{listener.getsockname()[1]}")
    try:
        await server.serve(sockets=[listener])
    finally:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        await runtime.close()
        listener.close()


def _spare_the_collector() -> None:
    """What was built so far stays for good: the cycle collector need not walk it again. And it runs less often, as
    requests leave few cycles behind; it took a tenth of the router's time with the default thresholds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)  # from here on nobody is refused, though the first answer takes a moment yet
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener
