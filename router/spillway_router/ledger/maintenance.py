"""Upkeep: what a router does beside its requests so that the books stay right.

Every second it reads the balances again (other processes spend too) and tries again to store what ends a hold. Every
few seconds it says that it lives, and closes the reservations of routers that don't any more; the first time at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from spillway_router.aio.tasks import end
from spillway_router.core.money.tariff import usd
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.orphans import BEAT_S, close_orphans

log = logging.getLogger("spillway")

TEND_S = 1.0


class Upkeep:
    """Start it inside the event loop; `stop` before the writer closes. `wall` is epoch seconds."""

    def __init__(self, ledger: Ledger, accounts: Accounts, router_id: str, wall: Callable[[], float]) -> None:
        self._ledger = ledger
        self._accounts = accounts
        self._router_id = router_id
        self._wall = wall
        self._beat_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._forever(), name="ledger-upkeep")

    async def stop(self) -> None:
        """End; harmless when repeated. What ends a hold is queued once more."""
        task, self._task = self._task, None
        await end(task)
        self._accounts.retry()

    async def tend(self) -> None:
        """One round. Raises LedgerError if the ledger can't be used now."""
        self._accounts.retry()
        now = self._wall()
        if now - self._beat_at >= BEAT_S or now < self._beat_at:
            found = await asyncio.to_thread(self._beat, int(now * 1000))
            self._beat_at = now
            if found:
                amount = usd(sum(charge.amount_nano for charge in found))
                log.warning(
                    "%d calls of a router that is gone were never settled: charged at their bound, %s USD, until "
                    "`spillway ledger reconcile`",
                    len(found),
                    amount,
                )
        await self._accounts.refresh(self._ledger)

    def _beat(self, now_ms: int) -> tuple[Entry, ...]:
        self._ledger.alive(self._router_id, now_ms)
        return close_orphans(self._ledger, now_ms)

    async def _forever(self) -> None:
        while True:
            try:
                await self.tend()
            except LedgerError as error:
                log.warning("ledger upkeep waits: %s", error)
            await asyncio.sleep(TEND_S)
