"""Serves until a signal: the listener, uvicorn, the coroutines that run along, and the order in which they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import cast

from uvicorn.config import Config
from uvicorn.server import Server

from spillway_router.aio.enduring import enduring
from spillway_router.aio.line_output import LineOutput
from spillway_router.config.load import ConfigError, Loaded
from spillway_router.config.tls import tls_context
from spillway_router.metrics.log import LogMetrics
from spillway_router.runtime.allocator import relieve_garbage_collector, tune_allocator
from spillway_router.runtime.descriptors import AMPLE, Descriptors, raised
from spillway_router.runtime.listener import ClientPlaces, ScarceListener
from spillway_router.runtime.router import Runtime

log = logging.getLogger("spillway")

SWITCH_INTERVAL_S = 0.0005
"""How long a thread computes before the event loop has its turn. The loop loses its turn with each call of a socket, of
which a request needs several: with Python's 5 ms a request waits 60 ms while a thread reads a body of many pictures."""

BACKLOG = 4096
KEEP_ALIVE_S = 75
"""How long a client's connection may be idle: longer than common clients keep it in their pools, so they close it."""


class _Server(Server):
    """uvicorn without its signal handling: it raises the signal again when it has finished, which would end the process
    before the ledger is flushed and the engine has stopped."""

    def __init__(self, config: Config, descriptors: Descriptors, leave: Callable[[], float]) -> None:
        """`leave` is called at the first signal to stop, and returns for how many seconds to serve on."""
        super().__init__(config)
        self._descriptors = descriptors
        self._leave = leave
        self._is_leaving = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `route`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; where descriptors are few, accept no more connections than they suffice for."""
        if self._descriptors.clients >= AMPLE or not sockets:
            await super().startup(sockets)
            return
        front: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        protocol = partial(front, self.config, self.server_state, {})
        places = ClientPlaces(self.server_state.connections, self._descriptors.clients)
        self.servers = [ScarceListener(each, protocol, places, self.config.ssl) for each in sockets]  # type: ignore[misc]
        self.started = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Leave and drain at the first signal, and end without waiting at the second one."""
        if self._is_leaving:
            self.should_exit = self.force_exit = True
            return
        self._is_leaving = True
        serve_s = self._leave()
        if serve_s > 0:
            asyncio.get_running_loop().call_later(serve_s, self._stop)
        else:
            self._stop()

    def _stop(self) -> None:
        self.should_exit = True


async def route(
    loaded: Loaded,
    version: str,
    on_listening: Callable[[str], None],
    companions: Sequence[Callable[[], Awaitable[object]]] = (),
    log_output: LineOutput | None = None,
    engine_log: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. `companions` are functions of coroutines that run as long, such as the engine's
    supervisor; one that fails begins again. What `log_output` drops is counted in the metrics.
    `engine_log` is the log file of the engine among them, which the page Setup shows.

    Raises ConfigError, LedgerError, or OSError if the address is in use.
    """
    tune_allocator()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    descriptors = raised()
    runtime = Runtime.open(loaded, version)
    try:
        await runtime.judge_places()
    except ConfigError:
        await runtime.close()
        raise
    if log_output is not None:
        runtime.metrics.add(LogMetrics(log_output))
    settings = loaded.settings
    tls = None if settings.tls is None else tls_context(settings.tls)
    runtime.tls = tls
    runtime.engine_log = engine_log
    server = _Server(
        Config(
            runtime.app,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            date_header=False,
            timeout_graceful_shutdown=math.ceil(settings.limits.stop_s),
            http=cast("type[asyncio.Protocol]", runtime.front),
            ws="none",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        ),
        descriptors,
        runtime.leave,
    )
    listener = _listen(settings.host, settings.port)
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(enduring("companion", companion)) for companion in companions]
    _handle_signals(loop, runtime, server)
    runtime.start()
    _log_places(descriptors, settings.limits.in_flight)
    relieve_garbage_collector()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    on_listening(f"{settings.scheme}://{host}:{listener.getsockname()[1]}")
    try:
        await server.serve(sockets=[listener])
    finally:
        await runtime.engine_watch.stop()  # the companions stop engines, which is no outage
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runtime.close()
        listener.close()


def _handle_signals(loop: asyncio.AbstractEventLoop, runtime: Runtime, server: _Server) -> None:
    """Reload on SIGHUP, prepare for the end of the machine on SIGUSR1, and stop to serve on SIGTERM and SIGINT."""
    reloads: set[asyncio.Task[list[str]]] = set()

    def reload() -> None:
        task = loop.create_task(runtime.reload("signal SIGHUP"))
        reloads.add(task)  # the loop keeps only weak references to tasks
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_signal_handler(signal.SIGUSR1, runtime.withdraw)
    for ending in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ending, server.handle_exit, ending, None)


def _log_places(descriptors: Descriptors, in_flight: int) -> None:
    """Say how many descriptors there are, and what follows if they are fewer than the configuration needs."""
    if descriptors.requests >= in_flight:
        log.info("%d file descriptors may be open", descriptors.limit)
        return
    log.warning(
        "only %d file descriptors may be open, so at most %d requests are in progress at a time, not limits.in_flight "
        "(%d); raise the hard limit (ulimit -Hn, LimitNOFILE)",
        descriptors.limit,
        descriptors.requests,
        in_flight,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)  # from here on no connection is refused, though the first answer takes a moment
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener
