"""Refusals and privacy verdicts in the audit log: the counts of every few minutes become one act."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from spillway_router.aio.periodic import Periodic, Rhythm
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.acts import ActLog, Change
from spillway_router.proxy.request.verdicts import Verdict, Verdicts

log = logging.getLogger("spillway")

EVERY_S = 300.0


class VerdictActs:
    """Appends an act where something was refused or private since the last one, and once more at the stop. While the
    ledger is away the counts stay in memory. `wall` returns epoch seconds."""

    def __init__(self, acts: ActLog, verdicts: Verdicts, wall: Callable[[], float]) -> None:
        self._acts = acts
        self._verdicts = verdicts
        self._wall = wall
        self._since_s = wall()
        self._periodic = Periodic("verdict acts", Rhythm(EVERY_S, wait_first=True), self.write, self._log_error)

    def start(self) -> None:
        """Start; harmless when repeated."""
        self._periodic.start()

    async def stop(self) -> None:
        """Stop, and append the last act."""
        await self._periodic.stop()
        try:
            await self.write()
        except LedgerError as error:
            self._log_error(error)

    async def write(self) -> None:
        """Append what was counted since the last time. Raises LedgerError; the counts are kept then."""
        counts, until_s = self._verdicts.take(), self._wall()
        if not counts:
            self._since_s = until_s
            return
        change = verdict_change(counts, self._since_s, until_s)
        try:
            await LEDGER_CALLS.run(self._acts.record, change, limit_s=CLIENT_LIMIT_S)
        except BaseException:
            self._verdicts.put_back(counts)
            raise
        self._since_s = until_s

    def _log_error(self, error: Exception) -> None:
        log.warning("refusals and privacy verdicts are not in the ledger yet: %s", error)


def verdict_change(counts: Counter[Verdict], since_s: float, until_s: float) -> Change:
    """Return the act of these counts; its subject is the time in which they were counted."""
    fields: dict[str, Any] = {}
    for (kind, key_id, reason), count in sorted(counts.items()):
        fields.setdefault(kind, []).append([key_id, reason, count])
    return Change("request.verdicts", f"{_time(since_s)}/{_time(until_s)}", fields)


def _time(wall_s: float) -> str:
    return datetime.fromtimestamp(int(wall_s), UTC).isoformat().replace("+00:00", "Z")
