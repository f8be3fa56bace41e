"""Upkeep: what a router does in the background so that the books stay right.

Every second it reads the balances again, because other processes spend too. Every few seconds, and at once after the
start, it records that this router is alive and closes the reservations of routers that are not. Beside that, it adds
new rows to the running sums from which reports are made.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from spillway_router.aio.periodic import Periodic, Rhythm
from spillway_router.core.money.tariff import usd
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.calls import LEDGER_CALLS
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.orphans import BEAT_S, close_orphans

log = logging.getLogger("spillway")

TEND_S = 1.0
SUM_EVERY_S = 5.0
ROWS_TO_SUM = 2_000
"""How many rows are added to the running sums at once: about 10 ms of the database's time, for which commits wait."""
CHUNKS_PER_ROUND = 20


class Upkeep:
    """Keeps the books right. Call `start` inside the event loop, and `stop` before the writer closes.

    `wall` returns epoch seconds.
    """

    def __init__(self, ledger: Ledger, accounts: Accounts, router_id: str, wall: Callable[[], float]) -> None:
        self._ledger = ledger
        self._accounts = accounts
        self._router_id = router_id
        self._wall = wall
        self.rows_to_sum = ROWS_TO_SUM
        self.chunks_per_round = CHUNKS_PER_ROUND
        self._beat_s = float("-inf")
        self._periodic = Periodic("ledger upkeep", Rhythm(TEND_S), self.tend, self._log_error)
        self._summing = Periodic("running sums", Rhythm(SUM_EVERY_S), self.sum_up, self._log_error)

    def start(self) -> None:
        """Start the upkeep; harmless when repeated."""
        self._periodic.start()
        self._summing.start()

    async def stop(self) -> None:
        """Stop the upkeep; harmless when repeated."""
        await self._summing.stop()
        await self._periodic.stop()

    async def tend(self) -> None:
        """Do one round. Raises LedgerError if the ledger can't be used now."""
        wall_s = self._wall()
        if wall_s - self._beat_s >= BEAT_S or wall_s < self._beat_s:
            charges = await LEDGER_CALLS.run(self._beat, int(wall_s * 1000))
            self._beat_s = wall_s
            if charges:
                log.warning(
                    "%d calls of a router that is gone were never settled; they are charged at their bound, %s USD, "
                    "until you run `spillway ledger reconcile`",
                    len(charges),
                    usd(sum(charge.amount_nano for charge in charges)),
                )
        await self._accounts.refresh(self._ledger)

    async def sum_up(self) -> None:
        """Add rows to the running sums: all new ones, or of an older ledger as many as one round may.

        Between two chunks it pauses for as long as the chunk took, so that commits come through. Raises LedgerError if
        the ledger can't be used now.
        """
        for _ in range(self.chunks_per_round):
            began_s = time.monotonic()
            if await LEDGER_CALLS.run(self._ledger.sum_up, self.rows_to_sum) < self.rows_to_sum:
                return
            await asyncio.sleep(time.monotonic() - began_s)

    def _beat(self, now_ms: int) -> tuple[Entry, ...]:
        self._ledger.alive(self._router_id, now_ms)
        return close_orphans(self._ledger, now_ms)

    @staticmethod
    def _log_error(error: Exception) -> None:
        if isinstance(error, LedgerError):
            log.warning("ledger upkeep waits: %s", error)
        else:
            log.error("ledger upkeep failed and will be repeated", exc_info=error)
