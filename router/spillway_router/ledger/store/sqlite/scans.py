"""Sums over very many rows of the SQLite ledger, on connections of their own.

A report that reads a million rows takes a core for a second or more. On separate connections it delays nobody who reads
balances or looks up a request. Two connections share a long range, each on its own thread, because SQLite releases the
interpreter lock while it works.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import apsw
import orjson

from spillway_router.ledger.calendar import DAY_MS, day_of
from spillway_router.ledger.records import Total
from spillway_router.ledger.store.sql import TOTAL, total_order
from spillway_router.ledger.store.sqlite.file import translated
from spillway_router.ledger.store.sqlite.statements import TOTALS
from spillway_router.ledger.store.statements import REQUESTS

ROWS_TO_SHARE = 100_000
"""From about this many rows on, starting a second thread pays off."""
_ENDS = (
    "SELECT seq, ts FROM entries WHERE ts >= ? AND ts < ? ORDER BY ts LIMIT 1",
    "SELECT seq, ts FROM entries WHERE ts >= ? AND ts < ? ORDER BY ts DESC LIMIT 1",
)

Pair = tuple[apsw.Connection, apsw.Connection]


class Scans:
    """Sums over two read connections; methods may be called from any thread and wait for each other."""

    def __init__(self, path: Path, connections: Pair, rows_to_share: int = ROWS_TO_SHARE) -> None:
        self._path = path
        self._rows_to_share = rows_to_share
        self._connections = connections
        self._lock = Lock()

    def totals(self, start_ms: int, end_ms: int) -> tuple[Total, ...]:
        """Return the sums as `Ledger.totals` does."""
        with self._lock, translated(self._path):
            middle = self._middle(start_ms, end_ms)
            if middle is None:
                return _merged(self._read(0, TOTALS, (start_ms, end_ms)))
            with ThreadPoolExecutor(1, "ledger-scan") as other:
                late = other.submit(self._read, 1, TOTALS, (middle, end_ms))
                early = self._read(0, TOTALS, (start_ms, middle))
                return _merged(early + late.result())

    def requests(self, start_ms: int, end_ms: int) -> int:
        """Return the number of requests as `Ledger.requests` does."""
        with self._lock, translated(self._path):
            return int(self._read(0, REQUESTS, (start_ms, end_ms))[0][0])

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for connection in self._connections:
                connection.close()

    def _middle(self, start_ms: int, end_ms: int) -> int | None:
        """Return the time (epoch ms) at which two threads split a range, None if the range is short."""
        ends = [self._read(0, sql, (start_ms, end_ms)) for sql in _ENDS]
        if not all(ends):
            return None
        (first, since), (last, until) = (rows[0] for rows in ends)
        return (since + until) // 2 + 1 if abs(last - first) >= self._rows_to_share else None

    def _read(self, connection: int, sql: str, bound: Sequence[int]) -> list[tuple[Any, ...]]:
        return list(self._connections[connection].execute(sql, bound))


def _merged(rows: Iterable[tuple[Any, ...]]) -> tuple[Total, ...]:
    """Merge the groups of one or two ranges; the groups of the day at which a range was split are in both."""
    sums: dict[str, tuple[int, ...]] = {}
    for key, *values in rows:
        other = sums.get(key)
        sums[key] = tuple(values) if other is None else tuple(a + b for a, b in zip(other, values, strict=True))
    totals = [_total(orjson.loads(key), values) for key, values in sums.items()]
    return tuple(sorted(totals, key=total_order))


def _total(group: list[Any], values: tuple[int, ...]) -> Total:
    named = dict(zip(TOTAL, (*group, *values), strict=True))
    named["day"] = day_of(group[0] * DAY_MS)
    named["local"], named["document"] = bool(named["local"]), bool(named["document"])
    return Total(**named)
