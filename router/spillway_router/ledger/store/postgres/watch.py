"""The revision of the API keys, read by a thread so that callers never wait for the network.

Keys are checked on the event loop, which must not wait for a database on another machine, least of all for one that
doesn't answer.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock, Thread

from spillway_router.ledger.errors import LedgerError, LedgerUnavailableError

EVERY_S = 0.5
_JOIN_S = 10.0


class RevisionWatch:
    """The number that `read` returns, at most about `every_s` seconds old. `read` may block and raise LedgerError."""

    def __init__(self, read: Callable[[], int], every_s: float = EVERY_S) -> None:
        self._read = read
        self._every_s = every_s
        self._revision = 0
        self._failed: str | None = None
        self._stop = Event()
        self._reading = Lock()
        self._thread: Thread | None = None

    def value(self) -> int:
        """Return the number as last read; only the first call waits for it.

        Raises LedgerUnavailableError while the number can't be read.
        """
        if self._thread is None:
            with self._reading:
                if self._thread is None:
                    self._revision = self._read()
                    self._thread = Thread(target=self._run, name="ledger-keys", daemon=True)
                    self._thread.start()
        if self._failed is not None:
            raise LedgerUnavailableError(self._failed)
        return self._revision

    def refresh(self) -> None:
        """Read the number now, after a change made by this process. Raises LedgerError."""
        with self._reading:
            self._revision = self._read()
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
                    self._revision = self._read()
                    self._failed = None
                except LedgerError as error:
                    self._failed = str(error)
