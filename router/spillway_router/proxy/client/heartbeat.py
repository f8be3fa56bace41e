"""Keeps a client connected while its stream is silent: the 200 and comments, no bytes of any model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from spillway_router.proxy.client.client import Client
from spillway_router.proxy.client.replies import Lines

PULSE_S = 7.0
"""How often a stream that has started is looked at; a comment follows two looks without an event, within 14 s."""
HEARTBEAT_S = 5.0
"""Between two comments; well below the minute after which proxies give up on a silent connection."""


class Heartbeat:
    """Sends a waiting client the 200 and a comment after `after_s` seconds, and a comment every HEARTBEAT_S from then
    on, until it is stopped or the answer starts."""

    __slots__ = ("_client", "_headers", "_loop", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, client: Client, headers: Callable[[], Lines], after_s: float
    ) -> None:
        """`headers` makes the header lines of the 200 when it is sent."""
        self._loop, self._client, self._headers = loop, client, headers
        self._timer = loop.call_later(max(0.0, after_s), self._beat)

    def _beat(self) -> None:
        if self._client.send_waiting([] if self._client.waiting else self._headers()):
            self._timer = self._loop.call_later(HEARTBEAT_S, self._beat)

    def stop(self) -> None:
        """Send no more comments."""
        self._timer.cancel()


class Pulse:
    """Sends comments while a stream that has started is silent. `events` counts what has come of it so far.

    It costs a timer per stream and nothing per event. The relay writes whole events only, so a comment is never inside
    one.
    """

    __slots__ = ("_client", "_events", "_loop", "_seen", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, client: Client, events: Callable[[], int]) -> None:
        self._loop, self._client, self._events = loop, client, events
        self._seen = events()
        self._timer = loop.call_later(PULSE_S, self._beat)

    def _beat(self) -> None:
        events = self._events()
        if events == self._seen and not self._client.send_comment():
            return
        self._seen = events
        self._timer = self._loop.call_later(PULSE_S, self._beat)

    def stop(self) -> None:
        """Send no more comments."""
        self._timer.cancel()
