"""The keys' revision without waiting for the network: a thread looks, callers get what it saw last.

Keys are checked on the event loop, where nobody may wait for a database on another machine, least of all for one that
doesn't answer.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock, Thread

from spillway_router.ledger.errors import LedgerError, LedgerUnavailableError

EVERY_S = 0.5
_JOIN_S = 10.0


class RevisionWatch:
    """The number that `read` gives, at most about `every_s` seconds old. `read` may block and raise LedgerError."""

    def __init__(self, read: Callable[[], int], every_s: float = EVERY_S) -> None:
        self._read = read
        self._every_s = every_s
        self._seen = 0
        self._failed: str | None = None
        self._stop = Event()
        self._reading = Lock()
        self._thread: Thread | None = None

    def value(self) -> int:
        """The number as last seen; only the first call waits for it. Raises LedgerUnavailableError while it can't be
        read."""
        if self._thread is None:
            with self._reading:
                if self._thread is None:
                    self._seen = self._read()
                    self._thread = Thread(target=self._run, name="ledger-keys", daemon=True)
                    self._thread.start()
        if self._failed is not None:
            raise LedgerUnavailableError(self._failed)
        return self._seen

    def look(self) -> None:
        """Look now, after a change of our own. Raises LedgerError."""
        with self._reading:
            self._seen = self._read()
            self._failed = None

    def close(self) -> None:
        """Stop the thread; harmless when called twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            with self._reading:
                try:
                    self._seen = self._read()
                    self._failed = None
                except LedgerError as error:
                    self._failed = str(error)
