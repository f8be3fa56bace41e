"""How the router's log lines are written: nothing in one can forge another, steer a terminal, or repeat a prompt."""

from __future__ import annotations

import logging
import traceback
from types import TracebackType

from spillway_router.core.printable import printable

LINE = "%(asctime)s %(levelname)s %(name)s %(message)s"

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class LogFormatter(logging.Formatter):
    """Writes one line per record, with escapes for control characters. A traceback follows on lines of its own.

    The message of an exception from elsewhere is left out: it may repeat what a client sent.
    """

    def __init__(self) -> None:
        super().__init__(LINE)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging names it
        """Return the line without a traceback."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - logging names it
        """Return the traceback of an exception and of those that led to it, oldest first."""
        lines: list[str] = []
        error = ei[1]
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            frames = "".join(traceback.format_tb(error.__traceback__))
            lines.insert(0, f"Traceback (most recent call last):\n{frames}{_named(error)}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return printable("\n".join(lines), keeps="\n")


def _named(error: BaseException) -> str:
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    own = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    return f"{name}: {error}" if own or isinstance(error, OSError) else name


def configure_logging(handler: logging.Handler) -> None:
    """Send the records of all loggers to `handler`, those from INFO up."""
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
