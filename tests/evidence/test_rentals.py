"""The measurement of rentals, in a short run: it notices a second that is billed twice or not at all."""

from __future__ import annotations

from dataclasses import replace

from evidence.measures_rentals import RENTALS_DIFFERENCE, own_gpus_difference, rentals_difference

from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.watch import RentalChange, Sighting, follow


def silent(line: str) -> None:
    """Print nothing."""


def test_rentals_are_what_the_provider_bills() -> None:
    measurement = rentals_difference(silent, lives=24)[RENTALS_DIFFERENCE]
    assert (measurement.value, measurement.n) == (0, 24), measurement.details
    seen = measurement.details["seen"]
    for what in ("crashes", "closed days corrected", "corrected by the bill", "lives told", "deployed again, goes on"):
        assert seen.get(what, 0) > 0, seen


def test_an_end_that_is_booked_when_it_is_noticed_is_found() -> None:
    """The fault: a machine's rental ends when somebody looks, and not when the provider says that it ended."""

    def late(ledger: Ledger, record: RentalRecord, sighting: Sighting, now_ms: int) -> list[RentalChange]:
        if sighting.state != "running":
            sighting = replace(sighting, since_ms=now_ms)
        return follow(ledger, record, sighting, now_ms)

    assert (rentals_difference(silent, lives=12, follow=late)[RENTALS_DIFFERENCE].value or 0) > 0


def test_routers_with_a_gpu_each_are_billed_for_their_uptime() -> None:
    assert own_gpus_difference(seed=7, lives=6) == 0
