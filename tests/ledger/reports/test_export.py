"""Exports: FOCUS rows sum to the bill on both sides; JSON lines give every entry back; bills reconcile."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger.helpers import D0, DAY, T0, entry

from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.ledger.bills import BilledAttempt, BillError, read_bill
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.orphans import unknown_charge
from spillway_router.ledger.reconcile import reconcile
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.reports.build import build_report
from spillway_router.ledger.reports.days import GroupKey, ReportRange
from spillway_router.ledger.reports.export import FOCUS_COLUMNS, export_focus, export_jsonl
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.testing import MemoryLedger
from spillway_router.testing.books import fill_books

FIRST = date(2026, 9, 21)
TERMS = ReportTerms(GpuRental(Decimal("1.39")), WorkCoefficients(), {})
NOW = D0 + 10 * DAY


def rows_of(ledger: MemoryLedger, days: int = 1, *, daily: bool = False) -> list[dict[str, str]]:
    after = datetime.fromtimestamp((D0 + days * DAY) / 1000, UTC).date()
    return focus_of(ledger, ReportRange(FIRST, after, "days"), NOW, daily=daily)


def focus_of(ledger: Ledger, days: ReportRange, now_ms: int, *, daily: bool = False) -> list[dict[str, str]]:
    out = io.StringIO()
    count = export_focus(ledger, days, now_ms, out, daily=daily)
    exported = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert len(exported) == count
    return exported


def total(rows: Sequence[dict[str, str]], column: str, **where: str) -> Decimal:
    return sum((Decimal(row[column]) for row in rows if all(row[k] == v for k, v in where.items())), Decimal(0))


def local(number: int, gpu_us: int, ts: int = T0) -> Entry:
    return entry("charged", f"l{number}", ts=ts, local=True, backend="local", status="ok", gpu_us=gpu_us)


def test_rented_time_is_bought_used_and_unused() -> None:
    ledger = MemoryLedger()
    ledger.append(
        (
            entry("gpu_hour", "rent_1", amount_nano=1_390_000_001, gpu_us=3_600_000_000, ts=T0),
            local(1, 900_000_000),
            local(2, 300_000_000),
            entry("charged", "c1", amount_nano=149_925, status="ok", prompt_tokens=1155, completion_tokens=211),
            entry("charged", "free", status="ok"),
            entry("reserved", "open", reserved_nano=5),
        )
    )
    exported = rows_of(ledger)
    assert tuple(exported[0]) == FOCUS_COLUMNS
    assert [row["ChargeCategory"] for row in exported] == ["Purchase", "Usage", "Usage", "Usage", "Usage", "Usage"]
    purchase, used = exported[0], exported[1]
    assert (purchase["BilledCost"], purchase["EffectiveCost"]) == ("1.390000001", "0.000000")
    assert purchase["PricingQuantity"] == "1.000000000"
    assert (used["BilledCost"], used["EffectiveCost"][:6]) == ("0.000000", "0.3475")
    assert used["CommitmentDiscountStatus"] == "Used"
    assert used["CommitmentDiscountId"] == purchase["CommitmentDiscountId"]
    assert total(exported, "EffectiveCost", CommitmentDiscountStatus="Unused") == Decimal("0.926666667")
    assert total(exported, "BilledCost") == total(exported, "EffectiveCost") == Decimal("1.390149926")
    assert [row["x_RequestId"] for row in exported if row["ProviderName"] == "groq"] == ["c1", "free"]
    assert (used["ChargePeriodStart"], used["ChargePeriodEnd"]) == ("2026-09-21T00:00:00Z", "2026-09-22T00:00:00Z")
    assert used["x_Time"] == "2026-09-21T14:13:20Z"
    assert used["BillingPeriodEnd"] == "2026-10-01T00:00:00Z"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10**10)), max_size=12),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 10**10), st.integers(0, 10**10)), max_size=4),
)
def test_both_columns_have_the_same_sum_to_the_nano_dollar(
    work: list[tuple[int, int]], rent: list[tuple[int, int, int]]
) -> None:
    ledger = MemoryLedger()
    for number, (day, gpu_us) in enumerate(work):
        ledger.append((local(number, gpu_us, D0 + day * DAY + number),))
    for number, (day, gpu_us, nano) in enumerate(rent):
        ledger.append((entry("gpu_hour", f"g{number}", ts=D0 + day * DAY, gpu_us=gpu_us, amount_nano=nano),))
    billed = sum(nano for *_, nano in rent)
    for exported in (rows_of(ledger, 3, daily=True), rows_of(ledger, 3)):
        assert total(exported, "BilledCost") * 10**9 == billed
        assert total(exported, "EffectiveCost") * 10**9 == billed
    assert sum(row["CommitmentDiscountStatus"] == "Used" for row in exported) == len(work)


def test_daily_rows_are_the_reports_groups_to_the_nano_dollar() -> None:
    by: tuple[GroupKey, ...] = ("day", "backend", "model", "key", "tier", "task", "decision")
    compared = 0
    for number in range(40):
        ledger = MemoryLedger()
        bill = fill_books(Random(number), ledger, FIRST, "s")
        report = build_report(ledger, bill.range, TERMS, bill.now_ms, by)
        exported: Counter[tuple[str, ...]] = Counter()
        for row in focus_of(ledger, bill.range, bill.now_ms, daily=True):
            if row["CommitmentDiscountStatus"] != "Unused" and row["ChargeCategory"] == "Usage":
                tags = json.loads(row["Tags"] or "{}")
                names = (
                    row["ResourceId"],
                    row["SkuId"],
                    row["SubAccountId"],
                    tags.get("spillway/tier", ""),
                    tags.get("spillway/task", ""),
                )
                key = (row["ChargePeriodStart"][:10], *names, row["x_Decision"])
                exported[key] += int(Decimal(row["EffectiveCost"]) * 10**9)
                compared += 1
        held = {(row["ts"] // DAY, row["key_id"]) for row in map(Entry._asdict, ledger.open_reservations(0, 2**62))}
        for row in report.groups:
            key = tuple(row.keys.values())
            day = int(datetime.fromisoformat(f"{key[0]}T00:00+00:00").timestamp() * 1000) // DAY
            if not row.idle and (day, row.keys["key"]) not in held:
                assert exported[key] == row.used_nano + row.cloud_nano
    assert compared > 100


def test_rows_of_attempts_sum_to_the_days_keys() -> None:
    compared = 0
    for number in range(40):
        ledger = MemoryLedger()
        bill = fill_books(Random(number), ledger, FIRST, "s")
        report = build_report(ledger, bill.range, TERMS, bill.now_ms, ("key",))
        used: Counter[str] = Counter()
        for row in focus_of(ledger, bill.range, bill.now_ms):
            if row["CommitmentDiscountStatus"] == "Used":
                used[row["SubAccountId"]] += int(Decimal(row["EffectiveCost"]) * 10**9)
        assert +used == +Counter({row.keys["key"]: row.used_nano for row in report.groups if not row.idle})
        compared += len(used)
    assert compared > 20


def test_a_running_rental_is_bought_up_to_now() -> None:
    ledger = MemoryLedger()
    ledger.rentals.add(
        RentalRecord(
            id="rent_1",
            gpu="a100-80",
            count=2,
            price_nano_per_hour=1_000_000_000,
            kind="reserved",
            started_ms=D0,
            stopped_ms=None,
            source="cli",
        )
    )
    (purchase, unused) = rows_of(ledger)
    assert (purchase["BilledCost"], purchase["x_RentalId"], purchase["SkuId"]) == (
        "48.000000",
        "rent_1",
        "a100-80-hour",
    )
    assert unused["EffectiveCost"] == "48.000000"


def test_json_lines_give_every_entry_back() -> None:
    ledger = MemoryLedger()
    entries = (
        local(1, 5),
        entry("adjusted", "l1", amount_nano=-4, task="übersetzen"),
        entry("gpu_hour", "g", ts=T0 + 1),
    )
    ledger.append(entries)
    ledger.append((entry("charged", "later", ts=T0 + DAY),))
    out = io.StringIO()
    assert export_jsonl(ledger, D0, D0 + DAY, out) == 3
    assert tuple(Entry(**json.loads(line)) for line in out.getvalue().splitlines()) == entries


def test_a_bill_brings_unknown_charges_to_their_cost_once() -> None:
    ledger = MemoryLedger()
    holds = [entry("reserved", f"r{i}", reserved_nano=100_000) for i in range(3)]
    ledger.append(holds)
    ledger.append([unknown_charge(hold) for hold in holds])
    ledger.append((entry("charged", "known", amount_nano=5, status="ok"),))
    bills = read_bill("request_id,attempt_no,cost_usd\nr0,1,0.00007\nr1,1,0\nr9,1,1\nknown,1,1\n").attempts
    done = reconcile(ledger, bills, T0 + DAY)
    assert [(one.outcome, one.difference_nano) for one in done] == [
        ("adjusted", -30_000),
        ("adjusted", -100_000),
        ("not found", 0),
        ("not unknown", 0),
    ]
    assert ledger.balance("all", "day", D0).spent_nano == 170_005
    again = reconcile(ledger, [*bills[:2], BilledAttempt("r1", 1, 7)], T0 + 2 * DAY)
    assert [one.outcome for one in again] == ["already", "already", "adjusted otherwise"]
    assert [e.request_id for e in ledger.entries_between(0, 2**62) if e.kind == "adjusted"] == ["r0", "r1"]


def test_bills_are_read_from_json_lines_and_mistakes_named() -> None:
    text = '{"request_id": "a", "cost_usd": 0.000000001}\n\n{"request_id": "b", "attempt_no": 2, "cost_nano": 5}\n'
    assert read_bill(text).attempts == (BilledAttempt("a", 1, 1), BilledAttempt("b", 2, 5))
    for bad, says in (
        ("", "no rows"),
        ("request_id,attempt_no,cost_usd\n", "no rows"),
        ("request_id,attempt_no,cost_usd\n,1,1\n", "line 2: it has no request_id"),
        ("request_id,attempt_no,cost_usd\na,1,x\n", "line 2"),
        ("request_id,attempt_no,cost_usd\na,1,-1\n", "negative"),
        ('{"request_id": "a"}', "line 1"),
        ('{"request_id": "a", "cost_nano": 1}\n[1]', "line 2 is not a JSON object"),
        ("{oops", "line 1 is not a JSON"),
    ):
        with pytest.raises(BillError, match=says):
            read_bill(bad)


def test_the_arm_of_an_experiment_is_a_tag_without_its_unit() -> None:
    ledger = MemoryLedger()
    paid = entry("charged", "paid", ts=D0, amount_nano=5, experiment="cheaper/b/0123abcd")
    work = entry("charged", "work", ts=D0, local=True, gpu_us=5, experiment="cheaper/control/0123abcd")
    ledger.append((paid, work, entry("charged", "plain", ts=D0, amount_nano=5)))
    rented = entry("gpu_hour", "g", ts=D0, gpu_us=5, amount_nano=5)
    ledger.append((rented,))
    tags = {row["x_RequestId"]: json.loads(row["Tags"] or "{}") for row in rows_of(ledger, 1)}
    arms = {request_id: tags[request_id].get("spillway/experiment", "") for request_id in ("paid", "work", "plain")}
    assert arms == {"paid": "cheaper/b", "work": "cheaper/control", "plain": ""}
