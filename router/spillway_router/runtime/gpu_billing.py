"""Bills the GPU time of a running router."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from spillway_router.aio.periodic import Periodic, Rhythm
from spillway_router.ledger.calls import LEDGER_CALLS
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.ids import new_rental_id
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.rentals.fixed_cost import FixedToday, fixed_today
from spillway_router.ledger.rentals.keeper import FixedTerms, RentalKeeper

log = logging.getLogger("spillway")

TICK_S = 60.0


class GpuBilling:
    """Opens the router's rental when it starts, writes rows every minute, and closes the rental when it stops.

    `wall` is epoch seconds. Call `start` inside the event loop.
    """

    def __init__(self, ledger: Ledger, terms: FixedTerms, wall: Callable[[], float] = time.time) -> None:
        self._keeper = RentalKeeper(ledger, terms, new_rental_id)
        self._is_free = terms.is_free
        self._wall = wall
        self._ledger = ledger
        self._begun = False
        self.today: FixedToday | None = None
        """The fixed cost of this UTC day so far, as of the last minute."""
        self._periodic = Periodic("GPU billing", Rhythm(TICK_S), self._bill, self._log_error)

    def start(self) -> None:
        """Start to bill."""
        self._periodic.start()

    async def stop(self) -> None:
        """Close this router's rental. Its rows are written, or the next start writes them."""
        if self._periodic.is_running:
            await self._periodic.stop()
            await self._write(self._keeper.end)

    async def reprice(self, terms: FixedTerms) -> None:
        """Bill on other terms from now on."""
        self._is_free = terms.is_free
        await self._write(lambda now_ms: self._keeper.reprice(terms, now_ms))

    async def _bill(self) -> None:
        if not self._begun:
            await LEDGER_CALLS.run(self._keeper.begin, self._now_ms())
            self._begun = True
        await LEDGER_CALLS.run(self._keeper.tick, self._now_ms())
        self.today = await LEDGER_CALLS.run(self._fixed_today)

    def _fixed_today(self) -> FixedToday:
        return fixed_today(self._ledger, self._now_ms(), is_free=self._is_free)

    async def _write(self, work: Callable[[int], None]) -> None:
        """Do work that the next tick repeats if the ledger is unavailable."""
        try:
            await LEDGER_CALLS.run(work, self._now_ms())
        except LedgerError as error:
            self._log_error(error)

    @staticmethod
    def _log_error(error: Exception) -> None:
        if isinstance(error, LedgerError):
            log.warning("GPU time could not be written and will be written later: %s", error)
        else:
            log.error("GPU billing failed and will be repeated", exc_info=error)

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)
