"""Reconcile the ledger with a bill that tells days only.

The costs of a provider's backends on a UTC day are compared with what the provider billed for that day. The difference
becomes one signed `adjusted` row per backend, on that day: it belongs to no request and no key, and moves the same
balances and sums as the calls. Its request id names the provider, the backend and the day. What is compared is the sum
of all rows, earlier adjustments included, so that the same bill changes nothing the second time, and a corrected bill
only changes what is new in it.

A difference that calls of unknown cost can explain is applied. One that contradicts charges which came with their usage
(a price learnt late, a discount, a credit) is only applied with `force`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

from spillway_router.ledger.bills import DailyBill
from spillway_router.ledger.calendar import DAY_MS, start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import Total, Write

DayOutcome = Literal["adjusted", "already", "contradicts", "not over", "no calls", "not in the bill", "conflict"]
"""What became of a day: `contradicts` needs `force`; `not in the bill` is a day with calls between the bill's days."""
SETTLED: tuple[DayOutcome, ...] = ("adjusted", "already")
BILL = "bill"
"""The decision and the reason token of an adjusting row: it was no request."""


@dataclass(frozen=True, slots=True)
class ReconciledDay:
    """What became of one day of a bill, in nano-dollars. `unsure` calls of the day are still not known one by one, and
    are estimated at `estimated_nano`."""

    account: str
    day: str
    outcome: DayOutcome
    billed_nano: int
    booked_nano: int
    rows: tuple[tuple[str, int], ...] = ()
    """The backends that were adjusted, each with its difference."""
    unsure: int = 0
    estimated_nano: int = 0
    at_most_nano: int = 0

    @property
    def difference_nano(self) -> int:
        """What the bill is above the books."""
        return self.billed_nano - self.booked_nano


def reconcile_days(
    ledger: Ledger, bill: DailyBill, today: date, backends: Sequence[str] = (), *, force: bool = False
) -> tuple[ReconciledDay, ...]:
    """Adjust the days of a bill that are over, and say what became of each, and of the days between them.

    `backends` are those that the account pays for, all of its provider if empty. Raises LedgerUnavailableError.
    """
    if not bill.days:
        return ()
    first, last = min(bill.days), max(bill.days)
    days = [first + timedelta(n) for n in range((last - first).days + 1)]
    done = (_reconcile_day(ledger, bill, day, today, backends, force=force) for day in days)
    return tuple(one for one in done if one is not None)


def _reconcile_day(
    ledger: Ledger, bill: DailyBill, day: date, today: date, backends: Sequence[str], *, force: bool
) -> ReconciledDay | None:
    start_ms = start_of(day)
    totals = [t for t in ledger.totals(start_ms, start_ms + DAY_MS) if _is_billed(t, bill, backends)]
    booked = _by_backend(totals)
    booked_nano = sum(one.cost_nano for one in booked.values())
    if day not in bill.days:
        if not booked_nano:
            return None
        return ReconciledDay(
            account=bill.account,
            day=day.isoformat(),
            outcome="not in the bill",
            billed_nano=0,
            booked_nano=booked_nano,
        )
    result = ReconciledDay(
        account=bill.account,
        day=day.isoformat(),
        outcome="already",
        billed_nano=bill.nano(day),
        booked_nano=booked_nano,
        unsure=sum(one.unsure for one in booked.values()),
        estimated_nano=sum(one.estimated_nano for one in booked.values()),
        at_most_nano=sum(one.at_most_nano for one in booked.values()),
    )
    if day >= today:
        return replace(result, outcome="not over")
    if not result.difference_nano:
        return result
    if not booked:
        return replace(result, outcome="no calls")
    earlier = {name: _adjustments(ledger, bill.account, name, day) for name in booked}
    if not force and not _explained(result, sum(e.amount_nano for rows in earlier.values() for e in rows)):
        return replace(result, outcome="contradicts")
    shares = {name: nano for name, nano in _shares(result.difference_nano, booked).items() if nano}
    entries = [
        _entry(bill, totals, name, day, nano=nano, attempt_no=len(earlier[name]) + 1) for name, nano in shares.items()
    ]
    (stored,) = ledger.commit([Write(tuple(entries))])
    if stored is not None:  # another process has adjusted the day at this moment
        return replace(result, outcome="conflict")
    return replace(result, outcome="adjusted", rows=tuple(shares.items()))


def _is_billed(total: Total, bill: DailyBill, backends: Sequence[str]) -> bool:
    group = total.group
    if group.local or group.decision == "byok":
        return False
    if backends:
        return group.backend in backends
    return (group.backend if bill.is_backend else group.provider) == bill.account


@dataclass(slots=True)
class _Booked:
    """The sums of one backend on one day."""

    cost_nano: int = 0
    unsure: int = 0
    estimated_nano: int = 0
    at_most_nano: int = 0


def _by_backend(totals: Sequence[Total]) -> Mapping[str, _Booked]:
    booked: dict[str, _Booked] = {}
    for total in totals:
        one = booked.setdefault(total.group.backend, _Booked())
        one.cost_nano += total.cost_nano
        one.unsure += total.unsure
        one.estimated_nano += total.estimated_nano
        one.at_most_nano += total.at_most_nano
    return booked


def _explained(day: ReconciledDay, adjusted_nano: int) -> bool:
    """Return whether calls that are not known for sure can have cost what the bill says, whatever was adjusted before.

    Each of them costs something between nothing and the most that it may cost.
    """
    from_estimates_nano = day.difference_nano + adjusted_nano
    return -day.estimated_nano <= from_estimates_nano <= day.at_most_nano - day.estimated_nano


def _shares(difference_nano: int, booked: Mapping[str, _Booked]) -> dict[str, int]:
    """Split a difference over the backends in proportion to what is not known for sure, else to their cost; exactly."""
    weights = {name: max(0, one.at_most_nano) for name, one in booked.items()}
    if not any(weights.values()):
        weights = {name: max(0, one.cost_nano) for name, one in booked.items()}
    if not any(weights.values()):
        weights = dict.fromkeys(booked, 1)
    whole, left_nano, shares = sum(weights.values()), difference_nano, {}
    for name, weight in sorted(weights.items(), key=lambda item: (-item[1], item[0]))[1:]:
        shares[name] = difference_nano * weight // whole
        left_nano -= shares[name]
    heaviest = min(weights, key=lambda name: (-weights[name], name))
    return {heaviest: left_nano, **shares}


def _bill_id(account: str, backend: str, day: date) -> str:
    return f"bill-{account}-{backend}-{day.isoformat()}"


def _adjustments(ledger: Ledger, account: str, backend: str, day: date) -> tuple[Entry, ...]:
    return ledger.entries_of(_bill_id(account, backend, day))


def _entry(bill: DailyBill, totals: Sequence[Total], backend: str, day: date, *, nano: int, attempt_no: int) -> Entry:
    provider = next(total.group.provider for total in totals if total.group.backend == backend)
    return Entry(
        kind="adjusted",
        request_id=_bill_id(bill.account, backend, day),
        attempt_no=attempt_no,
        ts=start_of(day) + DAY_MS - 1,
        backend=backend,
        provider=provider,
        decision=BILL,
        reasons=BILL,
        amount_nano=nano,
    )
