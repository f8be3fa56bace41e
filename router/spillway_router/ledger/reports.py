"""The two-sided report of a day: what the rented GPU cost, what the cloud cost, and what each would have
cost alone.

Fixed side: the gpu_hour rows of the day are billed; each local attempt used its work share of them, the
rest is idle (Used + Unused = Billed to the nano-dollar). Cloud side: charges of the day by the reason the
request went there, and holds that are not settled (in flight, or lost in a crash: they count at their bound
until reconciled).

"What if" figures take the day's answered requests with the token counts of the backend that answered.
All-cloud: priced at an alternative's tariff without cache discounts, rounded once. All-local: their work on
this GPU at the configured coefficients, in whole GPUs, on average over the billed hours (peaks may need
more). A document's cost is its cloud charge plus its part of the whole fixed bill by work, idle time
included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from spillway_router.core.attribution import (
    BreakEven,
    FixedSplit,
    GpuRental,
    TrafficShape,
    WorkCoefficients,
    break_even,
    split_billed,
    work_sum_us,
)
from spillway_router.core.tariff import Tariff, price_many
from spillway_router.ledger.base import Ledger, Rented, Total
from spillway_router.ledger.entries import ANSWERED

CLOUD_ROWS = ("overflow", "escalated", "fallback", "pinned", "byok", "other")


@dataclass(frozen=True, slots=True)
class Served:
    """Work done by one group: attempts, those that answered a request, documents among these, tokens of
    these."""

    attempts: int
    answers: int
    documents: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """Nano-dollars per answered request, per 1,000 tokens (prompt and completion), per document; None
    without any."""

    per_request_nano: int | None
    per_1k_tokens_nano: int | None
    per_document_nano: int | None


@dataclass(frozen=True, slots=True)
class LocalRow:
    """One local model: what it served, GPU seconds of work, its share of the bill. Discarded drafts were
    escalated."""

    backend: str
    model: str
    served: Served
    discarded: int
    gpu_seconds: float
    used_nano: int


@dataclass(frozen=True, slots=True)
class FixedSide:
    """The rented GPUs: price in USD per GPU-hour, GPU-hours billed, bill, its used and idle part,
    utilisation 0-1."""

    price_per_hour_usd: str
    gpus: int
    gpu_hours: float
    billed_nano: int
    used_nano: int
    idle_nano: int
    utilisation: float
    overcommitted: bool
    rows: tuple[LocalRow, ...]
    served: Served
    units: UnitCosts


@dataclass(frozen=True, slots=True)
class CloudRow:
    """Requests that went to the cloud for one reason: what was served there and what it cost."""

    decision: str
    served: Served
    cost_nano: int
    per_answer_nano: int | None


@dataclass(frozen=True, slots=True)
class CloudSide:
    """Per-request cost: rows by decision, attempts not settled yet at their bound, and the sum of both."""

    rows: tuple[CloudRow, ...]
    unsettled: int
    unsettled_nano: int
    cost_nano: int
    served: Served
    units: UnitCosts


@dataclass(frozen=True, slots=True)
class Alternative:
    """One priced model instead of everything: its cost for the day's answers, what was saved against it
    (negative: lost), and when renting the GPU pays against it."""

    name: str
    tariff_ref: str
    all_cloud_nano: int
    savings_nano: int
    break_even: BreakEven


@dataclass(frozen=True, slots=True)
class AllLocal:
    """Everything on the GPU instead: GPUs needed on average, fixed cost of that many for the billed hours."""

    gpus_needed: int
    cost_nano: int
    savings_nano: int


@dataclass(frozen=True, slots=True)
class Report:
    """The report of one UTC day (`start_ms` to `end_ms`, epoch milliseconds). `capacity_per_day`: answered
    requests of the day's mean shape that the rented GPUs could do in 24 hours at full load."""

    day: str
    start_ms: int
    end_ms: int
    requests: int
    fixed: FixedSide
    cloud: CloudSide
    total_nano: int
    served: Served
    units: UnitCosts
    alternatives: tuple[Alternative, ...]
    all_local: AllLocal | None
    capacity_per_day: float | None


def day_report(
    ledger: Ledger,
    day: date,
    gpu: GpuRental,
    coefficients: WorkCoefficients,
    alternatives: Mapping[str, Tariff],
) -> Report:
    """Build the report of a UTC day; of a day that still runs, as far as it is. Raises
    LedgerUnavailableError."""
    start_ms, end_ms = day_range(day)
    totals = ledger.totals(start_ms, end_ms)
    rented = ledger.rented(start_ms, end_ms)
    holds = ledger.open_reservations(start_ms, end_ms)
    local = [total for total in totals if total.local]
    split = split_billed(rented.billed_nano, rented.gpu_us, [max(0, total.gpu_us) for total in local])
    cloud = _cloud_side(
        [total for total in totals if not total.local], len(holds), sum(hold.reserved_nano for hold in holds)
    )
    total_nano = rented.billed_nano + cloud.cost_nano
    fixed = _fixed_side(local, split, rented, gpu)
    shape = _shape(totals, coefficients)
    served = _served(totals)
    document_nano = _document_nano(local, split) + sum(
        total.cost_nano for total in totals if total.document and not total.local
    )
    return Report(
        day=day.isoformat(),
        start_ms=start_ms,
        end_ms=end_ms,
        requests=ledger.requests(start_ms, end_ms),
        fixed=fixed,
        cloud=cloud,
        total_nano=total_nano,
        served=served,
        units=_units(total_nano, served, document_nano),
        alternatives=tuple(_alternative(name, tariff, gpu, shape, total_nano) for name, tariff in alternatives.items()),
        all_local=_all_local(rented, gpu, shape, total_nano),
        capacity_per_day=86_400e6 * gpu.count * shape.requests / shape.work_us if shape.work_us else None,
    )


def day_range(day: date) -> tuple[int, int]:
    """First millisecond of the UTC day and of the next one (epoch)."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return int(midnight.timestamp() * 1000), int((midnight + timedelta(days=1)).timestamp() * 1000)


def _served(totals: Sequence[Total]) -> Served:
    answered = [total for total in totals if total.status in ANSWERED]
    return Served(
        attempts=sum(total.attempts for total in totals),
        answers=sum(total.attempts for total in answered),
        documents=sum(total.attempts for total in answered if total.document),
        prompt_tokens=sum(total.prompt_tokens for total in answered),
        completion_tokens=sum(total.completion_tokens for total in answered),
    )


def _units(cost_nano: int, served: Served, document_nano: int) -> UnitCosts:
    tokens = served.prompt_tokens + served.completion_tokens
    return UnitCosts(
        _per(cost_nano, served.answers), _per(cost_nano * 1000, tokens), _per(document_nano, served.documents)
    )


def _per(nano: int, count: int) -> int | None:
    return (2 * nano + count) // (2 * count) if count else None


def _fixed_side(local: Sequence[Total], split: FixedSplit, rented: Rented, gpu: GpuRental) -> FixedSide:
    models = sorted({(total.backend, total.model) for total in local})
    rows = []
    for backend, model in models:
        mine = [
            (total, used)
            for total, used in zip(local, split.used_nano, strict=True)
            if (total.backend, total.model) == (backend, model)
        ]
        group = [total for total, _ in mine]
        rows.append(
            LocalRow(
                backend=backend,
                model=model,
                served=_served(group),
                discarded=sum(total.attempts for total in group if total.status == "discarded"),
                gpu_seconds=sum(total.gpu_us for total in group) / 1e6,
                used_nano=sum(used for _, used in mine),
            )
        )
    served = _served(local)
    return FixedSide(
        price_per_hour_usd=f"{gpu.price_per_hour:f}",
        gpus=gpu.count,
        gpu_hours=rented.gpu_us / 3.6e9,
        billed_nano=rented.billed_nano,
        used_nano=split.used_total_nano,
        idle_nano=split.idle_nano,
        utilisation=split.utilisation,
        overcommitted=split.overcommitted and rented.gpu_us > 0,
        rows=tuple(rows),
        served=served,
        units=_units(rented.billed_nano, served, _document_nano(local, split)),
    )


def _document_nano(local: Sequence[Total], split: FixedSplit) -> int:
    """The part of the whole fixed bill that documents bear by work, idle time spread over all work."""
    work = sum(max(0, total.gpu_us) for total in local)
    documents = sum(max(0, total.gpu_us) for total in local if total.document)
    billed = split.used_total_nano + split.idle_nano
    return (2 * billed * documents + work) // (2 * work) if work else 0


def _cloud_side(cloud: Sequence[Total], unsettled: int, unsettled_nano: int) -> CloudSide:
    rows = []
    for label in CLOUD_ROWS:
        group = [total for total in cloud if _label(total) == label]
        cost = sum(total.cost_nano for total in group)
        served = _served(group)
        rows.append(CloudRow(label, served, cost, _per(cost, served.answers)))
    served = _served(cloud)
    settled = sum(row.cost_nano for row in rows)
    documents = sum(total.cost_nano for total in cloud if total.document)
    return CloudSide(
        rows=tuple(rows),
        unsettled=unsettled,
        unsettled_nano=unsettled_nano,
        cost_nano=settled + unsettled_nano,
        served=served,
        units=_units(settled + unsettled_nano, served, documents),
    )


def _label(total: Total) -> str:
    return total.decision if total.decision in CLOUD_ROWS else "other"


def _shape(totals: Sequence[Total], coefficients: WorkCoefficients) -> TrafficShape:
    """All answered requests of the day, with the work they are or would be on the local GPU."""
    answered = [total for total in totals if total.status in ANSWERED]
    cloud = [total for total in answered if not total.local]
    work = sum(max(0, total.gpu_us) for total in answered if total.local) + work_sum_us(
        sum(total.prompt_tokens for total in cloud),
        sum(total.completion_tokens for total in cloud),
        sum(total.kv_token_steps_x2 for total in cloud),
        coefficients,
    )
    served = _served(answered)
    return TrafficShape(served.answers, served.prompt_tokens, served.completion_tokens, work)


def _alternative(name: str, tariff: Tariff, gpu: GpuRental, shape: TrafficShape, total_nano: int) -> Alternative:
    cost = price_many(shape.prompt_tokens, 0, shape.completion_tokens, shape.requests, tariff)
    return Alternative(name, tariff.ref, cost, cost - total_nano, break_even(gpu, shape, tariff))


def _all_local(rented: Rented, gpu: GpuRental, shape: TrafficShape, total_nano: int) -> AllLocal | None:
    if not rented.gpu_us or not shape.requests:
        return None
    needed = max(gpu.count, -(-shape.work_us * gpu.count // rented.gpu_us))
    cost = (2 * rented.billed_nano * needed + gpu.count) // (2 * gpu.count)
    return AllLocal(needed, cost, cost - total_nano)
