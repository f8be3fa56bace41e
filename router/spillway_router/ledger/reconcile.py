"""Reconciling: what a provider's bill says of calls whose cost the ledger can only estimate.

Calls whose end nobody saw are charged at their bound with status `unknown`; an answer that broke off costs the most it
can; a call that failed counts as free unless the provider bills it. A file of real costs, as CSV with a header or as
JSON lines, brings each to what it cost by an `adjusted` row: `request_id`, `attempt_no` (providers get both as
`x-client-request-id: REQUEST_ID.ATTEMPT_NO`), and `cost_usd` (decimal text) or `cost_nano` (integer nano-dollars). Only
answers that came with their usage are left alone: a bill that says otherwise of those is told, not followed. The same
file twice changes nothing.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spillway_router.core.money.tariff import TariffError, nano_from_usd
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import Write

Outcome = Literal["adjusted", "already", "not found", "not unknown", "adjusted otherwise"]
_AT_ONCE = 256
_MEASURED = ("ok", "discarded")
"""Statuses whose charge comes from a usage report, unless there was none and the charge is `unknown`."""


class BillError(ValueError):
    """A bill that can't be read; the message names the line and says what to change."""


@dataclass(frozen=True, slots=True)
class BilledAttempt:
    """Real cost of one attempt, in nano-dollars."""

    request_id: str
    attempt_no: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What became of one bill; `difference_nano` is what the adjustment adds to the charge (negative: takes off)."""

    bill: BilledAttempt
    outcome: Outcome
    difference_nano: int = 0


def read_bills(text: str) -> tuple[BilledAttempt, ...]:
    """Bills of a file's text. Raises BillError."""
    stripped = text.lstrip("\ufeff \n\r\t")
    rows = _json_lines(stripped) if stripped.startswith("{") else _csv_rows(stripped)
    bills = tuple(_bill(line, row) for line, row in rows)
    if not bills:
        raise BillError("the file has no bills; it needs a header request_id,attempt_no,cost_usd and a row per call")
    return bills


def reconcile(ledger: Ledger, bills: Sequence[BilledAttempt], now_ms: int) -> tuple[Reconciled, ...]:
    """Adjust the unknown charges to their bills. Raises LedgerUnavailableError; what was done till then stays."""
    # A call that is named twice is looked at twice, so both can't be in one commit.
    done: list[Reconciled] = []
    pending: dict[tuple[str, int], BilledAttempt] = {}
    for bill in bills:
        key = (bill.request_id, bill.attempt_no)
        if key in pending or len(pending) >= _AT_ONCE:
            done += _reconcile(ledger, tuple(pending.values()), now_ms)
            pending.clear()
        pending[key] = bill
    return (*done, *_reconcile(ledger, tuple(pending.values()), now_ms))


def _reconcile(ledger: Ledger, bills: Sequence[BilledAttempt], now_ms: int) -> list[Reconciled]:
    looked = [_look(ledger, bill, now_ms) for bill in bills]
    results = iter(ledger.commit([Write((entry,)) for _, entry in looked if entry is not None]))
    return [
        # A conflict: adjusted by another, in this moment.
        found if entry is None or next(results) is None else Reconciled(found.bill, "adjusted otherwise")
        for found, entry in looked
    ]


def _look(ledger: Ledger, bill: BilledAttempt, now_ms: int) -> tuple[Reconciled, Entry | None]:
    """What is to become of a bill, and the row that does it."""
    rows = {e.kind: e for e in ledger.entries_of(bill.request_id) if e.attempt_no == bill.attempt_no}
    closing, adjusted = rows.get("charged") or rows.get("released"), rows.get("adjusted")
    if closing is None:
        return Reconciled(bill, "not found"), None
    difference = bill.cost_nano - closing.amount_nano
    if adjusted is not None:
        return Reconciled(bill, "already" if adjusted.amount_nano == difference else "adjusted otherwise"), None
    if not difference and closing.status != "unknown":
        return Reconciled(bill, "already"), None
    if closing.status in _MEASURED:
        return Reconciled(bill, "not unknown"), None
    # Its counts are differences too, and of tokens the bill says nothing.
    entry = closing._replace(
        kind="adjusted",
        ts=now_ms,
        amount_nano=difference,
        reserved_nano=0,
        prompt_tokens=0,
        completion_tokens=0,
        cached_tokens=0,
        reasoning_tokens=0,
        gpu_us=0,
    )
    return Reconciled(bill, "adjusted", difference), entry


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


def _bill(line: int, row: Mapping[str, Any]) -> BilledAttempt:
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
    return BilledAttempt(request_id, attempt_no, cost)
