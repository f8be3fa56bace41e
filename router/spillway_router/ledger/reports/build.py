"""The two-sided report: what the rented GPUs cost, what the cloud cost, and what each would have cost alone.

The fixed side bills the rented time of each UTC day. Each local attempt used its work share of that time, and the rest
is idle (Used + Unused = Billed to the nano-dollar, day by day). The cloud side shows charges by the reason for which
the request went there, and unsettled holds (in flight, or lost in a crash), which count at their bound until they are
reconciled.

The what-if figures take the answered requests with the token counts of the backend that answered (instead.py).
All-cloud prices those that an alternative could have given, without cache discounts and rounded once. All-local takes
their work on this GPU at the configured coefficients, in whole GPUs, on average over the billed hours (peaks may need
more). The cost of a document is its cloud charge plus its share, by work, of the whole fixed bill of its day, idle time
included.

A report reads the running sums of its range (store/sums.py); the forecast reads one balance per day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from spillway_router.core.money.alternatives import Offer
from spillway_router.core.money.attribution import BreakEven, GpuRental, TrafficShape, break_even_at
from spillway_router.core.money.tariff import NANO, half_up
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Ledger, Sums
from spillway_router.ledger.records import RentalRecord, Total
from spillway_router.ledger.rentals.books import RentedSpan
from spillway_router.ledger.rentals.fixed_cost import (
    CostLine,
    FixedDay,
    OtherCosts,
    Rent,
    fixed_days,
    lines,
    other_costs,
    rent_of,
    unpriced_us,
)
from spillway_router.ledger.reports.days import (
    GroupKey,
    RangeError,
    ReportQuery,
    ReportRange,
    read_by,
    read_range,
    zone_name,
)
from spillway_router.ledger.reports.forecast import outlook
from spillway_router.ledger.reports.groups import Costs, group_rows, per, served_of, units_of
from spillway_router.ledger.reports.instead import Answers
from spillway_router.ledger.reports.model import (
    AllLocal,
    Alternative,
    CacheSide,
    CloudRow,
    CloudSide,
    CreditRow,
    FeedbackRow,
    FixedSide,
    LocalRow,
    OtherCostRow,
    OtherFixed,
    Period,
    PressedRow,
    RentalRow,
    Report,
    StepRow,
)
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.ledger.tables.credits import CreditsUsed
from spillway_router.ledger.tables.feedback import Opinion, Pressed

MOST_ROWS_OF_PEOPLE = 100
CLOUD_ROWS = (
    "overflow",
    "escalated",
    "fallback",
    "routed",
    "pinned",
    "byok",
    "referee",
    "audit",
    "shadow",
    "bill",
    "other",
)
_PRICE_PLACES = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class _Books:
    """The ledger data of one report."""

    totals: tuple[Total, ...]
    holds: tuple[Entry, ...]
    rent: Rent
    days: tuple[FixedDay, ...]
    lines: tuple[CostLine, ...]
    other: OtherCosts


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a report comes from: the ledger, its sums at one moment, the range, the present, and the grouping with the
    most groups that it may have, and the name of the alternative that groups are compared with (empty: the
    cheapest)."""

    ledger: Ledger
    sums: Sums
    days: ReportRange
    now_ms: int
    by: tuple[GroupKey, ...]
    most_groups: int | None
    against: str = ""


def report_for(
    ledger: Ledger, query: ReportQuery, terms: ReportTerms, now_ms: int, *, most_groups: int | None = None
) -> Report:
    """Build the report of a query, with `now_ms` (epoch milliseconds) as the present.

    Raises RangeError for a day, month or grouping that can't be used, also one with more than `most_groups` groups, and
    LedgerUnavailableError.
    """
    days, by = read_range(query, now_ms, terms.zone), read_by(query.by)
    if query.against and query.against not in terms.alternatives:
        raise RangeError(
            "against",
            f"against {query.against!r} is no priced model here; use one of {', '.join(sorted(terms.alternatives))}",
        )
    return build_report(ledger, days, terms, now_ms, by, most_groups=most_groups, against=query.against)


def build_report(
    ledger: Ledger,
    days: ReportRange,
    terms: ReportTerms,
    now_ms: int,
    by: tuple[GroupKey, ...] = (),
    *,
    most_groups: int | None = None,
    against: str = "",
) -> Report:
    """Build the report of a range; if the range is not over, up to now. Groups are compared with the alternative
    `against`, or with the cheapest one.

    Raises RangeError for more groups than `most_groups`, and LedgerUnavailableError.
    """
    with ledger.sums() as sums:
        source = _Source(
            ledger=ledger, sums=sums, days=days, now_ms=now_ms, by=by, most_groups=most_groups, against=against
        )
        return _built(source, terms)


def _built(source: _Source, terms: ReportTerms) -> Report:
    ledger, days, now_ms, by = source.ledger, source.days, source.now_ms, source.by
    books = _books(source)
    totals = books.totals
    fixed = _fixed_side(books, terms.gpu)
    cloud = _cloud_side([total for total in totals if not total.group.local and not total.group.cached], books.holds)
    request_nano = fixed.billed_nano + cloud.cost_nano
    answers = Answers(books.lines, source.sums.lengths(days.calendar), terms.coefficients, _scale(books.days))
    unpriced = unpriced_us(((each, span.gpu_us) for each, span in books.rent.rentals), is_free=terms.is_free)
    compared = _compared(fixed, answers, terms, request_nano)
    if unpriced:
        compared = tuple(map(_without_savings, compared))
    cheapest = min(compared, key=lambda one: (-one.answers, one.all_cloud_nano), default=None)
    against = next((one for one in compared if one.name == source.against), cheapest)
    served = served_of(totals)
    costs = Costs(
        lines=books.lines,
        days=books.days,
        holds=books.holds,
        instead=None if against is None or not by else answers.of_groups(terms.alternatives[against.name]),
        key_names=_key_names(ledger, by),
        other=books.other.days,
    )
    return Report(
        period=_period(days),
        day=days.first.isoformat() if days.days == 1 else None,
        start_ms=days.start_ms,
        end_ms=days.end_ms,
        made_ms=now_ms,
        requests=sum(total.requests for total in totals),
        fixed=fixed,
        cloud=cloud,
        total_nano=request_nano + books.other.nano,
        served=served,
        units=units_of(request_nano, served, _documents_nano(books)),
        alternatives=compared,
        cheapest=None if cheapest is None else cheapest.name,
        against=None if against is None else against.name,
        not_compared=tuple(sorted(terms.alternatives.keys() - {alternative.name for alternative in compared})),
        all_local=None if unpriced else _all_local(fixed, answers, request_nano),
        capacity_per_day=(86_400e6 * fixed.gpus * answers.sizes.answers / answers.work_us if answers.work_us else None),
        by=by,
        groups=group_rows(costs, by, source.sums, days, most_groups=source.most_groups) if by else (),
        forecast=outlook(ledger, now_ms, terms.month_budget_nano),
        steps=tuple(_steps([total for total in totals if not total.group.local])),
        feedback=tuple(
            _feedback_row(opinion, totals) for opinion in ledger.feedback.opinions(days.start_ms, days.end_ms)
        ),
        pressed=tuple(map(_pressed_row, ledger.feedback.pressed(days.start_ms, days.end_ms, MOST_ROWS_OF_PEOPLE))),
        credits=tuple(map(_credit_row, ledger.credits.used(days.start_ms, days.end_ms, MOST_ROWS_OF_PEOPLE))),
        currency=terms.currency,
        other=_other_fixed(books.other),
        unpriced_gpu_hours=unpriced / 3.6e9,
        cache=_cache_side([total for total in totals if total.group.cached]),
    )


def _books(source: _Source) -> _Books:
    """Read what a report needs from the ledger."""
    ledger, days = source.ledger, source.days
    totals = source.sums.totals(days.calendar)
    rented = rent_of(ledger, days.calendar, source.now_ms)
    split = fixed_days(rented.days, totals)
    return _Books(
        totals=totals,
        holds=ledger.open_reservations(days.start_ms, days.end_ms),
        rent=rented,
        days=split,
        lines=lines(split, totals),
        other=other_costs(ledger, days.calendar, source.now_ms),
    )


def _period(days: ReportRange) -> Period:
    return Period(
        name=days.name,
        first=days.first.isoformat(),
        after=days.after.isoformat(),
        days=days.days,
        timezone=zone_name(days.zone),
    )


def _compared(fixed: FixedSide, answers: Answers, terms: ReportTerms, request_nano: int) -> tuple[Alternative, ...]:
    """Return what the answers would have cost elsewhere, at each place that could have given one."""
    gpu = GpuRental(Decimal(fixed.price_per_hour_usd), fixed.gpus)
    offers = ((name, offer) for name, offer in terms.alternatives.items() if offer.comparable)
    each = (_alternative(name, offer, gpu, answers, request_nano) for name, offer in offers)
    return tuple(alternative for alternative in each if alternative is not None)


def _documents_nano(books: _Books) -> int:
    cloud = (total.cost_nano for total in books.totals if total.group.document and not total.group.local)
    return _document_nano(books.lines) + sum(cloud)


def _cache_side(cached: Sequence[Total]) -> CacheSide:
    served = served_of(cached)
    saved_nano = sum(total.saved_nano for total in cached)
    return CacheSide(served.answers, served.prompt_tokens, served.completion_tokens, saved_nano)


def _other_fixed(costs: OtherCosts) -> OtherFixed:
    rows = tuple(
        OtherCostRow(
            id=cost.id,
            name=cost.name,
            price_per_month_usd=_price_text(cost.price_nano_per_month),
            started_ms=cost.started_ms,
            stopped_ms=cost.stopped_ms,
            billed_nano=nano,
        )
        for cost, nano in costs.costs
    )
    return OtherFixed(costs.nano, rows)


def _pressed_row(pressed: Pressed) -> PressedRow:
    return PressedRow(
        key_id=pressed.key_id,
        tier=pressed.tier,
        user_id=pressed.user_id,
        asked=pressed.asked,
        compared=pressed.compared,
        mean_gain=pressed.gained_sum / pressed.compared if pressed.compared else None,
    )


def _credit_row(used: CreditsUsed) -> CreditRow:
    starts = datetime.fromtimestamp(used.start_ms // 1000, UTC).isoformat().replace("+00:00", "Z")
    return CreditRow(
        scope=used.scope, counted=used.counted, period=used.period, starts=starts, used=used.used, limit=used.limit
    )


def _feedback_row(opinion: Opinion, totals: Sequence[Total]) -> FeedbackRow:
    mine = [t for t in totals if (t.group.backend, t.group.model) == (opinion.backend, opinion.model)]
    answers = sum(t.answers for t in mine if t.group.answers)
    return FeedbackRow(
        backend=opinion.backend,
        model=opinion.model,
        ratings=opinion.ratings,
        satisfied_share=opinion.satisfied / opinion.ratings if opinion.ratings else None,
        mean_rating=opinion.rating_sum / opinion.ratings if opinion.ratings else None,
        better_asked=opinion.better_asked,
        better_share=opinion.better_asked / answers if answers else None,
    )


def _key_names(ledger: Ledger, by: tuple[GroupKey, ...]) -> dict[str, str]:
    records = ledger.keys.all() if "key" in by else ()
    return {record.id: record.name for record in records}


def _fixed_side(books: _Books, gpu: GpuRental) -> FixedSide:
    local = [line for line in books.lines if line.total.group.local]
    rows = []
    for backend, model in sorted({(line.total.group.backend, line.total.group.model) for line in local}):
        mine = [line for line in local if (line.total.group.backend, line.total.group.model) == (backend, model)]
        group = [line.total for line in mine]
        rows.append(
            LocalRow(
                backend=backend,
                model=model,
                served=served_of(group),
                # A discarded audit or shadow was never meant to answer the request, so it is not a discarded draft.
                discarded=sum(
                    t.attempts
                    for t in group
                    if t.group.status == "discarded" and t.group.decision not in ("referee", "audit", "shadow")
                ),
                gpu_seconds=sum(total.gpu_us for total in group) / 1e6,
                used_nano=sum(line.used_nano for line in mine),
            )
        )
    billed_nano = sum(day.rented.billed_nano for day in books.days)
    rented_us = sum(day.rented.gpu_us for day in books.days)
    # Work outside of rented time uses no part of the bill.
    worked_us = sum(min(day.work_us, day.rented.gpu_us) for day in books.days)
    served = served_of([line.total for line in local])
    price, gpus = _rented_at(books.rent, billed_nano, rented_us, gpu)
    return FixedSide(
        price_per_hour_usd=price,
        gpus=gpus,
        gpu_hours=rented_us / 3.6e9,
        billed_nano=billed_nano,
        used_nano=sum(day.split.used_total_nano for day in books.days),
        idle_nano=sum(day.split.idle_nano for day in books.days),
        utilisation=worked_us / rented_us if rented_us else 0.0,
        overcommitted=any(day.split.overcommitted and day.rented.gpu_us > 0 for day in books.days),
        rentals=tuple(_rental_row(record, span) for record, span in books.rent.rentals if span.gpu_us),
        rows=tuple(rows),
        served=served,
        units=units_of(billed_nano, served, _document_nano(books.lines)),
    )


def _rented_at(rented: Rent, billed_nano: int, gpu_us: int, gpu: GpuRental) -> tuple[str, int]:
    """Return the price of one GPU-hour in USD and the most GPUs at once; the configured ones if nothing was rented."""
    records = [record for record, span in rented.rentals if span.gpu_us]
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
    prices = {record.price_nano_per_hour for record in records if record.whole_nano_per_hour is None}
    if any(record.whole_nano_per_hour is not None for record in records):
        prices.add(-1)  # no single price per GPU-hour: the mean tells it
    if len(prices) == 1 and -1 not in prices:
        return _price_text(prices.pop()), most
    mean = Decimal(billed_nano) * 3_600_000_000 / gpu_us / NANO
    return f"{mean.quantize(_PRICE_PLACES):f}", most


def _rental_row(record: RentalRecord, span: RentedSpan) -> RentalRow:
    return RentalRow(
        id=record.id,
        gpu=record.gpu,
        count=record.count,
        price_per_hour_usd=_price_text(record.price_nano_per_hour),
        kind=record.kind,
        source=record.source,
        started_ms=record.started_ms,
        stopped_ms=record.stopped_ms,
        gpu_hours=span.gpu_us / 3.6e9,
        billed_nano=span.billed_nano,
        price_per_month_usd=None if record.price_nano_per_month is None else _price_text(record.price_nano_per_month),
    )


def _price_text(nano: int) -> str:
    """Return nano-dollars as a price in USD, without trailing zeros after the cents."""
    value = Decimal(nano) / NANO
    cents = value.quantize(Decimal("0.01"))
    return f"{cents if cents == value else value.normalize():f}"


def _document_nano(lines: Sequence[CostLine]) -> int:
    """Return the documents' share, by work, of the GPUs' whole bill; idle time is spread over the day's work."""
    return sum(line.used_nano + line.idle_nano for line in lines if line.total.group.document)


def _cloud_side(cloud: Sequence[Total], holds: Sequence[Entry]) -> CloudSide:
    rows = []
    for label in CLOUD_ROWS:
        group = [total for total in cloud if _label(total) == label]
        cost_nano = sum(total.cost_nano for total in group)
        served = served_of(group)
        rows.append(CloudRow(label, served, cost_nano, per(cost_nano, served.answers)))
    served = served_of(cloud)
    unsettled_nano = sum(hold.reserved_nano for hold in holds)
    cost_nano = sum(row.cost_nano for row in rows) + unsettled_nano
    document_nano = sum(total.cost_nano for total in cloud if total.group.document)
    return CloudSide(
        rows=tuple(rows),
        unsettled=len(holds),
        unsettled_nano=unsettled_nano,
        unsure=sum(total.unsure for total in cloud),
        estimated_nano=sum(total.estimated_nano for total in cloud),
        at_most_nano=sum(total.at_most_nano for total in cloud),
        cost_nano=cost_nano,
        served=served,
        units=units_of(cost_nano, served, document_nano),
    )


def _steps(cloud: Sequence[Total]) -> Iterator[StepRow]:
    """Yield a row for each backend that unsure answers were escalated to, and for each that judged answers."""
    for decision in ("escalated", "referee"):
        yield from _asked_as([total for total in cloud if total.group.decision == decision], decision == "referee")


def _asked_as(cloud: Sequence[Total], referee: bool) -> Iterator[StepRow]:
    for backend, model in sorted({(total.group.backend, total.group.model) for total in cloud}):
        group = [total for total in cloud if (total.group.backend, total.group.model) == (backend, model)]
        cost_nano, answered = sum(total.cost_nano for total in group), served_of(group).answers
        yield StepRow(
            backend=backend,
            model=model,
            asked=sum(total.attempts for total in group),
            answered=answered,
            discarded=sum(total.attempts for total in group if total.group.status == "discarded"),
            cost_nano=cost_nano,
            per_answer_nano=per(cost_nano, answered),
            referee=referee,
        )


def _label(total: Total) -> str:
    return total.group.decision if total.group.decision in CLOUD_ROWS else "other"


def _scale(days: Sequence[FixedDay]) -> Fraction:
    """Return by what the claimed work must be multiplied so that no rented day has more of it than time: work that was
    done on a GPU fitted there, whatever the coefficients say."""
    rented = [day for day in days if day.rented.gpu_us]
    claimed_us = sum(day.work_us for day in rented)
    return (
        Fraction(sum(min(day.work_us, day.rented.gpu_us) for day in rented), claimed_us) if claimed_us else Fraction(1)
    )


def _alternative(name: str, offer: Offer, gpu: GpuRental, answers: Answers, total_nano: int) -> Alternative | None:
    """Return the comparison with an offer; None if it could have given no answer although there were some."""
    there = answers.at(offer)
    if answers.sizes.answers and not there.sizes.answers:
        return None
    all_cloud_nano = half_up(there.cost)
    shape = TrafficShape(
        requests=there.sizes.answers,
        prompt_tokens=there.sizes.prompt_tokens,
        completion_tokens=there.sizes.completion_tokens,
        work_us=there.work_us,
    )
    return Alternative(
        name=name,
        tariff_ref=offer.newest.ref,
        answers=there.sizes.answers,
        all_cloud_nano=all_cloud_nano,
        savings_nano=all_cloud_nano - (total_nano - there.left_out_nano),
        break_even=break_even_at(gpu, shape, there.cost),
    )


def _without_savings(alternative: Alternative) -> Alternative:
    """Return a comparison without what the unknown price of a GPU would make a saving."""
    return replace(alternative, savings_nano=None, break_even=BreakEven(None, None))


def _all_local(fixed: FixedSide, answers: Answers, total_nano: int) -> AllLocal | None:
    rented_us = round(fixed.gpu_hours * 3.6e9)
    if not rented_us or not answers.sizes.answers:
        return None
    needed = max(fixed.gpus, -(-answers.work_us * fixed.gpus // rented_us))
    cost_nano = (2 * fixed.billed_nano * needed + fixed.gpus) // (2 * fixed.gpus)
    return AllLocal(needed, cost_nano, cost_nano - total_nano)
