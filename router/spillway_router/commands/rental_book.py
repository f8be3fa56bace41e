"""Where `spillway rentals` reads and changes rentals: the ledger of the configuration, or a running router."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from spillway_router.commands.common import fail, load, now_ms, opened
from spillway_router.commands.running_router import LedgerOrRouter, RouterAddress, ask_json

if TYPE_CHECKING:
    from spillway_router.ledger.rentals.desk import RentalCorrection, RentalStart
    from spillway_router.ledger.store.open import Access


class RentalBook(Protocol):
    """Rentals as `ledger/rentals/desk.py` shows them. What can't be done ends the command with the reason."""

    def rentals(self) -> list[dict[str, Any]]:
        """Return all rentals, oldest first, with what they have cost."""
        ...

    def start(self, asked: RentalStart) -> dict[str, Any]:
        """Record a rental, and return it."""
        ...

    def stop(self, rental_id: str, at: str) -> dict[str, Any]:
        """Record the end of a rental, or of `all` running ones."""
        ...

    def correct(self, rental_id: str, asked: RentalCorrection) -> dict[str, Any]:
        """Put right what is recorded of a rental."""
        ...


@contextmanager
def rental_book(place: LedgerOrRouter, access: Access) -> Iterator[RentalBook]:
    """Open the rentals of a router, or those of the configuration's ledger."""
    from spillway_router.config.costs import rental_defaults
    from spillway_router.ledger.rentals.desk import RentalDesk, RentalDeskError

    if place.router is not None:
        yield RouterRentals(place.router)
        return
    loaded = load(place.config)
    with opened(loaded, access) as ledger:
        try:
            yield RentalDesk(ledger, rental_defaults(loaded.settings), now_ms())
        except RentalDeskError as error:
            term = error.term.replace("_", "-")
            fail(f"--{term} {error.problem}" if term else error.problem)


class RouterRentals:
    """The rentals of a running router: a key with the role viewer reads them, and one with the role admin changes
    them."""

    def __init__(self, router: RouterAddress) -> None:
        self._router = router

    def rentals(self) -> list[dict[str, Any]]:
        return list(ask_json(self._router, "GET", "/v1/rentals")["rentals"])

    def start(self, asked: RentalStart) -> dict[str, Any]:
        return self._ask("POST", "/admin/rentals", asdict(asked))

    def stop(self, rental_id: str, at: str) -> dict[str, Any]:
        return self._ask("POST", f"{_place(rental_id)}/stop", {"at": at})

    def correct(self, rental_id: str, asked: RentalCorrection) -> dict[str, Any]:
        values = asdict(asked)
        return self._ask("PATCH", _place(rental_id), {"from": values.pop("start"), **values})

    def _ask(self, method: str, path: str, values: dict[str, Any]) -> dict[str, Any]:
        body = {name: value for name, value in values.items() if value not in (None, "", False)}
        answer: dict[str, Any] = ask_json(self._router, method, path, body)
        return answer


def _place(rental_id: str) -> str:
    from urllib.parse import quote

    return f"/admin/rentals/{quote(rental_id, safe='')}"
