"""Unexpected errors: exceptions that nobody planned for, so that they are faults of the router itself.

Each is logged once with its traceback and counted. The counter is one per process, like the log, because such an error
may come up where no service reaches. Errors that are planned for (a database that is away, a backend that breaks off)
do not belong here.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Literal, get_args

Place = Literal["request", "control", "audit", "background"]
"""Where it came up: in an inference request, in the control API, in an audit, or in the router's own periodic work."""

log = logging.getLogger("spillway")


class UnexpectedErrors:
    """Counts unexpected errors by place."""

    def __init__(self) -> None:
        self.counts: Counter[Place] = Counter(dict.fromkeys(get_args(Place), 0))
        self.latest: BaseException | None = None
        """The last one that was counted."""

    def note(self, place: Place, error: BaseException, message: str, *arguments: object) -> None:
        """Log the error with its traceback, and count it. `message` and `arguments` are those of a logger."""
        self.counts[place] += 1
        self.latest = error
        log.error(message, *arguments, exc_info=error)


UNEXPECTED = UnexpectedErrors()
