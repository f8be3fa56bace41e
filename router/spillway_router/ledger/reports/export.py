"""Export of the ledger: JSON lines (every entry as stored), and FOCUS 1.2 cost and usage rows as CSV.

FOCUS (focus.finops.org) has two costs, which carry the two sides of this product:

    rented GPU time   a Purchase per rental and day: BilledCost is its price, EffectiveCost 0
    local attempts    Usage: BilledCost 0, EffectiveCost the attempt's work share, CommitmentDiscountStatus Used
    other fixed cost  a Purchase per cost and day: BilledCost = EffectiveCost
    idle time         one Usage row per day: BilledCost 0, EffectiveCost the rest, CommitmentDiscountStatus Unused
    cloud attempts    Usage: BilledCost = EffectiveCost = the charge, a row for each price that it consists of (input,
                      output, a search); a later adjustment is a row of its own, with ChargeClass Correction if the
                      attempt belongs to an earlier month

Per day and to the nano-dollar, the EffectiveCost of Used + Unused equals the BilledCost of the GPUs' purchases, and
both columns have the same sum. ListCost and ContractedCost are the product of PricingQuantity and the unit price, with
all their digits, as FOCUS asks for. A charge that can't be split (of a whole day, an adjustment, one that the provider
named or that is not known for sure) is priced by its amount: a quantity in USD at a unit price of 1.

All rows have the day as their period, as FOCUS has no fractions of a second; `x_Time` is the moment. Columns that begin
with `x_` are Spillway's own, as FOCUS allows, and so are the tags, which therefore have a prefix.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TextIO, cast

import orjson

from spillway_router.core.money.tariff import NANO, PricedPart, itemised, usd
from spillway_router.core.printable import spreadsheet_text
from spillway_router.core.routing.experiments import title_of
from spillway_router.ledger.calendar import DAY_MS, day_of, start_of, utc_days
from spillway_router.ledger.entries import Entry, Status
from spillway_router.ledger.interface import Ledger, Sums
from spillway_router.ledger.posting import HoldKey
from spillway_router.ledger.recompute import KeptTariffs, can_be_computed, usage_of
from spillway_router.ledger.records import Group, Total
from spillway_router.ledger.rentals.books import RentedSpan
from spillway_router.ledger.rentals.fixed_cost import FixedDay, fixed_days, other_costs, rent, shared
from spillway_router.ledger.reports.days import ReportRange

FOCUS_COLUMNS = (
    "BilledCost",
    "EffectiveCost",
    "ListCost",
    "ContractedCost",
    "ListUnitPrice",
    "ContractedUnitPrice",
    "BillingCurrency",
    "BillingAccountId",
    "BillingAccountName",
    "SubAccountId",
    "SubAccountName",
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
    "CommitmentDiscountName",
    "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "CommitmentDiscountUnit",
    "ConsumedQuantity",
    "ConsumedUnit",
    "InvoiceId",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "InvoiceIssuerName",
    "RegionId",
    "RegionName",
    "ServiceCategory",
    "ServiceSubcategory",
    "ServiceName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "Tags",
    "x_Time",
    "x_RequestId",
    "x_AttemptNo",
    "x_Decision",
    "x_Status",
    "x_PromptTokens",
    "x_CompletionTokens",
    "x_GpuSeconds",
    "x_RentalId",
)
_DAILY_COLUMNS = ("x_Attempts", "x_Answers")
_TAG = "spillway/"
_GPU_HOURS = "GPU-Hours"
_TOKENS = "1000000 Tokens"
_BY_AMOUNT = "amount"
_METERS = {
    "input": "Input Tokens",
    "cached_input": "Cached Input Tokens",
    "cache_write": "Cache Write Tokens",
    "cache_write_long": "Cache Write Tokens (1 hour)",
    "output": "Output Tokens",
    "reasoning": "Reasoning Tokens",
    "audio_input": "Audio Input Tokens",
    "audio_output": "Audio Output Tokens",
    "image_output": "Image Output Tokens",
    "request": "Requests",
    "seconds": "Seconds",
    _BY_AMOUNT: "Billed Amount",
}
"""What the parts of a charge are called; a fee is called after the provider's tool."""
_US_PER_HOUR = 3_600_000_000
_RATE_DECIMALS = 6
_MOST_SHAPES = 10_000


def _at(name: str) -> int:
    return FOCUS_COLUMNS.index(name)


_BILLED, _EFFECTIVE, _LIST, _CONTRACTED = map(_at, ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"))
_CONSUMED, _PRICING, _COMMITTED = map(_at, ("ConsumedQuantity", "PricingQuantity", "CommitmentDiscountQuantity"))
_TIME, _REQUEST, _ATTEMPT = map(_at, ("x_Time", "x_RequestId", "x_AttemptNo"))
_KEY, _KEY_NAME, _TAGS = map(_at, ("SubAccountId", "SubAccountName", "Tags"))
_PROMPT, _COMPLETION, _SECONDS = map(_at, ("x_PromptTokens", "x_CompletionTokens", "x_GpuSeconds"))

_Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class _Day:
    """One day's fixed cost: the rows of the purchases, how much of them was used and idle, and by which work.

    `rate_usd` is the price of a GPU hour on this day, and `names` those of the API keys by their ids.
    """

    start_ms: int
    purchases: tuple[_Row, ...]
    used_nano: int
    idle_nano: int
    idle_us: int
    work: Mapping[tuple[Group, str], _Work]
    rate_usd: Decimal
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Books:
    """What the rows of all days need: the names of the API keys by their ids, the prices that rows name, and the
    adjustments by the first millisecond of the day on which they stand, each with whether it is a correction."""

    names: Mapping[str, str]
    tariffs: KeptTariffs
    adjustments: Mapping[int, Sequence[tuple[Entry, bool]]]


def export_jsonl(ledger: Ledger, start_ms: int, end_ms: int, out: TextIO) -> int:
    """Write the entries of [start, end) as JSON lines, in the order of writing; return their number."""
    count = 0
    for entry in ledger.entries_between(start_ms, end_ms):
        out.write(orjson.dumps(entry._asdict(), option=orjson.OPT_APPEND_NEWLINE).decode())
        count += 1
    return count


def export_focus(ledger: Ledger, days: ReportRange, now_ms: int, out: TextIO, *, daily: bool = False) -> int:
    """Write the FOCUS rows of some UTC days and return their number.

    There is a row per attempt and price, or with `daily` one per day, group of attempts and API key, whose figures are
    those of the report's groups to the nano-dollar. Unsettled holds are not a cost yet, so they have no row.
    """
    out.write(",".join((*FOCUS_COLUMNS, *_DAILY_COLUMNS) if daily else FOCUS_COLUMNS) + "\n")
    count = 0
    books = _Books(
        {key.id: key.name for key in ledger.keys.all()},
        KeptTariffs(ledger.tariffs.texts),
        {} if daily else _adjustments(ledger, days),
    )
    charges = None if daily else _Charges(ledger, start_of(days.first))
    for number in range(days.days):
        day = days.first + timedelta(days=number)
        if charges is None:
            rows = _daily_rows(ledger, books, day, now_ms)
        else:
            rows = _day_rows(ledger, books, charges, day, now_ms)
        for row in rows:
            out.write(",".join(row) + "\n")
            count += 1
    return count


def _day_rows(ledger: Ledger, books: _Books, charges: _Charges, day: date, now_ms: int) -> Iterator[list[str]]:
    with ledger.sums() as sums:
        fixed = _fixed(ledger, sums, books, day, now_ms)
    yield from map(_cells, fixed.purchases)
    rows = _AttemptRows(fixed, books.tariffs)
    for entry in charges.of_day(fixed.start_ms):
        if entry.local and (entry.gpu_us or not entry.amount_nano):
            yield rows.local(entry)
        if not entry.local or entry.amount_nano:
            yield from rows.cloud(entry)
    for adjustment, is_correction in books.adjustments.get(fixed.start_ms, ()):
        if not adjustment.local or adjustment.amount_nano:
            yield rows.adjustment(adjustment, is_correction=is_correction)
    # Work that has no row on this day, such as a correction of GPU time, leaves its share with the idle time.
    idle_nano = fixed.idle_nano + fixed.used_nano - rows.used_nano
    if idle_nano or fixed.idle_us:
        yield _cells(_unused(replace(fixed, idle_nano=idle_nano)))


class _Charges:
    """The charges day by day, each on the day on which reports count it: that of its hold, without one its own."""

    def __init__(self, ledger: Ledger, first_ms: int) -> None:
        self._ledger = ledger
        self._open: set[HoldKey] = set()
        """The attempts that were held before the day at hand and not closed by then."""
        for _ in self.of_day(first_ms - DAY_MS):
            pass

    def of_day(self, start_ms: int) -> Iterator[Entry]:
        """Yield the charges of a day; ask for the days in their order."""
        held: set[HoldKey] = set()
        for entry in self._ledger.entries_between(start_ms, start_ms + DAY_MS):
            kind, key = entry.kind, (entry.request_id, entry.attempt_no)
            if kind == "reserved":
                held.add(key)
            elif kind in ("charged", "released"):
                held.discard(key)
                if key in self._open:
                    self._open.remove(key)
                elif kind == "charged":
                    yield entry
        self._open |= held
        for request_id, attempt_no in sorted(held):  # those that ended on a later day, or have not ended
            for entry in self._ledger.entries_of(request_id):
                if entry.kind == "charged" and entry.attempt_no == attempt_no:
                    yield entry


def _held_ms(ledger: Ledger, entry: Entry) -> int:
    """Return the time in whose periods an attempt counts: that of its hold, without one that of its first row."""
    rows = [row for row in ledger.entries_of(entry.request_id) if row.attempt_no == entry.attempt_no]
    return next((row.ts for row in rows if row.kind == "reserved"), min((row.ts for row in rows), default=entry.ts))


def _adjustments(ledger: Ledger, days: ReportRange) -> dict[int, list[tuple[Entry, bool]]]:
    """Return the adjustments by the day on which they stand: that of the attempt's hold if it is of the same month,
    otherwise their own, as a correction."""
    by_day: dict[int, list[tuple[Entry, bool]]] = defaultdict(list)
    first_ms = start_of(days.first)
    last = (days.after - timedelta(days=1)).replace(day=1) + timedelta(days=32)
    for entry in ledger.adjustments_between(first_ms, start_of(last.replace(day=1))):
        held_ms = _held_ms(ledger, entry)
        is_correction = _month(held_ms) < _month(entry.ts)
        day_ms = (entry.ts if is_correction else held_ms) // DAY_MS * DAY_MS
        by_day[day_ms].append((entry, is_correction))
    return by_day


def _daily_rows(ledger: Ledger, books: _Books, day: date, now_ms: int) -> Iterator[list[str]]:
    start_ms = start_of(day)
    with ledger.sums() as sums:
        fixed = _fixed(ledger, sums, books, day, now_ms)
        for purchase in fixed.purchases:
            yield [*_cells(purchase), "", ""]
        rows = _AttemptRows(fixed, books.tariffs)
        for total in sums.key_totals(start_ms, start_ms + DAY_MS):
            entry, counts = _entry_of(total, start_ms), [str(total.attempts), str(total.answers)]
            if total.group.local and (total.gpu_us or not total.cost_nano):
                work = fixed.work.get((total.group, total.key_id))
                yield rows.used(entry, work.nano if work else 0) + counts
            if not total.group.local or total.cost_nano:
                yield rows.whole(entry) + counts
    if fixed.idle_nano or fixed.idle_us:
        yield [*_cells(_unused(fixed)), "", ""]


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


# Rows are lists of cells as they stand in the file. The writer of the standard library would look at every cell of
# every row for what has to be quoted, although nearly all of them come from a row that is like many others.


def _cells(row: _Row) -> list[str]:
    return [_quoted(row.get(name, "")) for name in FOCUS_COLUMNS]


def _quoted(text: str) -> str:
    text = spreadsheet_text(text)
    if '"' in text or "," in text or "\n" in text or "\r" in text:
        return '"' + text.replace('"', '""') + '"'
    return text


@dataclass(slots=True)
class _Work:
    """The work of one group and API key on a day, its share of the bill, and what its rows have used of both so far."""

    us: int
    nano: int
    so_far_us: int = 0
    so_far_nano: int = 0


class _AttemptRows:
    """Makes the rows of a day's attempts.

    Attempts that differ only in who made them, in time, size and cost share a row, of which a copy is filled in.
    """

    def __init__(self, day: _Day, tariffs: KeptTariffs) -> None:
        self.used_nano = 0
        self._day = day
        self._tariffs = tariffs
        self._alike: dict[tuple[object, ...], list[str]] = {}
        self._names: dict[str, str] = {}

    def local(self, entry: Entry) -> list[str]:
        """Return the row of a local attempt, with its share of the bill."""
        used_nano = self._share(entry)
        self.used_nano += used_nano
        return self.used(entry, used_nano)

    def used(self, entry: Entry, used_nano: int) -> list[str]:
        """Return the row of local attempts whose share of the bill is known."""
        cells = self._like(entry, "", lambda: _local(self._day, entry, 0))
        cells[_EFFECTIVE] = usd(used_nano)
        hours = _decimal(entry.gpu_us, _US_PER_HOUR)
        cells[_LIST] = cells[_CONTRACTED] = _product(hours, self._day.rate_usd)
        cells[_CONSUMED] = cells[_PRICING] = cells[_COMMITTED] = hours
        self._describe(cells, entry)
        cells[_SECONDS] = _decimal(entry.gpu_us, 1_000_000)
        return cells

    def cloud(self, entry: Entry) -> Iterator[list[str]]:
        """Yield the rows of a paid attempt, or that of its adjustment."""
        for number, part in enumerate(self._parts(entry)):
            cells = self._row_of(entry, part)
            if number:  # counted once
                cells[_PROMPT] = cells[_COMPLETION] = ""
            yield cells

    def adjustment(self, entry: Entry, *, is_correction: bool) -> list[str]:
        """Return the row of an adjustment."""
        cells = self.whole(entry)
        if is_correction:
            cells[_CLASS] = "Correction"
        return cells

    def whole(self, entry: Entry) -> list[str]:
        """Return one row of a whole charge, priced by its amount."""
        return self._row_of(entry, _whole(entry))

    def _row_of(self, entry: Entry, part: PricedPart) -> list[str]:
        cells = self._like(entry, (part.name, part.step), lambda: _cloud(self._day, entry, part))
        _fill(cells, part, entry.prompt_tokens + entry.completion_tokens)
        self._describe(cells, entry)
        return cells

    def _parts(self, entry: Entry) -> tuple[PricedPart, ...]:
        if not can_be_computed(entry):
            return (_whole(entry),)
        tariff = self._tariffs.get(entry.tariff_ref)
        parts = () if tariff is None else itemised(usage_of(entry), tariff, entry.billed_us)
        if sum(part.nano for part in parts) != entry.amount_nano:
            return (_whole(entry),)  # not charged by this price; `verify` says so if it should have been
        return parts

    def _share(self, entry: Entry) -> int:
        work = self._day.work.get((_group_of(entry), entry.key_id))
        if work is None or not work.us:
            return 0
        work.so_far_us = min(work.us, work.so_far_us + max(0, entry.gpu_us))
        until_nano = work.nano * work.so_far_us // work.us
        share_nano, work.so_far_nano = until_nano - work.so_far_nano, until_nano
        return share_nano

    def _like(self, entry: Entry, part: object, first: Callable[[], _Row]) -> list[str]:
        shape = (entry[_WHERE], entry[_WHY], entry.tariff_ref, bool(entry.amount_nano), part)
        cells = self._alike.get(shape)
        if cells is None:
            if len(self._alike) >= _MOST_SHAPES:
                self._alike.clear()
            cells = self._alike[shape] = _cells(first())
        return cells.copy()

    def _describe(self, cells: list[str], entry: Entry) -> None:
        """Write whose attempt a row is of, and which."""
        key_id = entry.key_id
        cells[_KEY], cells[_KEY_NAME] = _quoted(key_id), self._name(key_id)
        arm = title_of(entry.experiment)
        cells[_TAGS] = _tags(tier=entry.tier, task=entry.task, key_id=key_id, reasons=entry.reasons, arm=arm)
        if entry.request_id:  # else the row is of a whole day
            cells[_TIME] = _time(entry.ts)
            cells[_REQUEST], cells[_ATTEMPT] = _quoted(entry.request_id), str(entry.attempt_no)
        cells[_PROMPT], cells[_COMPLETION] = str(entry.prompt_tokens), str(entry.completion_tokens)

    def _name(self, key_id: str) -> str:
        name = self._names.get(key_id)
        if name is None:
            name = self._names[key_id] = _quoted(self._day.names.get(key_id, key_id))
        return name


_CLASS = _at("ChargeClass")
_WHERE, _WHY = slice(4, 8), slice(10, 13)
"""Backend, provider, model and local; decision, reasons and status."""
_GROUP_AT = tuple(Entry._fields.index(name) for name in Group._fields)


def _group_of(entry: Entry) -> Group:
    return Group._make([entry[at] for at in _GROUP_AT])


def _month(ms: int) -> str:
    return day_of(ms)[:7]


def _whole(entry: Entry) -> PricedPart:
    """Return a charge that is priced by its amount: so many USD, at 1 USD each."""
    return PricedPart(name=_BY_AMOUNT, quantity=entry.amount_nano, per=NANO, price_usd="1", nano=entry.amount_nano)


def _fill(cells: list[str], part: PricedPart, tokens: int) -> None:
    """Write the quantities and costs of a part into a row."""
    quantity = _quantity(part)
    cells[_BILLED] = cells[_EFFECTIVE] = usd(part.nano)
    cells[_LIST] = cells[_CONTRACTED] = _product(quantity, _price(part.price_usd))
    cells[_PRICING] = quantity
    cells[_CONSUMED] = str(tokens if part.name == _BY_AMOUNT else part.quantity) if part.name != "seconds" else quantity


def _quantity(part: PricedPart) -> str:
    return str(part.quantity) if part.per == 1 else _decimal(part.quantity, part.per)


@lru_cache(maxsize=1024)
def _price(text: str) -> Decimal:
    return Decimal(text)


def _product(quantity: str, price_usd: Decimal) -> str:
    """Return the product with all its digits."""
    return f"{Decimal(quantity) * price_usd:f}"


def _fixed(ledger: Ledger, sums: Sums, books: _Books, day: date, now_ms: int) -> _Day:
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
    fixed_day = _Day(
        start_ms=start_ms,
        purchases=(
            *(_purchase(start_ms, *each) for each in bought),
            *(_other_purchase(start_ms, cost.name, nano) for cost, nano in other.costs if nano),
        ),
        used_nano=0,
        idle_nano=0,
        idle_us=0,
        work={},
        rate_usd=Decimal(0) if whole is None else _rate_usd(whole.billed_nano, whole.gpu_us),
        names=books.names,
    )
    for fixed in fixed_days(rented.days, sums.totals(calendar)):
        return replace(
            fixed_day,
            used_nano=fixed.split.used_total_nano,
            idle_nano=fixed.split.idle_nano,
            idle_us=max(0, fixed.rented.gpu_us - fixed.work_us),
            work=_work_of(fixed, sums, start_ms),
        )
    return fixed_day


def _rate_usd(billed_nano: int, gpu_us: int) -> Decimal:
    """Return the USD of a GPU hour, rounded so far that a day's rounding doesn't show; 0 without any time."""
    if gpu_us <= 0 or billed_nano <= 0:
        return Decimal(0)
    scaled = (2 * billed_nano * _US_PER_HOUR * 10**_RATE_DECIMALS + gpu_us * NANO) // (2 * gpu_us * NANO)
    return Decimal(f"{Decimal(scaled).scaleb(-_RATE_DECIMALS).normalize():f}")


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
    rate_usd, name = _rate_usd(span.billed_nano, span.gpu_us), gpu or "gpu"
    hours = _decimal(span.gpu_us, _US_PER_HOUR)
    return _fixed_row(start_ms, hours, rate_usd) | {
        "BilledCost": usd(span.billed_nano),
        "EffectiveCost": usd(0),
        "ChargeCategory": "Purchase",
        "ChargeDescription": f"Rented GPU time{f' ({gpu})' if gpu else ''}",
        "ChargeFrequency": "Recurring",
        "PricingCategory": "Standard",
        "ResourceId": _commitment(start_ms),
        "ResourceType": "GPU",
        "SkuId": f"{name}-hour",
        "SkuPriceId": f"{name}-hour@{rate_usd:f}",
        "x_RentalId": rental_id,
    }


def _other_purchase(start_ms: int, name: str, nano: int) -> _Row:
    cost_usd = usd(nano)
    return _common(start_ms) | {
        "BilledCost": cost_usd,
        "EffectiveCost": cost_usd,
        "ListCost": cost_usd,
        "ContractedCost": cost_usd,
        "ListUnitPrice": cost_usd,
        "ContractedUnitPrice": cost_usd,
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
        "SkuMeter": "Days",
        "SkuPriceId": f"{name}-day@{cost_usd}",
    }


def _local(day: _Day, entry: Entry, used_nano: int) -> _Row:
    hours = _decimal(entry.gpu_us, _US_PER_HOUR)
    return (
        _fixed_row(day.start_ms, hours, day.rate_usd)
        | _attempt(day, entry)
        | _used(used_nano, "Used")
        | {"ConsumedQuantity": hours, "ConsumedUnit": _GPU_HOURS, "SkuPriceId": f"{entry.model}@{day.rate_usd:f}"}
    )


def _unused(day: _Day) -> _Row:
    return (
        _fixed_row(day.start_ms, _decimal(day.idle_us, _US_PER_HOUR), day.rate_usd)
        | _used(day.idle_nano, "Unused")
        | {
            "ChargeDescription": "Rented GPU time that no request used",
            "ResourceId": _commitment(day.start_ms),
            "ResourceType": "GPU",
            "SkuId": "gpu-hour",
            "SkuPriceId": f"gpu-hour@{day.rate_usd:f}",
        }
    )


def _used(nano: int, status: str) -> _Row:
    return {
        "BilledCost": usd(0),
        "EffectiveCost": usd(nano),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "CommitmentDiscountStatus": status,
        "PricingCategory": "Committed",
    }


def _cloud(day: _Day, entry: Entry, part: PricedPart) -> _Row:
    by_amount = part.name == _BY_AMOUNT
    consumed, priced = _units(part)
    row = (
        _common(day.start_ms)
        | _attempt(day, entry)
        | {
            "ListUnitPrice": part.price_usd,
            "ContractedUnitPrice": part.price_usd,
            "ChargeCategory": "Usage",
            "ChargeFrequency": "Usage-Based",
            "ConsumedUnit": consumed,
            "PricingCategory": "Other" if by_amount else "Standard",
            "PricingUnit": priced,
            "ProviderName": entry.provider or "unknown",
            "PublisherName": entry.provider or "unknown",
            "InvoiceIssuerName": entry.provider or "unknown",
            "SkuMeter": _METERS.get(part.name, f"Calls of {part.name}"),
            "SkuPriceId": f"{entry.model}/{_BY_AMOUNT}" if by_amount else _sku_price_id(entry, part),
        }
    )
    cells = [""] * len(FOCUS_COLUMNS)
    _fill(cells, part, entry.prompt_tokens + entry.completion_tokens)
    return row | {name: cell for name, cell in zip(FOCUS_COLUMNS, cells, strict=True) if cell}


def _sku_price_id(entry: Entry, part: PricedPart) -> str:
    step = f"+{part.step}" if part.step else ""
    return f"{entry.model}/{part.name}{step}@{entry.tariff_ref}"


def _units(part: PricedPart) -> tuple[str, str]:
    """Return the unit of what was consumed, and the one that has the price."""
    if part.name == _BY_AMOUNT:
        return "Tokens", "USD"
    if part.name == "seconds":
        return "Seconds", "Seconds"
    return ("Tokens", _TOKENS) if part.per == 10**6 else ("Requests", "Requests")


def _attempt(day: _Day, entry: Entry) -> _Row:
    """Return the columns that describe an attempt: who made it, where, and how it ended."""
    return {
        "SubAccountId": entry.key_id,
        "SubAccountName": day.names.get(entry.key_id, entry.key_id),
        "ChargeDescription": f"{entry.decision or 'request'}: {entry.model}",
        "ResourceId": entry.backend,
        "ResourceType": "Model",
        "SkuId": entry.model,
        "Tags": _tags_text(
            tier=entry.tier, task=entry.task, key_id=entry.key_id, reasons=entry.reasons, arm=title_of(entry.experiment)
        ),
        "x_Time": _time(entry.ts) if entry.request_id else "",
        "x_RequestId": entry.request_id,
        "x_AttemptNo": str(entry.attempt_no) if entry.request_id else "",
        "x_Decision": entry.decision,
        "x_Status": entry.status,
        "x_PromptTokens": str(entry.prompt_tokens),
        "x_CompletionTokens": str(entry.completion_tokens),
        "x_GpuSeconds": _decimal(entry.gpu_us, 1_000_000),
    }


@lru_cache(maxsize=16_384)
def _tags(*, tier: str, task: str, key_id: str, reasons: str, arm: str) -> str:
    """Return the tags of an attempt as a cell."""
    return _quoted(_tags_text(tier=tier, task=task, key_id=key_id, reasons=reasons, arm=arm))


def _tags_text(*, tier: str, task: str, key_id: str, reasons: str, arm: str) -> str:
    tags = {"tier": tier, "task": task, "key": key_id, "reasons": reasons, "experiment": arm}
    prefixed = {_TAG + name: value for name, value in tags.items() if value}
    return json.dumps(prefixed, ensure_ascii=False) if prefixed else ""


def _commitment(day_ms: int) -> str:
    return f"gpu-{day_of(day_ms)}"


def _fixed_row(day_ms: int, hours: str, rate_usd: Decimal) -> _Row:
    cost_usd = _product(hours, rate_usd)
    return _common(day_ms) | {
        "ListCost": cost_usd,
        "ContractedCost": cost_usd,
        "ListUnitPrice": f"{rate_usd:f}",
        "ContractedUnitPrice": f"{rate_usd:f}",
        "CommitmentDiscountCategory": "Usage",
        "CommitmentDiscountId": _commitment(day_ms),
        "CommitmentDiscountName": f"Rented GPU time of {day_of(day_ms)}",
        "CommitmentDiscountQuantity": hours,
        "CommitmentDiscountType": "Rented GPU",
        "CommitmentDiscountUnit": _GPU_HOURS,
        "PricingQuantity": hours,
        "PricingUnit": _GPU_HOURS,
        "ProviderName": "Own GPU",
        "PublisherName": "Own GPU",
        "InvoiceIssuerName": "Own GPU",
        "SkuMeter": "GPU Hours",
    }


def _common(day_ms: int) -> _Row:
    month = datetime.fromtimestamp(day_ms / 1000, UTC).date().replace(day=1)
    return {
        "BillingCurrency": "USD",
        "BillingAccountId": "spillway",
        "BillingAccountName": "Spillway",
        "BillingPeriodStart": _time(start_of(month)),
        "BillingPeriodEnd": _time(start_of((month + timedelta(days=32)).replace(day=1))),
        "ChargePeriodStart": _time(day_ms),
        "ChargePeriodEnd": _time(day_ms + DAY_MS),
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": "LLM inference",
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
