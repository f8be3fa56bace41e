"""What people ask of rentals, in the same words on the command line and over HTTP: list, start, stop and correct them.

gpu, count, kind          what is rented; the configuration's GPUs where they are left out
price, price_per_month    USD per hour or per calendar month of one GPU, as text; one of them at most
source, machine           who rents it out, and the provider's ID of the machine, which `rentals watch` follows
at, from, until           ISO times, UTC if they name no zone; now, if left out
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, cast

from spillway_router.core.money.attribution import MOST_HOURLY_USD
from spillway_router.core.money.currency import Amounts
from spillway_router.core.money.tariff import NANO, TariffError, nano_from_usd, usd
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.books import ROUTER, accrues_until, billed_nano
from spillway_router.ledger.rentals.declared import correct, declare, end, overlapping
from spillway_router.ledger.rentals.keeper import RentalTerms

_KINDS = ("reserved", "interruptible")
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
"""A rental writes a row for each quarter of an hour, and rows stay: a mistyped year would leave a million of them."""
ALL = "all"
"""Stands for the ID of every running rental."""


class RentalDeskError(Exception):
    """What is asked can't be done. `term` is the word that is wrong, empty if it is the state of things."""

    def __init__(self, term: str, problem: str) -> None:
        super().__init__(f"{term} {problem}" if term else problem)
        self.term = term
        self.problem = problem


class UnknownRentalError(RentalDeskError):
    """No rental has the ID, or none that runs."""

    def __init__(self, problem: str) -> None:
        super().__init__("", problem)


@dataclass(frozen=True, slots=True)
class RentalDefaults:
    """The configured GPUs, whether their price is known, and the hours by which a price per month is turned into one
    per hour."""

    terms: RentalTerms
    price_known: bool
    hours_per_month: Decimal


@dataclass(frozen=True, slots=True)
class RentalStart:
    """A rental to record, as asked; what is empty is as configured."""

    gpu: str = ""
    count: int | None = None
    price: str = ""
    price_per_month: str = ""
    kind: str = ""
    source: str = "cli"
    machine: str = ""
    another: bool = False
    at: str = ""


@dataclass(frozen=True, slots=True)
class RentalCorrection:
    """What is right of a rental, as asked; what is empty was right before."""

    start: str = ""
    until: str = ""
    count: int | None = None
    price: str = ""
    price_per_month: str = ""
    void: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RentalDesk:
    """The rentals of a ledger at one moment. `by` is who changes them, empty for the ledger's own actor.

    Every method returns JSON values and may raise RentalDeskError or LedgerError.
    """

    ledger: Ledger
    defaults: RentalDefaults
    now_ms: int
    by: str = ""

    def rentals(self) -> list[dict[str, Any]]:
        """Return all rentals, oldest first, with what they have cost."""
        return [self._shown(record) for record in self._all()]

    def start(self, asked: RentalStart) -> dict[str, Any]:
        """Record a rental, and return it."""
        terms = self._terms(asked)
        if not asked.source or asked.source == ROUTER:
            raise RentalDeskError("source", f"{asked.source!r} is for the router's own rentals; name another one")
        at_ms = self._moment("at", asked.at)
        same = overlapping(self.ledger, terms, asked.source, at_ms, self.now_ms)
        if same and not asked.another:
            ids, name = ", ".join(record.id for record in same), rented(shown(same[0]))
            raise RentalDeskError("another", f"is needed if this is one more GPU: {ids} already records {name} then")
        return shown(declare(self.ledger, terms, asked.source, at_ms, self.now_ms, by=self.by))

    def stop(self, rental_id: str, at: str = "") -> dict[str, Any]:
        """Record the end of one rental or of all running ones, and return which, and their cost before and after."""
        at_ms = self._moment("at", at)
        running = [r for r in self._all() if r.stopped_ms is None and rental_id in (ALL, r.id)]
        if not running:
            which = "no rental is running" if rental_id == ALL else f"no running rental has the id {rental_id}"
            raise UnknownRentalError(f"{which}; list the rentals, and correct the end of one that has ended")
        early = [record for record in running if at_ms < record.started_ms]
        if early:
            began = f"{early[0].id} began, at {when(early[0].started_ms)}"
            raise RentalDeskError("at", f"is before {began}; stop it then or later")
        before_nano = self._cost(running)
        end(self.ledger, running, at_ms, self.now_ms, by=self.by)
        after_nano = self._cost([replace(record, stopped_ms=at_ms) for record in running])
        stopped = [{"id": record.id, "stopped": when(at_ms)} for record in running]
        return {"stopped": stopped, **_difference(before_nano, after_nano)}

    def correct(self, rental_id: str, asked: RentalCorrection) -> dict[str, Any]:
        """Put right what is recorded of a rental, and return its cost before and after."""
        record = next((r for r in self._all() if r.id == rental_id), None)
        if record is None:
            raise UnknownRentalError(f"no rental has the id {rental_id}; list the rentals")
        right = self._right(record, asked)
        before_nano, after_nano = self._cost([record]), self._cost([right])
        if not asked.dry_run:
            right = correct(self.ledger, record, right, self.now_ms, by=self.by)
        ids = {"id": record.id, "right_id": right.id, "dry_run": asked.dry_run}
        return {**ids, **_difference(before_nano, after_nano)}

    def _all(self) -> tuple[RentalRecord, ...]:
        return self.ledger.rentals.between(0, self.now_ms + 1)

    def _shown(self, record: RentalRecord) -> dict[str, Any]:
        cost_nano = self._cost([record])
        return {**shown(record), "cost_usd": usd(cost_nano), "cost_nano": cost_nano}

    def _cost(self, records: Sequence[RentalRecord]) -> int:
        def until_ms(record: RentalRecord) -> int:
            return accrues_until(record, self.now_ms) if record.stopped_ms is None else record.stopped_ms

        return sum(
            billed_nano(record, record.started_ms, max(record.started_ms, until_ms(record))) for record in records
        )

    def _terms(self, asked: RentalStart) -> RentalTerms:
        terms = self.defaults.terms
        kind = asked.kind or terms.kind
        if kind not in _KINDS:
            raise RentalDeskError("kind", f"{kind!r} is not known; use reserved or interruptible")
        price = _price(asked.price, asked.price_per_month, self.defaults.hours_per_month)
        if price is None and not self.defaults.price_known:
            raise RentalDeskError(
                "price", "is needed: 1.39 USD per hour of one GPU, a price per month instead, or one set under gpu"
            )
        if price is not None:
            terms = replace(terms, price_nano_per_hour=price.hour_nano, price_nano_per_month=price.month_nano)
        kind_of = cast('Literal["reserved", "interruptible"]', kind)
        count = terms.count if asked.count is None else asked.count
        _check_rate("price_per_month" if asked.price_per_month else "price", count, terms.price_nano_per_hour)
        return replace(terms, gpu=asked.gpu or terms.gpu, count=count, kind=kind_of, machine=asked.machine)

    def _right(self, record: RentalRecord, asked: RentalCorrection) -> RentalRecord:
        if replace(asked, dry_run=False) == RentalCorrection():
            raise RentalDeskError("", "nothing to correct: say from, until, price, price_per_month, count or void")
        price = _price(asked.price, asked.price_per_month, self.defaults.hours_per_month)
        right = record
        if price is not None:
            right = replace(
                right,
                price_nano_per_hour=price.hour_nano,
                price_nano_per_month=price.month_nano,
                whole_nano_per_hour=None,
            )
        if asked.count is not None and asked.count != record.count:
            right = replace(right, count=asked.count, whole_nano_per_hour=None)
        if right != record:
            _check_rate("price_per_month" if asked.price_per_month else "price", right.count, right.price_nano_per_hour)
        begin_ms = self._moment("from", asked.start) if asked.start else record.started_ms
        end_ms = begin_ms if asked.void else self._moment("until", asked.until) if asked.until else record.stopped_ms
        if end_ms is not None and end_ms < begin_ms:
            raise RentalDeskError(
                "", f"the rental would end at {when(end_ms)}, before it begins at {when(begin_ms)}; correct both"
            )
        return replace(right, started_ms=begin_ms, stopped_ms=end_ms)

    def _moment(self, term: str, text: str) -> int:
        """Return the epoch milliseconds of an ISO time, or of now if the text is empty."""
        if not text:
            return self.now_ms
        try:
            at = datetime.fromisoformat(text)
            at_ms = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
        except (ValueError, OverflowError):
            raise RentalDeskError(term, f"{text!r} is not a time; write it as 2026-11-20T14:00Z") from None
        if at_ms > self.now_ms:
            raise RentalDeskError(term, f"{text} is in the future; record it when it happens")
        if at_ms < _EARLIEST.timestamp() * 1000:
            raise RentalDeskError(term, f"{text} is before {_EARLIEST.year}; check the year")
        return at_ms


@dataclass(frozen=True, slots=True)
class _Price:
    """Nano-dollars of one GPU per hour, and per month where it is priced so."""

    hour_nano: int
    month_nano: int | None


def _price(per_hour: str, per_month: str, hours_per_month: Decimal) -> _Price | None:
    """Return the price that is asked for, None without one."""
    if per_hour and per_month:
        raise RentalDeskError("price", "per hour or price_per_month: give one of them, not both")
    text, term = (per_month, "price_per_month") if per_month else (per_hour, "price")
    if not text:
        return None
    try:
        nano = nano_from_usd(text)
    except TariffError as error:
        raise RentalDeskError(term, str(error)) from None
    if nano <= 0:
        raise RentalDeskError(term, "must be above 0 USD")
    return _Price(int(nano / hours_per_month), nano) if per_month else _Price(nano, None)


def _check_rate(term: str, count: int, hour_nano: int) -> None:
    """Raise RentalDeskError for a rental that costs more than any does."""
    if count * hour_nano > MOST_HOURLY_USD * NANO:
        raise RentalDeskError(term, f"x count is above {MOST_HOURLY_USD:,} USD per hour; check both")


def _difference(before_nano: int, after_nano: int) -> dict[str, str]:
    return {"cost_before_usd": usd(before_nano), "cost_usd": usd(after_nano)}


def shown(record: RentalRecord) -> dict[str, Any]:
    """Return a rental as JSON values."""
    month_nano = record.price_nano_per_month
    return {
        "id": record.id,
        "gpu": record.gpu,
        "count": record.count,
        "price_per_hour_usd": usd(record.price_nano_per_hour),
        "price_per_month_usd": None if month_nano is None else usd(month_nano),
        "kind": record.kind,
        "source": record.source,
        "machine": record.machine,
        "started": when(record.started_ms),
        "stopped": None if record.stopped_ms is None else when(record.stopped_ms),
        "seen": None if record.seen_ms is None else when(record.seen_ms),
    }


def rented(row: dict[str, Any]) -> str:
    """Return what is rented in words, of a rental as `shown` returns it."""
    hour, month = row["price_per_hour_usd"], row["price_per_month_usd"]
    price = f"{_money(hour)}/h" if month is None else f"{_money(month)}/month"
    return f"{row['count']} x {row['gpu'] or 'GPU'} at {price}"


def _money(amount_usd: str) -> str:
    return Amounts().money(nano_from_usd(amount_usd))


def when(ms: int) -> str:
    """Format epoch milliseconds as a UTC date and time."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
