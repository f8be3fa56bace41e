"""Export of the ledger: JSON lines (every entry as stored), and FOCUS 1.2 cost and usage rows as CSV.

FOCUS (focus.finops.org) has two costs, which carry the two sides of this product:

    rented GPU time   a Purchase per rental and day: BilledCost is its price, EffectiveCost 0
    local attempts    Usage: BilledCost 0, EffectiveCost the attempt's work share, CommitmentDiscountStatus Used
    idle time         one Usage row per day: BilledCost 0, EffectiveCost the rest, CommitmentDiscountStatus Unused
    cloud attempts    Usage: BilledCost = EffectiveCost = the charge; a later adjustment is a row with ChargeClass
                      Correction

Per day and to the nano-dollar, the EffectiveCost of Used + Unused equals the BilledCost of the purchases, and both
columns have the same sum. The cost of all-cloud is not a list price, so ListCost and ContractedCost repeat what was
paid. Columns that begin with `x_` are Spillway's own, as FOCUS allows.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TextIO

from spillway_router.core.money.attribution import split_billed
from spillway_router.core.money.tariff import usd
from spillway_router.ledger.calendar import DAY_MS, day_of, start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.rentals.books import RentedSpan
from spillway_router.ledger.rentals.fixed_cost import fixed_days, rent

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
_US_PER_HOUR = 3_600_000_000

_Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class _Day:
    """One day's fixed cost: the purchases (rental id, GPU, span), and how much of them was used and idle."""

    start_ms: int
    purchases: tuple[tuple[str, str, RentedSpan], ...]
    used_nano: int
    idle_nano: int
    idle_us: int


def export_jsonl(ledger: Ledger, start_ms: int, end_ms: int, out: TextIO) -> int:
    """Write the entries of [start, end) as JSON lines, in the order of writing; return their number."""
    count = 0
    for entry in ledger.entries_between(start_ms, end_ms):
        out.write(json.dumps(entry._asdict(), ensure_ascii=False) + "\n")
        count += 1
    return count


def export_focus(ledger: Ledger, first: date, after: date, now_ms: int, out: TextIO) -> int:
    """Write the FOCUS rows of the UTC days from `first` up to but excluding `after`; return their number.

    Unsettled holds are not a cost yet, so they have no row.
    """
    writer = csv.DictWriter(out, FOCUS_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    count = 0
    for number in range((after - first).days):
        for row in _day_rows(ledger, first + timedelta(days=number), now_ms):
            writer.writerow(row)
            count += 1
    return count


def _day_rows(ledger: Ledger, day: date, now_ms: int) -> Iterator[_Row]:
    fixed = _fixed(ledger, day, now_ms)
    for rental_id, gpu, span in fixed.purchases:
        yield _purchase(fixed, rental_id, gpu, span)
    start_ms = fixed.start_ms
    # Two passes over the day keep only the work shares in memory, not the rows.
    shares = [max(0, e.gpu_us) for e in ledger.entries_between(start_ms, start_ms + DAY_MS) if _is_local_charge(e)]
    used = iter(split_billed(fixed.used_nano, sum(shares), shares).used_nano)
    for entry in ledger.entries_between(start_ms, start_ms + DAY_MS):
        if _is_local_charge(entry):
            # A row that was written between the passes gets its share in the next export.
            yield _local(fixed, entry, next(used, 0))
        elif entry.kind in ("charged", "adjusted") and (not entry.local or entry.amount_nano):
            yield _cloud(fixed, entry)
    if fixed.idle_nano or fixed.idle_us:
        yield _unused(fixed)


def _fixed(ledger: Ledger, day: date, now_ms: int) -> _Day:
    start_ms = start_of(day)
    rented = rent(ledger, start_ms, start_ms + DAY_MS, now_ms)
    purchases = [(record.id, record.gpu, span) for record, span in rented.rentals if span.billed_nano or span.gpu_us]
    whole = rented.days.get(day.isoformat())
    if whole is not None:
        unnamed_nano = whole.billed_nano - sum(span.billed_nano for *_, span in purchases)
        unnamed_us = whole.gpu_us - sum(span.gpu_us for *_, span in purchases)
        if unnamed_nano or unnamed_us:
            purchases.append(("unnamed", "", RentedSpan(start_ms, unnamed_nano, unnamed_us)))
    for fixed in fixed_days(rented.days, ledger.totals(start_ms, start_ms + DAY_MS)):
        split = fixed.split
        idle_us = max(0, fixed.rented.gpu_us - fixed.work_us)
        return _Day(
            start_ms=start_ms,
            purchases=tuple(purchases),
            used_nano=split.used_total_nano,
            idle_nano=split.idle_nano,
            idle_us=idle_us,
        )
    return _Day(start_ms=start_ms, purchases=tuple(purchases), used_nano=0, idle_nano=0, idle_us=0)


def _is_local_charge(entry: Entry) -> bool:
    return entry.kind == "charged" and entry.local and not entry.amount_nano


def _purchase(day: _Day, rental_id: str, gpu: str, span: RentedSpan) -> _Row:
    row = _fixed_row(day, day.start_ms, day.start_ms + DAY_MS)
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


def _local(day: _Day, entry: Entry, used_nano: int) -> _Row:
    row = _fixed_row(day, entry.ts, entry.ts + 1)
    hours = _decimal(entry.gpu_us, _US_PER_HOUR)
    return row | _costs(0, used_nano) | _attempt(entry) | _used(hours, "Used")


def _unused(day: _Day) -> _Row:
    row = _fixed_row(day, day.start_ms, day.start_ms + DAY_MS)
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


def _cloud(day: _Day, entry: Entry) -> _Row:
    tokens = str(entry.prompt_tokens + entry.completion_tokens)
    row = _common(day, entry.ts, entry.ts + 1) | _costs(entry.amount_nano, entry.amount_nano) | _attempt(entry)
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
        "x_AttemptNo": str(entry.attempt_no),
        "x_Decision": entry.decision,
        "x_Status": entry.status,
        "x_PromptTokens": str(entry.prompt_tokens),
        "x_CompletionTokens": str(entry.completion_tokens),
        "x_GpuSeconds": _decimal(entry.gpu_us, 1_000_000),
    }


def _fixed_row(day: _Day, start_ms: int, end_ms: int) -> _Row:
    return _common(day, start_ms, end_ms) | {
        "CommitmentDiscountCategory": "Usage",
        "CommitmentDiscountId": f"gpu-{day_of(day.start_ms)}",
        "CommitmentDiscountType": "Rented GPU",
        "ProviderName": "Own GPU",
        "PublisherName": "Own GPU",
        "InvoiceIssuerName": "Own GPU",
    }


def _common(day: _Day, start_ms: int, end_ms: int) -> _Row:
    month = datetime.fromtimestamp(day.start_ms / 1000, UTC).date().replace(day=1)
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
    seconds = datetime.fromtimestamp(epoch_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{seconds}Z" if epoch_ms % 1000 == 0 else f"{seconds}.{epoch_ms % 1000:03d}Z"
