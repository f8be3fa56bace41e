"""Reconciling: what a provider's bill says of calls whose end nobody saw.

Such calls are charged at their bound with status `unknown`. A file of real costs, as CSV with a header or as JSON
lines, brings each to what it cost by an `adjusted` row: `request_id`, `attempt_no`, and `cost_usd` (decimal text) or
`cost_nano` (integer nano-dollars). The same file twice changes nothing.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from spillway_router.core.tariff import TariffError, nano_from_usd
from spillway_router.ledger.base import Ledger, LedgerError, Write
from spillway_router.ledger.entries import Entry

Outcome = Literal["adjusted", "already", "not found", "not unknown", "adjusted otherwise"]


class BillError(ValueError):
    """A bill that can't be read; the message names the line and says what to change."""


@dataclass(frozen=True, slots=True)
class Bill:
    """Real cost of one attempt, in nano-dollars."""

    request_id: str
    attempt_no: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What became of one bill; `difference_nano` is what the adjustment adds to the charge (negative: takes off)."""

    bill: Bill
    outcome: Outcome
    difference_nano: int = 0


def read_bills(text: str) -> tuple[Bill, ...]:
    """Bills of a file's text. Raises BillError."""
    stripped = text.lstrip("\ufeff \n\r\t")
    rows = _json_lines(stripped) if stripped.startswith("{") else _csv_rows(stripped)
    bills = tuple(_bill(line, row) for line, row in rows)
    if not bills:
        raise BillError("the file has no bills; it needs a header request_id,attempt_no,cost_usd and a row per call")
    return bills


def reconcile(ledger: Ledger, bills: Sequence[Bill], now_ms: int) -> tuple[Reconciled, ...]:
    """Adjust the unknown charges to their bills. Raises LedgerUnavailableError; what was done till then stays."""
    return tuple(_reconcile(ledger, bill, now_ms) for bill in bills)


def unknown_charges(ledger: Ledger, start_ms: int, end_ms: int) -> Iterator[Entry]:
    """Charges of [start, end) that are still at their bound because nobody knows their cost."""
    for entry in ledger.entries_between(start_ms, end_ms):
        if entry.kind == "charged" and entry.status == "unknown":
            rows = ledger.entries_of(entry.request_id)
            if not any(row.kind == "adjusted" and row.attempt_no == entry.attempt_no for row in rows):
                yield entry


def _reconcile(ledger: Ledger, bill: Bill, now_ms: int) -> Reconciled:
    rows = {e.kind: e for e in ledger.entries_of(bill.request_id) if e.attempt_no == bill.attempt_no}
    charged, adjusted = rows.get("charged"), rows.get("adjusted")
    if charged is None:
        return Reconciled(bill, "not found")
    if charged.status != "unknown":
        return Reconciled(bill, "not unknown")
    difference = bill.cost_nano - charged.amount_nano
    if adjusted is not None:
        return Reconciled(bill, "already" if adjusted.amount_nano == difference else "adjusted otherwise")
    entry = replace(charged, kind="adjusted", ts=now_ms, amount_nano=difference)
    result = ledger.commit((Write((entry,)),))[0]
    if isinstance(result, LedgerError):
        return Reconciled(bill, "adjusted otherwise")  # by another, in this moment
    return Reconciled(bill, "adjusted", difference)


def _json_lines(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line, parse_float=str)
            except ValueError as error:
                raise BillError(f"line {number} is no JSON object: {error}") from error
            if not isinstance(row, dict):
                raise BillError(f"line {number} is no JSON object")
            yield number, row


def _csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        yield reader.line_num, row


def _bill(line: int, row: Mapping[str, Any]) -> Bill:
    request_id = str(row.get("request_id") or "").strip()
    if not request_id:
        raise BillError(f"line {line} has no request_id")
    try:
        attempt_no = int(row.get("attempt_no") or 1)
        nano = row.get("cost_nano")
        cost = int(nano) if nano not in (None, "") else nano_from_usd(str(row.get("cost_usd") or "").strip())
    except (ValueError, TariffError) as error:
        raise BillError(
            f"line {line}: attempt_no and cost_nano are whole numbers, cost_usd is a decimal number: {error}"
        ) from error
    if cost < 0:
        raise BillError(f"line {line}: a cost can't be negative")
    return Bill(request_id, attempt_no, cost)
