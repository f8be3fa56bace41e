"""Where `spillway rentals` reads and changes rentals: the ledger of the configuration, or a running router."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from spillway_router.commands.common import fail, load, now_ms, opened
from spillway_router.commands.running_router import RouterAddress, ask_json

if TYPE_CHECKING:
    from spillway_router.ledger.rentals.desk import RentalCorrection, RentalDesk, RentalStart
    from spillway_router.ledger.store.open import Access


class RentalBook(ABC):
    """Rentals as `ledger/rentals/desk.py` shows them. What can't be done ends the command with the reason."""

    @abstractmethod
    def rentals(self) -> list[dict[str, Any]]:
        """Return all rentals, oldest first, with what they have cost."""

    @abstractmethod
    def start(self, asked: RentalStart) -> dict[str, Any]:
        """Record a rental, and return it."""

    @abstractmethod
    def stop(self, rental_id: str, at: str) -> dict[str, Any]:
        """Record the end of a rental, or of `all` running ones."""

    @abstractmethod
    def correct(self, rental_id: str, asked: RentalCorrection) -> dict[str, Any]:
        """Put right what is recorded of a rental."""


@contextmanager
def rental_book(path: str | None, router: RouterAddress | None, access: Access) -> Iterator[RentalBook]:
    """Open the rentals of a router, or those of the configuration's ledger."""
    from spillway_router.config.costs import rental_defaults
    from spillway_router.ledger.rentals.desk import RentalDesk, RentalDeskError

    if router is not None:
        yield RouterRentals(router)
        return
    loaded = load(path)
    with opened(loaded, access) as ledger:
        try:
            yield LedgerRentals(RentalDesk(ledger, rental_defaults(loaded.settings), now_ms()))
        except RentalDeskError as error:
            term = error.term.replace("_", "-")
            fail(f"--{term} {error.problem}" if term else error.problem)


class LedgerRentals(RentalBook):
    """The rentals of a ledger."""

    def __init__(self, desk: RentalDesk) -> None:
        self._desk = desk

    def rentals(self) -> list[dict[str, Any]]:
        return self._desk.rentals()

    def start(self, asked: RentalStart) -> dict[str, Any]:
        return self._desk.start(asked)

    def stop(self, rental_id: str, at: str) -> dict[str, Any]:
        return self._desk.stop(rental_id, at)

    def correct(self, rental_id: str, asked: RentalCorrection) -> dict[str, Any]:
        return self._desk.correct(rental_id, asked)


class RouterRentals(RentalBook):
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
