"""One line of the log per finished request, on demand: the line that `GET /v1/requests` has of it, never its text."""

from __future__ import annotations

import logging
from collections.abc import Callable

import orjson

from spillway_router.core.routing.model import RequestRecord
from spillway_router.proxy.control.request_list import line_of_record, line_values

log = logging.getLogger("spillway.requests")


class RequestLog:
    """A hook for finished requests. `is_wanted` says, at each of them, whether it is logged."""

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self._is_wanted = is_wanted

    def on_request(self, record: RequestRecord) -> None:
        """Log a finished request as a JSON object."""
        if self._is_wanted():
            log.info("%s", orjson.dumps(line_values(line_of_record(record))).decode())
