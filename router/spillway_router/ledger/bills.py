"""The bills that providers hand out: what was billed per day, or per call where a bill says it.

| shape | from | says |
|---|---|---|
| OpenAI, JSON | GET /v1/organization/costs | results[].amount.value in USD per bucket of a day |
| OpenAI, CSV | the console's cost export | amount_value in USD per start_time_iso |
| Anthropic, JSON | GET /v1/organizations/cost_report | results[].amount in cents per bucket of a day |
| Anthropic, CSV | the console's cost export | cost_usd per usage_date_utc |
| OpenRouter, JSON | GET /api/v1/activity | usage in USD per date and model |
| OpenRouter, CSV | the activity page's export | cost_total in USD per generation, with created_at |
| any provider | made by hand from its console | cost_usd per day, with provider or backend |
| per call | made from a log of the provider | cost_usd or cost_nano per request_id and attempt_no |

Amounts are read digit by digit and are never floats. A negative amount is a credit or a discount. Sources:
platform.openai.com/docs/api-reference/usage/costs, platform.claude.com/docs/en/api/admin/cost_report,
openrouter.ai/docs/api-reference/analytics/get-user-activity.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from spillway_router.core.money.tariff import NANO, TariffError, amount_of, nano_from_usd

MOST_BYTES = 256 * 1024 * 1024
_CENTS = Decimal(100)


class BillError(ValueError):
    """A bill can't be read; the message names the line and says what to change."""


@dataclass(frozen=True, slots=True)
class BilledAttempt:
    """The real cost of one attempt, in nano-dollars."""

    request_id: str
    attempt_no: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class DailyBill:
    """What was billed per UTC day, in USD. `account` is the provider, or a backend where `is_backend` says so.

    `incomplete` says why further days may be missing from the file, empty if nothing hints at it.
    """

    account: str
    days: Mapping[date, Decimal]
    is_backend: bool = False
    incomplete: str = ""

    def nano(self, day: date) -> int:
        """Return the nano-dollars of a day, rounded half up once."""
        numerator, denominator = (self.days[day] * NANO).as_integer_ratio()
        return (2 * numerator + denominator) // (2 * denominator)


@dataclass(frozen=True, slots=True)
class Bill:
    """A file: calls, or days."""

    attempts: tuple[BilledAttempt, ...] = ()
    daily: tuple[DailyBill, ...] = ()


@dataclass(slots=True)
class _Days:
    """Adds up amounts by account and day."""

    amounts: dict[tuple[str, bool], dict[date, Decimal]] = field(default_factory=dict)

    def begin(self, account: tuple[str, bool], day: date) -> bool:
        """Begin a day, on which maybe nothing was used; return whether it is new."""
        days = self.amounts.setdefault(account, {})
        is_new = day not in days
        days.setdefault(day, Decimal(0))
        return is_new

    def add(self, account: tuple[str, bool], day: date, usd: Decimal) -> None:
        days = self.amounts.setdefault(account, {})
        days[day] = days.get(day, Decimal(0)) + usd

    def bills(self, incomplete: str = "") -> tuple[DailyBill, ...]:
        return tuple(
            DailyBill(account, dict(sorted(days.items())), is_backend, incomplete)
            for (account, is_backend), days in self.amounts.items()
        )


def read_bill(text: str) -> Bill:
    """Return what a file's text bills. Raises BillError."""
    stripped = text.lstrip("\ufeff \n\r\t")
    if stripped[:1] in ("{", "["):
        values = list(_json_values(stripped))
        bill = _from_json(values)
    else:
        bill = _from_csv(stripped)
    if not bill.attempts and not any(one.days for one in bill.daily):
        raise BillError("the file has no rows; see the table of bills in docs/money.md for what can be read")
    return bill


def _json_values(text: str) -> Iterator[tuple[int, Any]]:
    """Yield the JSON values of a document, or of its lines, each with its line."""
    try:
        yield 1, json.loads(text, parse_float=Decimal)
        return
    except ValueError:
        pass
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line, parse_float=Decimal)
            except ValueError as error:
                raise BillError(f"line {number} is not a JSON object: {error}") from error


def _from_json(values: Iterable[tuple[int, Any]]) -> Bill:
    pages: list[Mapping[str, Any]] = []
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for line, value in values:
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, dict):
                raise BillError(f"line {line} is not a JSON object")
            if isinstance(one.get("data"), list):
                pages.append(one)
            elif isinstance(one.get("data"), dict):
                raise BillError("this is one generation, which says nothing about its day; export the activity instead")
            else:
                rows.append((line, one))
    if not pages:
        return _from_rows(rows)
    days = _Days()
    for page in pages:
        for bucket in page["data"]:
            _add_bucket(days, bucket)
    more = any(page.get("has_more") for page in pages[-1:])
    return Bill(daily=days.bills("has_more is true: the next pages have further days" if more else ""))


def _add_bucket(days: _Days, bucket: Any) -> None:
    """Add a bucket of a day of OpenAI or Anthropic, or a row of OpenRouter's activity."""
    if not isinstance(bucket, dict):
        raise BillError("a part of `data` is not an object")
    if isinstance(bucket.get("results"), list):
        is_openai = "start_time" in bucket
        account = ("openai" if is_openai else "anthropic", False)
        first, last = ("start_time", "end_time") if is_openai else ("starting_at", "ending_at")
        end = bucket.get(last)
        day = _whole_day(_moment(bucket.get(first)), None if end is None else _moment(end))
        if not days.begin(account, day):
            raise BillError(
                f"{day} of {account[0]} is in the file twice: leave out the page that was added again. The days of two "
                "organisations can be written by hand (day,provider,cost_usd)"
            )
        for result in bucket["results"]:
            if not isinstance(result, dict):
                raise BillError("a part of `results` is not an object")
            days.add(account, day, _openai_usd(result) if is_openai else _anthropic_usd(result))
        return
    if "date" in bucket and "usage" in bucket:
        days.add(("openrouter", False), _day(bucket["date"]), _usd(bucket["usage"]))
        return
    raise BillError("`data` holds neither cost buckets (results) nor activity (date, usage)")


def _openai_usd(result: Mapping[str, Any]) -> Decimal:
    amount = result.get("amount")
    if not isinstance(amount, dict):
        raise BillError("a result has no amount; ask /v1/organization/costs, not the usage of tokens")
    _check_currency(amount.get("currency"))
    return _usd(amount.get("value"))


def _anthropic_usd(result: Mapping[str, Any]) -> Decimal:
    _check_currency(result.get("currency"))
    return _usd(result.get("amount")) / _CENTS


def _from_csv(text: str) -> Bill:
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
    return _from_rows((reader.line_num, row) for row in reader)


_Reader = Callable[[Mapping[str, Any]], tuple[tuple[str, bool], date, Decimal]]


def _from_rows(rows: Iterable[tuple[int, Mapping[str, Any]]]) -> Bill:
    attempts: list[BilledAttempt] = []
    days = _Days()
    for line, row in rows:
        try:
            reader = next((read for columns, read in _SHAPES if columns <= row.keys()), None)
            if reader is not None:
                days.add(*reader(row))
            else:
                attempts.append(_attempt(row))
        except BillError as error:
            raise BillError(f"line {line}: {error}") from None
    return Bill(tuple(attempts), days.bills())


def _openai_row(row: Mapping[str, Any]) -> tuple[tuple[str, bool], date, Decimal]:
    if row.get("amount_currency"):
        _check_currency(row["amount_currency"])
    start = _moment(row.get("start_time_iso") or row.get("start_time"))
    end = row.get("end_time_iso") or row.get("end_time")
    # A day on which nothing was used is a row without an amount.
    usd = _usd(row["amount_value"]) if row["amount_value"] not in (None, "") else Decimal(0)
    return ("openai", False), _whole_day(start, None if not end else _moment(end)), usd


def _anthropic_row(row: Mapping[str, Any]) -> tuple[tuple[str, bool], date, Decimal]:
    return ("anthropic", False), _day(row["usage_date_utc"]), _usd(row["cost_usd"])


def _openrouter_row(row: Mapping[str, Any]) -> tuple[tuple[str, bool], date, Decimal]:
    return ("openrouter", False), _moment(row["created_at"]).date(), _usd(row["cost_total"])


def _plain_row(row: Mapping[str, Any]) -> tuple[tuple[str, bool], date, Decimal]:
    backend, provider = (str(row.get(name) or "").strip() for name in ("backend", "provider"))
    if not backend and not provider:
        raise BillError("it names neither a provider nor a backend")
    return (backend or provider, bool(backend)), _day(row["day"]), _usd(row["cost_usd"])


_SHAPES: tuple[tuple[frozenset[str], _Reader], ...] = (
    (frozenset({"amount_value", "amount_currency"}), _openai_row),
    (frozenset({"usage_date_utc", "cost_usd"}), _anthropic_row),
    (frozenset({"generation_id", "created_at", "cost_total"}), _openrouter_row),
    (frozenset({"day", "cost_usd"}), _plain_row),
)
"""The columns by which each kind of row is recognised, and what reads it."""


_MOST_NANO, _MOST_ATTEMPTS = 10**18, 10**6 - 1
"""A billion dollars, and more attempts than any request makes (entries.FURTHER)."""


def _attempt(row: Mapping[str, Any]) -> BilledAttempt:
    request_id = str(row.get("request_id") or "").strip()
    if not request_id:
        raise BillError("it has no request_id, and its columns are those of no known bill")
    try:
        number, nano = row.get("attempt_no"), row.get("cost_nano")
        attempt_no = 1 if number in (None, "") else _whole(number)
        usd = row.get("cost_usd")
        cost_nano = nano_from_usd(str("" if usd is None else usd).strip()) if nano in (None, "") else _whole(nano)
    except (ValueError, TariffError) as error:
        raise BillError(f"attempt_no and cost_nano are whole numbers, cost_usd is a decimal number: {error}") from error
    if cost_nano < 0:
        raise BillError("a cost can't be negative")
    if cost_nano > _MOST_NANO or not 0 < attempt_no <= _MOST_ATTEMPTS:
        raise BillError("attempt_no or cost_nano is out of range")
    return BilledAttempt(request_id, attempt_no, cost_nano)


def _whole(value: object) -> int:
    """Return a whole number, also one that is written as text or with a point. Raises ValueError."""
    text = str(value).strip()
    if not isinstance(value, bool) and text.isascii() and "_" not in text:
        with suppress(InvalidOperation, ValueError, OverflowError):
            number = Decimal(text)
            if number == number.to_integral_value() and abs(number) <= Decimal(10) ** 20:
                return int(number)
    raise ValueError(f"{text[:40]!r} is no whole number")


def _check_currency(currency: object) -> None:
    if str(currency or "usd").lower() != "usd":
        raise BillError(f"its currency is {currency!r}; the ledger is in USD")


def _usd(value: object) -> Decimal:
    try:
        return amount_of(str(value))
    except TariffError as error:
        raise BillError(str(error)) from None


def _moment(value: object) -> datetime:
    """Return a time in UTC, given as epoch seconds or ISO text; a text without a zone is in UTC."""
    text = str(value).strip()
    try:
        if text.isdecimal():
            return datetime.fromtimestamp(int(text), UTC)
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise BillError(f"{value!r} is not a time") from None


def _day(value: object) -> date:
    return _moment(value).date()


def _whole_day(start: datetime, end: datetime | None) -> date:
    """Return the UTC day of a bucket. Raises BillError for a bucket that is not one whole UTC day."""
    if start.time() != datetime.min.time() or (end is not None and (end - start).total_seconds() != 86_400):
        raise BillError(f"the bucket from {start.isoformat()} is not one UTC day; ask for buckets of a day (1d)")
    return start.date()
