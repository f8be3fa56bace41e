"""The fixed side day by day: what the GPUs of a day cost, which answers used how much of it, and what nobody used.

Each day is split by itself (its bill over its own work), so the report of a month is the sum of its days' reports to
the nano-dollar, and so is every grouping of it: Used + Unused = Billed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spillway_router.core.money.attribution import FixedSplit, split_billed
from spillway_router.ledger.calendar import day_of
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord, Total
from spillway_router.ledger.rentals.books import Billed, accrued, written


@dataclass(frozen=True, slots=True)
class RentedDay:
    """Rented time of one UTC day: nano-dollars billed, microseconds of GPU time."""

    billed_nano: int
    gpu_us: int


@dataclass(frozen=True, slots=True)
class Rent:
    """Rented time of a range: per day (ISO date), and each rental with what it cost there."""

    days: Mapping[str, RentedDay]
    rentals: tuple[tuple[RentalRecord, Billed], ...]


@dataclass(frozen=True, slots=True)
class CostLine:
    """One group of attempts with its share of the fixed cost (0 in the cloud)."""

    total: Total
    used_nano: int


@dataclass(frozen=True, slots=True)
class FixedDay:
    """One day's bill and how it was split over `local`, the local groups of the day."""

    day: str
    rented: RentedDay
    split: FixedSplit
    local: tuple[Total, ...]

    @property
    def work_us(self) -> int:
        """Microseconds of GPU work of the day's local attempts."""
        return self.split.work_us


def rent(ledger: Ledger, start_ms: int, end_ms: int, now_ms: int) -> Rent:
    """What the rentals cost in [start, end), whole UTC days, as far as that is past."""
    # Read before the rentals' own rows: a row that is written in between is then counted once, not twice.
    rows = ledger.rented(start_ms, end_ms)
    parts: list[Billed] = []
    found = []
    on_books = 0
    for record in ledger.rentals.between(start_ms, end_ms):
        known = written(ledger, record)
        on_books += sum(row.amount_nano for row in known.parts.values() if start_ms <= row.ts < end_ms)
        mine = accrued(record, known, start_ms, end_ms, now_ms)
        parts += mine
        found.append((record, Billed(record.started_ms, sum(p.nano for p in mine), sum(p.gpu_us for p in mine))))
    if rows.billed_nano > on_books:
        parts += _without_rental(ledger, start_ms, end_ms, {record.id for record, _ in found})
    days: dict[str, list[Billed]] = defaultdict(list)
    for part in parts:
        if part.gpu_us or part.nano:
            days[day_of(part.ts)].append(part)
    return Rent(
        {day: RentedDay(sum(p.nano for p in of), sum(p.gpu_us for p in of)) for day, of in sorted(days.items())},
        tuple(found),
    )


def _without_rental(ledger: Ledger, start_ms: int, end_ms: int, known: set[str]) -> list[Billed]:
    """gpu_hour rows that no rental explains: from before rentals were kept, or written by others."""
    return [
        Billed(row.ts, row.amount_nano, row.gpu_us)
        for row in ledger.entries_between(start_ms, end_ms)
        if row.kind == "gpu_hour" and row.request_id not in known
    ]


def fixed_days(rented: Mapping[str, RentedDay], totals: Sequence[Total]) -> tuple[FixedDay, ...]:
    """Split each day's bill over its local work; days in order, those without rent and local work left out."""
    local: dict[str, list[Total]] = defaultdict(list)
    for total in totals:
        if total.local:
            local[total.day].append(total)
    found = []
    for day in sorted({*rented, *local}):
        of_day = rented.get(day, RentedDay(0, 0))
        shares = [max(0, total.gpu_us) for total in local[day]]
        found.append(FixedDay(day, of_day, split_billed(of_day.billed_nano, of_day.gpu_us, shares), tuple(local[day])))
    return tuple(found)


def lines(days: Sequence[FixedDay], totals: Sequence[Total]) -> tuple[CostLine, ...]:
    """Every group of attempts with what it used of the fixed cost."""
    used = [CostLine(total, nano) for day in days for total, nano in zip(day.local, day.split.used_nano, strict=True)]
    return (*used, *(CostLine(total, 0) for total in totals if not total.local))
