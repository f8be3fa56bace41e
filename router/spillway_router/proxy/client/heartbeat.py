"""Keeps a client connected while a stream is held back from it: the 200 and comments, no bytes of any model."""

from __future__ import annotations

import asyncio

from spillway_router.proxy.client.client import Client
from spillway_router.proxy.client.replies import Lines

HEARTBEAT_S = 5.0
"""Between two comments; well below the minute after which proxies give up on a silent connection."""


class Heartbeat:
    """Keeps a client that waits connected: the 200 and a comment at `at`, more comments every HEARTBEAT_S."""

    __slots__ = ("_client", "_lines", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, client: Client, lines: Lines, after_s: float) -> None:
        self._loop, self._client, self._lines = loop, client, lines
        self._timer = loop.call_later(max(0.0, after_s), self._beat)

    def _beat(self) -> None:
        if self._client.wait_visibly(self._lines):
            self._timer = self._loop.call_later(HEARTBEAT_S, self._beat)

    def stop(self) -> None:
        """No more of them."""
        self._timer.cancel()
