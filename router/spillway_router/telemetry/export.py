"""Hands finished requests to OpenTelemetry: the hook only keeps the record, and a thread of its own does the rest."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.core.routing.model import RequestRecord
from spillway_router.telemetry.spans import Place, SpanValues, spans_of

log = logging.getLogger("spillway.telemetry")

MOST_WAITING = 4096
"""Records that may wait. Further ones are not exported, which is counted and logged."""
_MOST_AT_ONCE = 512
_PAUSE_S = 1.0
_STOP_S = 12.0


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """Where to send. `url` is the collector's base URL without a trailing slash, `instance` names this router."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    service_name: str
    version: str
    instance: str
    interval_s: float


class Sender(Protocol):
    """What sends spans and counts. Its methods may block."""

    def send_spans(self, spans: Sequence[SpanValues]) -> bool:
        """Send spans; return whether they were taken."""

    def count(self, record: RequestRecord, places: Mapping[str, Place]) -> None:
        """Count a finished request."""

    def close(self) -> None:
        """Send what waits and let go of everything."""


class TelemetryExport:
    """Exports finished requests. `on_request` is the hook; `places` are those of the backends in force.

    `open_sender` is called on the thread that exports, as it imports a lot.
    """

    def __init__(self, open_sender: Callable[[], Sender], places: Callable[[], Mapping[str, Place]]) -> None:
        self._open_sender = open_sender
        self._places = places
        self._waiting: deque[RequestRecord] = deque()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False
        self.dropped = 0
        """Records that were not exported, because too many waited."""

    def on_request(self, record: RequestRecord) -> None:
        """Keep a record for the export. Never waits."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(record)
        else:
            self.dropped += 1

    def start(self) -> None:
        """Start the thread that exports."""
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Export what waits, for a bounded time."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            await asyncio.to_thread(thread.join, _STOP_S)

    def _run(self) -> None:
        try:
            sender = self._open_sender()
            try:
                while not self._stopping.wait(_PAUSE_S):
                    self._export(sender)
                self._export(sender)
            finally:
                sender.close()
        except Exception as error:
            UNEXPECTED.note("background", error, "the export of spans and metrics has ended")

    def _export(self, sender: Sender) -> None:
        """Export what waits. Spans that the collector does not take are lost, which is logged once."""
        dropped, self.dropped = self.dropped, 0
        if dropped:
            log.warning("%d requests have no spans and are in no metrics: too many waited for the export", dropped)
        while self._waiting:
            places = self._places()
            records = [self._waiting.popleft() for _ in range(min(_MOST_AT_ONCE, len(self._waiting)))]
            spans: list[SpanValues] = []
            for record in records:
                sender.count(record, places)
                spans += spans_of(record, places)
            if spans:
                self._note(sender.send_spans(spans))

    def _note(self, taken: bool) -> None:
        if not taken and not self._failing:
            log.warning("the collector at telemetry.otlp_url takes no spans; they are lost until it does")
        elif taken and self._failing:
            log.info("the collector takes spans again")
        self._failing = not taken
