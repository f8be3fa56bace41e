"""Fixed costs that are no GPU: a database, a disk, hosting, traffic at a flat price.

They are lines of their own in every report and never GPUs, so no answer uses a part of them. The configuration lists
them (`fixed_costs`); a router stores each as an `OtherCost` that runs from its first day until it leaves the list, and
writes one `fixed` row per UTC day (books.py). A calendar month sums to exactly the price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spillway_router.ledger.calendar import DAY_MS
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import OtherCost


@dataclass(frozen=True, slots=True)
class OtherCostTerms:
    """Another fixed cost as configured: nano-dollars per calendar month. It runs from `since_ms` (epoch), else from the
    UTC day on which a router first reads it."""

    name: str
    price_nano_per_month: int
    since_ms: int | None = None


def keep_other_costs(ledger: Ledger, wanted: Sequence[OtherCostTerms], now_ms: int) -> None:
    """Begin and end other costs, so that exactly the configured ones run. Raises LedgerUnavailableError."""
    stored = ledger.other_costs.all()
    by_name = {terms.name: terms for terms in wanted}
    running = set()
    for cost in stored:
        terms = by_name.get(cost.name)
        if cost.stopped_ms is not None:
            continue
        if terms is not None and terms.price_nano_per_month == cost.price_nano_per_month:
            running.add(cost.name)
        else:
            ledger.other_costs.stop(cost.id, now_ms)
    for terms in wanted:
        if terms.name not in running:
            _begin(ledger, terms, [cost for cost in ledger.other_costs.all() if cost.name == terms.name], now_ms)


def _begin(ledger: Ledger, terms: OtherCostTerms, earlier: Sequence[OtherCost], now_ms: int) -> None:
    """Store a cost; of two routers that do it at once, one does, as the number in the id is taken then."""
    ended_ms = max((cost.stopped_ms or now_ms for cost in earlier), default=None)
    since_ms = now_ms // DAY_MS * DAY_MS if terms.since_ms is None else terms.since_ms
    if ended_ms is not None:  # another price: it begins where the old one ended, or now if it was taken out meanwhile
        since_ms = max(ended_ms, now_ms if terms.since_ms is None else terms.since_ms)
    ledger.other_costs.add(
        OtherCost(
            id=f"cost-{terms.name}-{len(earlier) + 1}",
            name=terms.name,
            price_nano_per_month=terms.price_nano_per_month,
            started_ms=since_ms,
            stopped_ms=None,
        )
    )
