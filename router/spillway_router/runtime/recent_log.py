"""The last lines of this process's log, for the page Setup. They are formatted as those that are written."""

from __future__ import annotations

import logging
from collections import deque

from spillway_router.runtime.logs import LogFormatter

MOST_LINES = 200
_LONGEST_LINE = 500


class RecentLog(logging.Handler):
    """Keeps the last records of all loggers from `attach` to `detach`: at most 100 kB."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(LogFormatter())
        self._lines: deque[str] = deque(maxlen=MOST_LINES)

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines, oldest first."""
        return tuple(self._lines)

    def attach(self) -> None:
        """Begin to keep lines; harmless when repeated."""
        logging.getLogger().addHandler(self)

    async def detach(self) -> None:
        """Keep no more lines."""
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record. A traceback is left out: standard error has it."""
        try:
            text = self.format(record).partition("\n")[0]
        except Exception:  # a record that can't be formatted is not worth a request
            self.handleError(record)
            return
        self._lines.append(text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}…")
