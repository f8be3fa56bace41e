"""Export of the ledger: JSON lines (every entry as stored), and FOCUS 1.2 cost and usage rows as CSV.

FOCUS (focus.finops.org) has two costs, which carry the two sides of this product:

    rented GPU time   a Purchase per rental and day: BilledCost is its price, EffectiveCost 0
    local attempts    Usage: BilledCost 0, EffectiveCost the attempt's work share, CommitmentDiscountStatus Used
    other fixed cost  a Purchase per cost and day: BilledCost = EffectiveCost
    idle time         one Usage row per day: BilledCost 0, EffectiveCost the rest, CommitmentDiscountStatus Unused
    cloud attempts    Usage: BilledCost = EffectiveCost = the charge; a later adjustment is a row with ChargeClass
                      Correction

Per day and to the nano-dollar, the EffectiveCost of Used + Unused equals the BilledCost of the GPUs' purchases, and
both columns have the same sum. The cost of all-cloud is not a list price, so ListCost and ContractedCost repeat what
was paid. Columns that begin with `x_` are Spillway's own, as FOCUS allows.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TextIO, cast

import orjson

from spillway_router.core.money.tariff import usd
from spillway_router.ledger.calendar import DAY_MS, day_of, start_of, utc_days
from spillway_router.ledger.entries import Entry, Status
from spillway_router.ledger.interface import Ledger, Sums
from spillway_router.ledger.records import Group, Total
from spillway_router.ledger.rentals.books import RentedSpan
from spillway_router.ledger.rentals.fixed_cost import FixedDay, fixed_days, other_costs, rent, shared
from spillway_router.ledger.reports.days import ReportRange

FOCUS_COLUMNS = (
    "BilledCost",
    "EffectiveCost",
    "ListCost",
    "ContractedCost",
    "BillingCurrency",
    "BillingAccountId",
    "BillingAccountName",
    "SubAccountId",
    "BillingPeriodStart",
    "BillingPeriodEnd",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "ConsumedQuantity",
    "ConsumedUnit",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "InvoiceIssuerName",
    "ServiceCategory",
    "ServiceSubcategory",
    "ServiceName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "SkuId",
    "SkuPriceId",
    "Tags",
    "x_RequestId",
    "x_AttemptNo",
    "x_Decision",
    "x_Status",
    "x_PromptTokens",
    "x_CompletionTokens",
    "x_GpuSeconds",
)
_DAILY_COLUMNS = ("x_Attempts", "x_Answers")
_US_PER_HOUR = 3_600_000_000
_MOST_SHAPES = 10_000
_START, _END = FOCUS_COLUMNS.index("ChargePeriodStart"), FOCUS_COLUMNS.index("ChargePeriodEnd")
_BILLED, _EFFECTIVE = FOCUS_COLUMNS.index("BilledCost"), FOCUS_COLUMNS.index("EffectiveCost")
_LIST, _CONTRACTED = FOCUS_COLUMNS.index("ListCost"), FOCUS_COLUMNS.index("ContractedCost")
_CONSUMED, _PRICING = FOCUS_COLUMNS.index("ConsumedQuantity"), FOCUS_COLUMNS.index("PricingQuantity")
_REQUEST, _ATTEMPT = FOCUS_COLUMNS.index("x_RequestId"), FOCUS_COLUMNS.index("x_AttemptNo")
_PROMPT, _COMPLETION = FOCUS_COLUMNS.index("x_PromptTokens"), FOCUS_COLUMNS.index("x_CompletionTokens")
_SECONDS = FOCUS_COLUMNS.index("x_GpuSeconds")

_Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class _Day:
    """One day's fixed cost: the rows of the purchases, how much of them was used and idle, and by which work."""

    start_ms: int
    purchases: tuple[_Row, ...]
    used_nano: int
    idle_nano: int
    idle_us: int
    work: Mapping[tuple[Group, str], _Work]


def export_jsonl(ledger: Ledger, start_ms: int, end_ms: int, out: TextIO) -> int:
    """Write the entries of [start, end) as JSON lines, in the order of writing; return their number."""
    count = 0
    for entry in ledger.entries_between(start_ms, end_ms):
        out.write(orjson.dumps(entry._asdict(), option=orjson.OPT_APPEND_NEWLINE).decode())
        count += 1
    return count


def export_focus(ledger: Ledger, days: ReportRange, now_ms: int, out: TextIO, *, daily: bool = False) -> int:
    """Write the FOCUS rows of some UTC days and return their number.

    There is a row per attempt, or with `daily` one per day, group of attempts and API key, whose figures are those of
    the report's groups to the nano-dollar. Unsettled holds are not a cost yet, so they have no row.
    """
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*FOCUS_COLUMNS, *_DAILY_COLUMNS) if daily else FOCUS_COLUMNS)
    count = 0
    for number in range(days.days):
        of_day = _daily_rows if daily else _day_rows
        for row in of_day(ledger, days.first + timedelta(days=number), now_ms):
            writer.writerow(row)
            count += 1
    return count


def _day_rows(ledger: Ledger, day: date, now_ms: int) -> Iterator[list[str]]:
    with ledger.sums() as sums:
        fixed = _fixed(ledger, sums, day, now_ms)
    yield from map(_cells, fixed.purchases)
    rows = _AttemptRows(fixed)
    for entry in ledger.entries_between(fixed.start_ms, fixed.start_ms + DAY_MS):
        if entry.kind == "charged" and entry.local and (entry.gpu_us or not entry.amount_nano):
            yield rows.local(entry)
        if entry.kind in ("charged", "adjusted") and (not entry.local or entry.amount_nano):
            yield rows.cloud(entry)
    # Work that has no row on this day, such as a correction of GPU time, leaves its share with the idle time.
    idle_nano = fixed.idle_nano + fixed.used_nano - rows.used_nano
    if idle_nano or fixed.idle_us:
        yield _cells(_unused(replace(fixed, idle_nano=idle_nano)))


def _daily_rows(ledger: Ledger, day: date, now_ms: int) -> Iterator[list[str]]:
    start_ms = start_of(day)
    with ledger.sums() as sums:
        fixed = _fixed(ledger, sums, day, now_ms)
        yield from map(_cells, fixed.purchases)
        for total in sums.key_totals(start_ms, start_ms + DAY_MS):
            work = fixed.work.get((total.group, total.key_id))
            if total.group.local and (total.gpu_us or not total.cost_nano):
                yield _cells(_local(fixed, _entry_of(total, start_ms), work.nano if work else 0, DAY_MS)) + _counts(
                    total
                )
            if not total.group.local or total.cost_nano:
                yield _cells(_cloud(fixed, _entry_of(total, start_ms), DAY_MS)) + _counts(total)
    if fixed.idle_nano or fixed.idle_us:
        yield _cells(_unused(fixed))


def _entry_of(total: Total, start_ms: int) -> Entry:
    """Return the sums of a day, a group and a key in the form of one attempt of that day."""
    group = total.group
    return Entry(
        kind="charged",
        request_id="",
        attempt_no=0,
        ts=start_ms,
        backend=group.backend,
        provider=group.provider,
        model=group.model,
        local=group.local,
        key_id=total.key_id,
        tier=group.tier,
        decision=group.decision,
        status=cast("Status", group.status),
        prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens,
        gpu_us=total.gpu_us,
        amount_nano=total.cost_nano,
        task=group.task,
        document=group.document,
    )


def _counts(total: Total) -> list[str]:
    return [str(total.attempts), str(total.answers)]


def _cells(row: _Row) -> list[str]:
    return [row.get(name, "") for name in FOCUS_COLUMNS]


@dataclass(slots=True)
class _Work:
    """The work of one group and API key on a day, its share of the bill, and what its rows have used of both so far."""

    us: int
    nano: int
    so_far_us: int = 0
    so_far_nano: int = 0


class _AttemptRows:
    """Makes the rows of a day's attempts.

    Attempts that differ only in time, size and cost share a row, of which a copy is filled in.
    """

    def __init__(self, day: _Day) -> None:
        self.used_nano = 0
        self._day = day
        self._alike: dict[tuple[object, ...], list[str]] = {}

    def local(self, entry: Entry) -> list[str]:
        """Return the row of a local attempt, with its share of the bill."""
        used_nano = self._share(entry)
        self.used_nano += used_nano
        cells = self._like(entry, lambda: _local(self._day, entry, 0, 1))
        cells[_EFFECTIVE] = cells[_LIST] = cells[_CONTRACTED] = usd(used_nano)
        cells[_CONSUMED] = cells[_PRICING] = _decimal(entry.gpu_us, _US_PER_HOUR)
        return cells

    def cloud(self, entry: Entry) -> list[str]:
        """Return the row of a paid attempt or of its adjustment."""
        cells = self._like(entry, lambda: _cloud(self._day, entry, 1))
        cells[_BILLED] = cells[_EFFECTIVE] = cells[_LIST] = cells[_CONTRACTED] = usd(entry.amount_nano)
        cells[_CONSUMED] = cells[_PRICING] = str(entry.prompt_tokens + entry.completion_tokens)
        return cells

    def _share(self, entry: Entry) -> int:
        group = Group._make(map(entry.__getattribute__, Group._fields))
        work = self._day.work.get((group, entry.key_id))
        if work is None or not work.us:
            return 0
        work.so_far_us = min(work.us, work.so_far_us + max(0, entry.gpu_us))
        until_nano = work.nano * work.so_far_us // work.us
        share_nano, work.so_far_nano = until_nano - work.so_far_nano, until_nano
        return share_nano

    def _like(self, entry: Entry, first: Callable[[], _Row]) -> list[str]:
        shape = (*entry[4:13], entry.kind, entry.tariff_ref, entry.task, bool(entry.amount_nano))
        cells = self._alike.get(shape)
        if cells is None:
            if len(self._alike) >= _MOST_SHAPES:
                self._alike.clear()
            cells = self._alike[shape] = _cells(first())
        cells = cells.copy()
        cells[_START], cells[_END] = _time(entry.ts), _time(entry.ts + 1)
        cells[_REQUEST], cells[_ATTEMPT] = entry.request_id, str(entry.attempt_no)
        cells[_PROMPT], cells[_COMPLETION] = str(entry.prompt_tokens), str(entry.completion_tokens)
        cells[_SECONDS] = _decimal(entry.gpu_us, 1_000_000)
        return cells


def _fixed(ledger: Ledger, sums: Sums, day: date, now_ms: int) -> _Day:
    start_ms = start_of(day)
    rented = rent(ledger, start_ms, start_ms + DAY_MS, now_ms)
    bought = [(record.id, record.gpu, span) for record, span in rented.rentals if span.billed_nano or span.gpu_us]
    whole = rented.days.get(day.isoformat())
    if whole is not None:
        unnamed_nano = whole.billed_nano - sum(span.billed_nano for *_, span in bought)
        unnamed_us = whole.gpu_us - sum(span.gpu_us for *_, span in bought)
        if unnamed_nano or unnamed_us:
            bought.append(("unnamed", "", RentedSpan(start_ms, unnamed_nano, unnamed_us)))
    calendar = utc_days(start_ms, start_ms + DAY_MS)
    other = other_costs(ledger, calendar, now_ms)
    purchases = (
        *(_purchase(start_ms, *each) for each in bought),
        *(_other_purchase(start_ms, cost.name, nano) for cost, nano in other.costs if nano),
    )
    for fixed in fixed_days(rented.days, sums.totals(calendar)):
        return _Day(
            start_ms=start_ms,
            purchases=purchases,
            used_nano=fixed.split.used_total_nano,
            idle_nano=fixed.split.idle_nano,
            idle_us=max(0, fixed.rented.gpu_us - fixed.work_us),
            work=_work_of(fixed, sums, start_ms),
        )
    return _Day(start_ms=start_ms, purchases=purchases, used_nano=0, idle_nano=0, idle_us=0, work={})


def _work_of(fixed: FixedDay, sums: Sums, start_ms: int) -> dict[tuple[Group, str], _Work]:
    """Return the work of each group and API key on a day, with its share of the bill as in the report's groups."""
    used_nano = {total.group: nano for total, nano in zip(fixed.local, fixed.split.used_nano, strict=True)}
    works: dict[tuple[Group, str], _Work] = {}
    for work in sums.key_work(utc_days(start_ms, start_ms + DAY_MS)):
        shares_us = [max(0, share) for _, share in work.shares_us]
        parts = shared(used_nano[work.group], shares_us, sum(shares_us))
        for (key_id, _), share_us, nano in zip(work.shares_us, shares_us, parts, strict=True):
            works[work.group, key_id] = _Work(share_us, nano)
    return works


def _purchase(start_ms: int, rental_id: str, gpu: str, span: RentedSpan) -> _Row:
    row = _fixed_row(start_ms, start_ms, start_ms + DAY_MS)
    row |= _costs(span.billed_nano, 0) | {
        "ChargeCategory": "Purchase",
        "ChargeDescription": f"Rented GPU time{f' ({gpu})' if gpu else ''}",
        "ChargeFrequency": "Recurring",
        "PricingQuantity": _decimal(span.gpu_us, _US_PER_HOUR),
        "PricingUnit": "GPU Hours",
        "PricingCategory": "Standard",
        "ResourceId": rental_id,
        "ResourceName": gpu or rental_id,
        "ResourceType": "GPU",
        "SkuId": gpu or "gpu-hour",
        "SkuPriceId": f"{gpu or 'gpu'}-hour",
    }
    return row


def _other_purchase(start_ms: int, name: str, nano: int) -> _Row:
    return (
        _common(start_ms, start_ms, start_ms + DAY_MS)
        | _costs(nano, nano)
        | {
            "ChargeCategory": "Purchase",
            "ChargeDescription": f"Other fixed cost: {name}",
            "ChargeFrequency": "Recurring",
            "PricingQuantity": "1",
            "PricingUnit": "Days",
            "PricingCategory": "Standard",
            "ProviderName": name,
            "PublisherName": name,
            "InvoiceIssuerName": name,
            "ResourceId": f"fixed-cost/{name}",
            "ResourceName": name,
            "ResourceType": "Fixed cost",
            "ServiceCategory": "Other",
            "ServiceSubcategory": "Other (Other)",
            "ServiceName": name,
            "SkuId": name,
            "SkuPriceId": f"{name}-month",
        }
    )


def _local(day: _Day, entry: Entry, used_nano: int, length_ms: int) -> _Row:
    row = _fixed_row(day.start_ms, entry.ts, entry.ts + length_ms)
    hours = _decimal(entry.gpu_us, _US_PER_HOUR)
    return row | _costs(0, used_nano) | _attempt(entry) | _used(hours, "Used")


def _unused(day: _Day) -> _Row:
    row = _fixed_row(day.start_ms, day.start_ms, day.start_ms + DAY_MS)
    row |= _costs(0, day.idle_nano) | _used(_decimal(day.idle_us, _US_PER_HOUR), "Unused")
    return row | {"ChargeDescription": "Rented GPU time that no request used"}


def _used(hours: str, status: str) -> _Row:
    return {
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "CommitmentDiscountStatus": status,
        "ConsumedQuantity": "" if status == "Unused" else hours,
        "ConsumedUnit": "" if status == "Unused" else "GPU Hours",
        "PricingCategory": "Committed",
        "PricingQuantity": hours,
        "PricingUnit": "GPU Hours",
    }


def _cloud(day: _Day, entry: Entry, length_ms: int) -> _Row:
    tokens = str(entry.prompt_tokens + entry.completion_tokens)
    row = (
        _common(day.start_ms, entry.ts, entry.ts + length_ms)
        | _costs(entry.amount_nano, entry.amount_nano)
        | _attempt(entry)
    )
    return row | {
        "ChargeCategory": "Usage",
        "ChargeClass": "Correction" if entry.kind == "adjusted" else "",
        "ChargeFrequency": "Usage-Based",
        "ConsumedQuantity": tokens,
        "ConsumedUnit": "Tokens",
        "PricingCategory": "Standard",
        "PricingQuantity": tokens,
        "PricingUnit": "Tokens",
        "ProviderName": entry.provider,
        "PublisherName": entry.provider,
        "InvoiceIssuerName": entry.provider,
        "SkuPriceId": entry.tariff_ref,
    }


def _attempt(entry: Entry) -> _Row:
    """Return the columns that describe an attempt: who made it, where, and how it ended."""
    tags = {"tier": entry.tier, "task": entry.task, "key": entry.key_id, "reasons": entry.reasons}
    return {
        "SubAccountId": entry.key_id,
        "ChargeDescription": f"{entry.decision or 'request'}: {entry.model}",
        "ResourceId": entry.backend,
        "ResourceName": entry.backend,
        "ResourceType": "Model",
        "SkuId": entry.model,
        "Tags": json.dumps({name: value for name, value in tags.items() if value}, ensure_ascii=False),
        "x_RequestId": entry.request_id,
        "x_AttemptNo": str(entry.attempt_no) if entry.request_id else "",
        "x_Decision": entry.decision,
        "x_Status": entry.status,
        "x_PromptTokens": str(entry.prompt_tokens),
        "x_CompletionTokens": str(entry.completion_tokens),
        "x_GpuSeconds": _decimal(entry.gpu_us, 1_000_000),
    }


def _fixed_row(day_ms: int, start_ms: int, end_ms: int) -> _Row:
    return _common(day_ms, start_ms, end_ms) | {
        "CommitmentDiscountCategory": "Usage",
        "CommitmentDiscountId": f"gpu-{day_of(day_ms)}",
        "CommitmentDiscountType": "Rented GPU",
        "ProviderName": "Own GPU",
        "PublisherName": "Own GPU",
        "InvoiceIssuerName": "Own GPU",
    }


def _common(day_ms: int, start_ms: int, end_ms: int) -> _Row:
    month = datetime.fromtimestamp(day_ms / 1000, UTC).date().replace(day=1)
    return {
        "BillingCurrency": "USD",
        "BillingAccountId": "spillway",
        "BillingAccountName": "Spillway",
        "BillingPeriodStart": _time(start_of(month)),
        "BillingPeriodEnd": _time(start_of((month + timedelta(days=32)).replace(day=1))),
        "ChargePeriodStart": _time(start_ms),
        "ChargePeriodEnd": _time(end_ms),
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": "LLM inference",
    }


def _costs(billed_nano: int, effective_nano: int) -> _Row:
    paid_usd = usd(billed_nano or effective_nano)
    return {
        "BilledCost": usd(billed_nano),
        "EffectiveCost": usd(effective_nano),
        "ListCost": paid_usd,
        "ContractedCost": paid_usd,
    }


def _decimal(value: int, unit: int) -> str:
    """Return `value / unit` with nine decimals, computed exactly and rounded half up."""
    scaled = (2 * abs(value) * 10**9 + unit) // (2 * unit)
    return f"{'-' if value < 0 else ''}{scaled // 10**9}.{scaled % 10**9:09d}"


def _time(epoch_ms: int) -> str:
    seconds, ms = divmod(epoch_ms % DAY_MS, 1000)
    day = _day_name(epoch_ms // DAY_MS)
    text = f"{day}T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text}.{ms:03d}Z" if ms else f"{text}Z"


@lru_cache(maxsize=64)
def _day_name(day: int) -> str:
    return day_of(day * DAY_MS)
