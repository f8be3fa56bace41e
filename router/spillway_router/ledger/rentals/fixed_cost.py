"""Fixed cost day by day: what the GPUs of a day cost, how much of that each answer used, and how much was idle.

Each day is split by itself (its bill over its own work): first over its groups of attempts (`fixed_days`), then each
group's part over its API keys, and each key's part over its rows (`shared`). The report of a month is therefore the sum
of its days' reports to the nano-dollar, and so is every grouping of it, with or without keys: Used + Unused = Billed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from spillway_router.core.money.attribution import FixedSplit, split_billed
from spillway_router.ledger.calendar import DAY_MS, Days, day_of, utc_days
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import OtherCost, RentalRecord, Total
from spillway_router.ledger.rentals.books import FixedCost, RentedSpan, accrued, accrues_until, booked, meter_of
from spillway_router.ledger.rentals.local_days import on_days


@dataclass(frozen=True, slots=True)
class RentedDay:
    """The rented time of one UTC day: nano-dollars billed, and microseconds of GPU time."""

    billed_nano: int
    gpu_us: int


@dataclass(frozen=True, slots=True)
class Rent:
    """The rented time of a range: per day (ISO date), and each rental with its cost in that range."""

    days: Mapping[str, RentedDay]
    rentals: tuple[tuple[RentalRecord, RentedSpan], ...]


def unpriced_us(rentals: Iterable[tuple[RentalRecord, int]], *, is_free: bool) -> int:
    """Return the GPU-microseconds that are booked at 0 although nobody said that the GPU costs nothing. `rentals` are
    those of a time with their GPU-microseconds in it; `is_free`: the configuration gives the price 0."""
    if is_free:
        return 0
    return sum(gpu_us for each, gpu_us in rentals if not each.all_nano_per_hour and not each.price_nano_per_month)


@dataclass(frozen=True, slots=True)
class CostLine:
    """One group of attempts, with its share of the fixed cost (0 in the cloud).

    `idle_nano` is its share of the day's idle time, by work. It belongs to no group's cost, but to the cost of a
    request, of 1,000 tokens and of a document, which would otherwise look cheap on an idle GPU.
    """

    total: Total
    used_nano: int
    idle_nano: int = 0


@dataclass(frozen=True, slots=True)
class FixedDay:
    """One day's bill, and its split over `local`, the local groups of the day."""

    day: str
    rented: RentedDay
    split: FixedSplit
    local: tuple[Total, ...]

    @property
    def work_us(self) -> int:
        """Microseconds of GPU work of the day's local attempts."""
        return self.split.work_us


def rent(ledger: Ledger, start_ms: int, end_ms: int, now_ms: int) -> Rent:
    """Return what the rentals have cost in [start, end) until now; both ends must be the start of a UTC day."""
    return rent_of(ledger, utc_days(start_ms, end_ms), now_ms)


def rent_of(ledger: Ledger, days: Days, now_ms: int) -> Rent:
    """Return what the rentals have cost on some days until now."""
    # Only whole UTC days can be cut: a correction belongs to all of its day.
    start_ms, end_ms = days.start_ms // DAY_MS * DAY_MS, -(-days.end_ms // DAY_MS) * DAY_MS
    # Read before the rows of each rental, so that a row that is written in between counts once, not twice.
    rows = ledger.rented(start_ms, end_ms)
    spans: list[RentedSpan] = []
    rentals = []
    explained_nano = 0
    for record in ledger.rentals.between(start_ms, end_ms):
        on_books = booked(ledger, record)
        explained_nano += sum(row.amount_nano for row in on_books.rows if start_ms <= row.ts < end_ms)
        mine = accrued(record, on_books, start_ms=start_ms, end_ms=end_ms, now_ms=now_ms)
        if not days.is_utc:
            mine = on_days(record, mine, days)
        spans += mine
        rentals.append((record, RentedSpan(record.started_ms, *_sums(mine))))
    if rows.billed_nano > explained_nano:
        spans += _without_rental(ledger, days.start_ms, days.end_ms, {record.id for record, _ in rentals})
    by_day: dict[str, list[RentedSpan]] = defaultdict(list)
    for span in spans:
        if span.gpu_us or span.billed_nano:
            by_day[days.name_at(span.start_ms)].append(span)
    return Rent({day: RentedDay(*_sums(of_day)) for day, of_day in sorted(by_day.items())}, tuple(rentals))


def _sums(spans: Sequence[RentedSpan]) -> tuple[int, int]:
    """Return the nano-dollars and the GPU microseconds of some spans."""
    return sum(span.billed_nano for span in spans), sum(span.gpu_us for span in spans)


def _without_rental(ledger: Ledger, start_ms: int, end_ms: int, rental_ids: set[str]) -> list[RentedSpan]:
    """Return the gpu_hour rows, and their corrections, that no rental of the range explains: older than the table of
    rentals, written by other tools, or of a rental that ended earlier and whose correction is still to be written."""
    return [
        RentedSpan(row.ts, row.amount_nano, row.gpu_us)
        for row in ledger.entries_between(start_ms, end_ms)
        if "gpu_hour" in (row.kind, row.decision) and row.request_id not in rental_ids
    ]


@dataclass(frozen=True, slots=True)
class OtherCosts:
    """The fixed costs of a range that are no GPU: nano-dollars per day (ISO date), and per cost."""

    days: Mapping[str, int]
    costs: tuple[tuple[OtherCost, int], ...]

    @property
    def nano(self) -> int:
        """All of them together."""
        return sum(nano for _, nano in self.costs)


def other_costs(ledger: Ledger, days: Days, now_ms: int) -> OtherCosts:
    """Return what other fixed costs were on some days until now.

    Their rows are of whole UTC days, and follow from the cost alone, so its days in any time zone do too.
    """
    by_day: dict[str, int] = defaultdict(int)
    costs = []
    for cost in ledger.other_costs.all():
        meter = meter_of(cost)
        until_ms = now_ms if cost.stopped_ms is None else min(now_ms, cost.stopped_ms)
        whole_nano = 0
        for day, start_ms, end_ms in days.each():
            begin_ms, finish_ms = max(start_ms, cost.started_ms), min(end_ms, until_ms)
            if begin_ms < finish_ms:
                nano = meter.billed_nano(begin_ms, finish_ms)
                by_day[day] += nano
                whole_nano += nano
        if whole_nano:
            costs.append((cost, whole_nano))
    return OtherCosts(dict(sorted(by_day.items())), tuple(costs))


def fixed_days(rented: Mapping[str, RentedDay], totals: Sequence[Total]) -> tuple[FixedDay, ...]:
    """Split each day's bill over its local work, in the order of the days, without days that have no rent and no
    work."""
    local: dict[str, list[Total]] = defaultdict(list)
    for total in totals:
        if total.group.local:
            local[total.day].append(total)
    days = []
    for day in sorted({*rented, *local}):
        of_day = rented.get(day, RentedDay(0, 0))
        shares = [max(0, total.gpu_us) for total in local[day]]
        split = split_billed(of_day.billed_nano, of_day.gpu_us, shares)
        days.append(FixedDay(day, of_day, split, tuple(local[day])))
    return tuple(days)


def shared(nano: int, shares_us: Iterable[int], whole_us: int) -> Iterator[int]:
    """Split the amount of a group over its parts, in their order, as rounded differences of the running total.

    `whole_us` is the sum of the shares. The parts sum to the amount exactly, however many there are, and each is within
    a nano-dollar of its exact share.
    """
    so_far_us = so_far_nano = 0
    for share_us in shares_us:
        so_far_us += max(0, share_us)
        until_nano = nano * so_far_us // whole_us if whole_us else nano
        yield until_nano - so_far_nano
        so_far_nano = until_nano


def lines(days: Sequence[FixedDay], totals: Sequence[Total]) -> tuple[CostLine, ...]:
    """Return every group of attempts with its share of the fixed cost."""
    used: list[CostLine] = []
    for day in days:
        shares_us = [total.gpu_us for total in day.local]
        # On a day without work, or without a GPU that it could have run on, the bill is nobody's.
        idle_nano = day.split.idle_nano if day.work_us and day.rented.gpu_us else 0
        idle = shared(idle_nano, shares_us, day.work_us)
        used += map(CostLine, day.local, day.split.used_nano, idle)
    return (*used, *(CostLine(total, 0) for total in totals if not total.group.local))


@dataclass(frozen=True, slots=True)
class FixedToday:
    """The fixed cost of the running UTC day so far, in nano-dollars: GPUs, of which used and idle, and other costs;
    `unpriced_us` are the GPU-microseconds in it whose price nobody gave."""

    billed_nano: int
    used_nano: int
    idle_nano: int
    other_nano: int
    unpriced_us: int = 0


def fixed_today(ledger: Ledger, now_ms: int, *, is_free: bool = False) -> FixedToday:
    """Return the fixed cost of today so far, without reading the rows of rentals. `is_free`: the configuration gives
    the GPUs the price 0."""
    day_ms = now_ms // DAY_MS * DAY_MS
    rented_nano = rented_us = other_nano = 0
    rentals: list[tuple[RentalRecord, int]] = []
    costs: list[FixedCost] = [*ledger.rentals.between(day_ms, now_ms + 1), *ledger.other_costs.all()]
    for cost in costs:
        meter = meter_of(cost)
        until_ms = accrues_until(cost, now_ms) if cost.stopped_ms is None else min(now_ms, cost.stopped_ms)
        begin_ms = max(day_ms, cost.started_ms)
        if begin_ms >= until_ms:
            continue
        if isinstance(cost, OtherCost):
            other_nano += meter.billed_nano(begin_ms, until_ms)
        else:
            rented_nano += meter.billed_nano(begin_ms, until_ms)
            rentals.append((cost, meter.gpu_us(begin_ms, until_ms)))
            rented_us += rentals[-1][1]
    day = day_of(day_ms)
    (split, *_) = [
        each.split
        for each in fixed_days({day: RentedDay(rented_nano, rented_us)}, ledger.totals(day_ms, day_ms + DAY_MS))
        if each.day == day
    ]
    return FixedToday(
        billed_nano=rented_nano,
        used_nano=split.used_total_nano,
        idle_nano=split.idle_nano,
        other_nano=other_nano,
        unpriced_us=unpriced_us(rentals, is_free=is_free),
    )
