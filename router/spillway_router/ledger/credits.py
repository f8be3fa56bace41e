"""The credits of requests: taken before a request is sent, given back if nobody answered it (tables/credits.py)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from spillway_router.core.money.credits import Asker, Counted, CreditCap, CreditLine, caps_of
from spillway_router.core.money.users import anonymous_id
from spillway_router.core.routing.model import RequestFacts
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.credits import CreditTable

log = logging.getLogger("spillway")
_REQUEST: frozenset[Counted] = frozenset({"requests"})
_BETTER: frozenset[Counted] = frozenset({"requests", "better"})


class Credits:
    """The credits of this router's requests. `wall` returns epoch seconds. Use it on one event loop."""

    def __init__(self, table: CreditTable, wall: Callable[[], float]) -> None:
        self._table = table
        self._wall = wall
        self._lines: tuple[CreditLine, ...] = ()
        self.are_counted = False
        """True if the configuration has any. Keys may have some of their own."""
        self._returns: set[asyncio.Task[None]] = set()

    def load(self, lines: Sequence[CreditLine]) -> None:
        """Use the lines of a configuration. Those of single keys and tiers go before those of each."""
        self._lines = tuple(sorted(lines, key=lambda line: not line.scope.startswith("each ")))
        self.are_counted = bool(self._lines)

    def caps(self, facts: RequestFacts, *, better: bool) -> tuple[CreditCap, ...]:
        """Return the caps that a request takes a credit of. `better`: it asks for a better answer."""
        rules = facts.caller.rules
        own = () if rules is None else rules.credits
        if not self._lines and not own:
            return ()
        caller = facts.caller
        asker = Asker(caller.key_id, caller.tier, facts.user_id or anonymous_id(caller.key_id))
        return caps_of((*self._lines, *own), asker, _BETTER if better else _REQUEST, self._wall())

    async def take(self, caps: Sequence[CreditCap]) -> CreditCap | None:
        """Take a credit of each cap, or none of any, and return the cap that has none left.

        Raises LedgerUnavailableError. If the caller is cancelled meanwhile, what is taken is given back.
        """
        taking = asyncio.ensure_future(LEDGER_CALLS.run(self._table.take, caps, limit_s=CLIENT_LIMIT_S))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(lambda done: self._undo(done, caps))
            raise

    def give_back(self, caps: Sequence[CreditCap]) -> None:
        """Give credits back in the background. While the ledger is away they stay taken."""
        task = asyncio.ensure_future(self._give_back(caps))
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)

    async def close(self) -> None:
        """Wait until everything is given back."""
        await asyncio.gather(*self._returns)

    def _undo(self, taking: asyncio.Future[CreditCap | None], caps: Sequence[CreditCap]) -> None:
        if not taking.cancelled() and taking.exception() is None and taking.result() is None:
            self.give_back(caps)

    async def _give_back(self, caps: Sequence[CreditCap]) -> None:
        try:
            await LEDGER_CALLS.run(self._table.give_back, caps, limit_s=CLIENT_LIMIT_S)
        except LedgerError as error:
            log.warning("a credit of %s could not be given back: %s", caps[0].scope, error)
