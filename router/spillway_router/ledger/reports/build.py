"""The two-sided report: what the rented GPUs cost, what the cloud cost, and what each would have cost alone.

Fixed side: the rented time of each UTC day is billed; each local attempt used its work share of it, the rest is idle
(Used + Unused = Billed to the nano-dollar, day by day). Cloud side: charges by the reason the request went there, and
holds that are not settled (in flight, or lost in a crash: they count at their bound until reconciled).

"What if" figures take the answered requests with the token counts of the backend that answered. All-cloud: priced at an
alternative's tariff without cache discounts, rounded once. All-local: their work on this GPU at the configured
coefficients, in whole GPUs, on average over the billed hours (peaks may need more). A document's cost is its cloud
charge plus its part of the whole fixed bill of its day by work, idle time included.

A report reads the entries of its time once (`Ledger.totals`); the forecast reads balances, one per day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from spillway_router.core.money.attribution import GpuRental, TrafficShape, WorkCoefficients, break_even, work_sum_us
from spillway_router.core.money.tariff import NANO, Tariff, price_many
from spillway_router.ledger.entries import ANSWERED, Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord, Total
from spillway_router.ledger.rentals.fixed_cost import CostLine, FixedDay, Rent, fixed_days, lines, rent
from spillway_router.ledger.reports.days import GroupKey, ReportQuery, ReportRange, read_by, read_range
from spillway_router.ledger.reports.forecast import outlook
from spillway_router.ledger.reports.groups import Costs, group_rows, per, served_of, units_of
from spillway_router.ledger.reports.model import (
    AllLocal,
    Alternative,
    CloudRow,
    CloudSide,
    FeedbackRow,
    FixedSide,
    LocalRow,
    Period,
    RentalRow,
    Report,
)
from spillway_router.ledger.tables.feedback import Opinion

CLOUD_ROWS = ("overflow", "escalated", "fallback", "pinned", "byok", "audit", "other")
_PRICE_PLACES = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class ReportTerms:
    """What the configuration knows of costs: the GPU's price where nothing was rented, work per token, priced models,
    and the month's cap on all cloud spend in nano-dollars."""

    gpu: GpuRental
    coefficients: WorkCoefficients
    alternatives: Mapping[str, Tariff]
    month_budget_nano: int | None = None


@dataclass(frozen=True, slots=True)
class _Books:
    """What was read for one report."""

    totals: tuple[Total, ...]
    holds: tuple[Entry, ...]
    rent: Rent
    days: tuple[FixedDay, ...]
    lines: tuple[CostLine, ...]


def report_for(ledger: Ledger, query: ReportQuery, terms: ReportTerms, now_ms: int) -> Report:
    """Build the report of a query, with `now_ms` (epoch milliseconds) as the present.

    Raises RangeError for a day, month or grouping that can't be used, and LedgerUnavailableError.
    """
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    return build_report(ledger, read_range(query, today), terms, now_ms, read_by(query.by))


def build_report(
    ledger: Ledger, asked: ReportRange, terms: ReportTerms, now_ms: int, by: tuple[GroupKey, ...] = ()
) -> Report:
    """Build the report of a range; of one that still runs, as far as it is. Raises LedgerUnavailableError."""
    start_ms, end_ms = asked.start_ms, asked.end_ms
    totals = ledger.totals(start_ms, end_ms)
    rented = rent(ledger, start_ms, end_ms, now_ms)
    days = fixed_days(rented.days, totals)
    books = _Books(totals, ledger.open_reservations(start_ms, end_ms), rented, days, lines(days, totals))
    fixed = _fixed_side(books, terms.gpu)
    cloud = _cloud_side([total for total in totals if not total.local], books.holds)
    total_nano = fixed.billed_nano + cloud.cost_nano
    gpu = GpuRental(Decimal(fixed.price_per_hour_usd), fixed.gpus)
    shape = _shape(totals, terms.coefficients)
    alternatives = tuple(_alternative(n, tariff, gpu, shape, total_nano) for n, tariff in terms.alternatives.items())
    cheapest = min(alternatives, key=lambda a: a.all_cloud_nano, default=None)
    at = None if cheapest is None else terms.alternatives[cheapest.name]
    served = served_of(totals)
    document_nano = sum(map(_document_nano, days)) + sum(t.cost_nano for t in totals if t.document and not t.local)
    return Report(
        period=Period(asked.name, asked.first.isoformat(), asked.after.isoformat(), asked.days),
        day=asked.first.isoformat() if asked.days == 1 else None,
        start_ms=start_ms,
        end_ms=end_ms,
        made_ms=now_ms,
        requests=ledger.requests(start_ms, end_ms),
        fixed=fixed,
        cloud=cloud,
        total_nano=total_nano,
        served=served,
        units=units_of(total_nano, served, document_nano),
        alternatives=alternatives,
        cheapest=None if cheapest is None else cheapest.name,
        all_local=_all_local(fixed, shape, total_nano),
        capacity_per_day=86_400e6 * fixed.gpus * shape.requests / shape.work_us if shape.work_us else None,
        by=by,
        groups=group_rows(Costs(books.lines, days, books.holds, at, _key_names(ledger, by)), by) if by else (),
        forecast=outlook(ledger, now_ms, terms.month_budget_nano),
        feedback=tuple(_feedback_row(opinion, totals) for opinion in ledger.feedback.opinions(start_ms, end_ms)),
    )


def _feedback_row(opinion: Opinion, totals: Sequence[Total]) -> FeedbackRow:
    mine = [t for t in totals if (t.backend, t.model) == (opinion.backend, opinion.model)]
    answers = sum(t.requests for t in mine if t.status in ANSWERED)
    return FeedbackRow(
        opinion.backend,
        opinion.model,
        opinion.ratings,
        opinion.satisfied / opinion.ratings if opinion.ratings else None,
        opinion.rating_sum / opinion.ratings if opinion.ratings else None,
        opinion.better_asked,
        opinion.better_asked / answers if answers else None,
    )


def _key_names(ledger: Ledger, by: tuple[GroupKey, ...]) -> dict[str, str]:
    records = ledger.keys.all() if "key" in by else ()
    return {record.id: record.name for record in records}


def _fixed_side(books: _Books, gpu: GpuRental) -> FixedSide:
    local = [line for line in books.lines if line.total.local]
    rows = []
    for backend, model in sorted({(line.total.backend, line.total.model) for line in local}):
        mine = [line for line in local if (line.total.backend, line.total.model) == (backend, model)]
        group = [line.total for line in mine]
        rows.append(
            LocalRow(
                backend=backend,
                model=model,
                served=served_of(group),
                # A second look at an answer (decision audit) is no draft.
                discarded=sum(t.attempts for t in group if t.status == "discarded" and t.decision != "audit"),
                gpu_seconds=sum(total.gpu_us for total in group) / 1e6,
                used_nano=sum(line.used_nano for line in mine),
            )
        )
    billed = sum(day.rented.billed_nano for day in books.days)
    rented_us = sum(day.rented.gpu_us for day in books.days)
    # Work on time that nobody rented uses nothing of the bill.
    worked_us = sum(min(day.work_us, day.rented.gpu_us) for day in books.days)
    served = served_of([line.total for line in local])
    price, gpus = _rented_at(books.rent, billed, rented_us, gpu)
    return FixedSide(
        price_per_hour_usd=price,
        gpus=gpus,
        gpu_hours=rented_us / 3.6e9,
        billed_nano=billed,
        used_nano=sum(day.split.used_total_nano for day in books.days),
        idle_nano=sum(day.split.idle_nano for day in books.days),
        utilisation=worked_us / rented_us if rented_us else 0.0,
        overcommitted=any(day.split.overcommitted and day.rented.gpu_us > 0 for day in books.days),
        rentals=tuple(_rental_row(record, b.nano, b.gpu_us) for record, b in books.rent.rentals if b.gpu_us),
        rows=tuple(rows),
        served=served,
        units=units_of(billed, served, sum(map(_document_nano, books.days))),
    )


def _rented_at(rented: Rent, billed_nano: int, gpu_us: int, gpu: GpuRental) -> tuple[str, int]:
    """Price of one GPU-hour in USD and GPUs at once at most; the configuration's where nothing was rented."""
    records = [record for record, part in rented.rentals if part.gpu_us]
    if not records:
        return f"{gpu.price_per_hour:f}", gpu.count
    changes = sorted(
        [(r.started_ms, 1, r.count) for r in records]
        + [(r.stopped_ms, 0, -r.count) for r in records if r.stopped_ms is not None]
    )
    at_once = most = 0
    for _, _, change in changes:
        at_once += change
        most = max(most, at_once)
    prices = {record.price_nano_per_hour for record in records}
    if len(prices) == 1:
        return _price_text(prices.pop()), most
    mean = Decimal(billed_nano) * 3_600_000_000 / gpu_us / NANO
    return f"{mean.quantize(_PRICE_PLACES):f}", most


def _rental_row(record: RentalRecord, nano: int, gpu_us: int) -> RentalRow:
    return RentalRow(
        id=record.id,
        gpu=record.gpu,
        count=record.count,
        price_per_hour_usd=_price_text(record.price_nano_per_hour),
        kind=record.kind,
        source=record.source,
        started_ms=record.started_ms,
        stopped_ms=record.stopped_ms,
        gpu_hours=gpu_us / 3.6e9,
        billed_nano=nano,
    )


def _price_text(nano: int) -> str:
    """Nano-dollars as the price somebody wrote: without zeros behind the cents."""
    value = Decimal(nano) / NANO
    cents = value.quantize(Decimal("0.01"))
    return f"{cents if cents == value else value.normalize():f}"


def _document_nano(day: FixedDay) -> int:
    """The part of a day's whole bill that documents bear by work, idle time spread over all work."""
    documents = sum(max(0, total.gpu_us) for total in day.local if total.document)
    work = day.work_us
    return (2 * day.rented.billed_nano * documents + work) // (2 * work) if work and day.rented.gpu_us else 0


def _cloud_side(cloud: Sequence[Total], holds: Sequence[Entry]) -> CloudSide:
    rows = []
    for label in CLOUD_ROWS:
        group = [total for total in cloud if _label(total) == label]
        cost = sum(total.cost_nano for total in group)
        served = served_of(group)
        rows.append(CloudRow(label, served, cost, per(cost, served.answers)))
    served = served_of(cloud)
    unsettled_nano = sum(hold.reserved_nano for hold in holds)
    cost = sum(row.cost_nano for row in rows) + unsettled_nano
    documents = sum(total.cost_nano for total in cloud if total.document)
    return CloudSide(
        rows=tuple(rows),
        unsettled=len(holds),
        unsettled_nano=unsettled_nano,
        cost_nano=cost,
        served=served,
        units=units_of(cost, served, documents),
    )


def _label(total: Total) -> str:
    return total.decision if total.decision in CLOUD_ROWS else "other"


def _shape(totals: Sequence[Total], coefficients: WorkCoefficients) -> TrafficShape:
    """All answered requests, with the work they are or would be on the local GPU."""
    answered = [total for total in totals if total.status in ANSWERED]
    cloud = [total for total in answered if not total.local]
    work = sum(max(0, total.gpu_us) for total in answered if total.local) + work_sum_us(
        sum(total.prompt_tokens for total in cloud),
        sum(total.completion_tokens for total in cloud),
        sum(total.kv_token_steps_x2 for total in cloud),
        coefficients,
    )
    served = served_of(answered)
    return TrafficShape(served.answers, served.prompt_tokens, served.completion_tokens, work)


def _alternative(name: str, tariff: Tariff, gpu: GpuRental, shape: TrafficShape, total_nano: int) -> Alternative:
    cost = price_many(shape.prompt_tokens, 0, shape.completion_tokens, shape.requests, tariff)
    return Alternative(name, tariff.ref, cost, cost - total_nano, break_even(gpu, shape, tariff))


def _all_local(fixed: FixedSide, shape: TrafficShape, total_nano: int) -> AllLocal | None:
    rented_us = round(fixed.gpu_hours * 3.6e9)
    if not rented_us or not shape.requests:
        return None
    needed = max(fixed.gpus, -(-shape.work_us * fixed.gpus // rented_us))
    cost = (2 * fixed.billed_nano * needed + fixed.gpus) // (2 * fixed.gpus)
    return AllLocal(needed, cost, cost - total_nano)
