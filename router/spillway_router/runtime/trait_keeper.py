"""Keeps what requests asked for in the ledger, for replays: seconds later and together, so that none waits for it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from itertools import islice

from spillway_router.aio.periodic import Periodic, Rhythm
from spillway_router.core.routing.model import RequestRecord
from spillway_router.ledger.calls import LEDGER_CALLS
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.request_traits import MOST_AT_ONCE, RequestTraits, TraitTable

log = logging.getLogger("spillway")

TICK_S = 5.0
PRUNE_EVERY = 720
"""Ticks from one pruning to the next: an hour."""
MOST_WAITING = 20_000
"""Rows that wait while the ledger is away; a new one then takes the place of the oldest."""
LONGEST_NAME = 200
"""Characters of a model's name that are kept."""
WRITE_S = 5.0


class TraitKeeper:
    """The rows that wait to be written. `wall` is epoch seconds. Call `start` inside the event loop."""

    def __init__(self, table: TraitTable, wall: Callable[[], float]) -> None:
        self._table = table
        self._wall = wall
        self._waiting: deque[RequestTraits] = deque(maxlen=MOST_WAITING)
        self._ticks = 0
        self._periodic = Periodic("request traits", Rhythm(TICK_S, wait_first=True), self._tick)

    def on_request(self, record: RequestRecord) -> None:
        """Note a request whose text a rule looked at."""
        facts = record.facts
        traits = facts.traits
        if traits is not None:
            model = facts.model[:LONGEST_NAME]
            self._waiting.append(RequestTraits(facts.request_id, model, traits.complexity, traits.language))

    def start(self) -> None:
        """Start to write."""
        self._periodic.start()

    async def stop(self) -> None:
        """Write what waits, and stop."""
        if self._periodic.is_running:
            await self._periodic.stop()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits. Rows that the ledger can't take now wait on."""
        waiting = self._waiting
        while waiting:
            batch = list(islice(waiting, MOST_AT_ONCE))
            try:
                await LEDGER_CALLS.run(self._table.put, batch, limit_s=WRITE_S)
            except LedgerError as error:
                log.debug("the traits of %d requests wait for the ledger: %s", len(waiting), error)
                return
            for row in batch:
                if waiting and waiting[0] is row:  # else newer rows have taken its place meanwhile
                    waiting.popleft()

    async def _tick(self) -> None:
        await self.flush()
        self._ticks += 1
        if self._ticks % PRUNE_EVERY == 1:
            await LEDGER_CALLS.run(self._table.prune, int(self._wall() * 1000), limit_s=WRITE_S)
