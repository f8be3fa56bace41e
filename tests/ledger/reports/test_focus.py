"""The FOCUS export follows the text of FOCUS 1.2, and its rows of one charge sum to it."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from random import Random

import pytest
from tests.core.scenes import GROQ, facts
from tests.ledger.contract import RENTAL
from tests.ledger.helpers import D0, DAY, DEAR_BACKEND, OVERFLOW, SEARCHES, T0, entry
from tests.ledger.reports.focus_rules import RULES, broken

from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.money.tariff import Tariff, Usage
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.holds import AttemptEntries, AttemptResult, Hold
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.reports.days import ReportRange
from spillway_router.ledger.reports.export import export_focus
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.ledger.tables.tariffs import texts_of
from spillway_router.testing import MemoryLedger
from spillway_router.testing.books import fill_books

FIRST = date(2026, 9, 21)
PER_SECOND = replace(GROQ, name="seconds", tariff=Tariff(Decimal(0), Decimal(0), per_second=Decimal("0.0007")))
USAGE = Usage(
    prompt_tokens=1001,
    completion_tokens=33,
    cached_tokens=101,
    cache_write_tokens=77,
    cache_write_long_tokens=7,
    calls=(("web_search", 2),),
)


def exported(ledger: Ledger, days: ReportRange, *, daily: bool = False) -> list[dict[str, str]]:
    out = io.StringIO()
    export_focus(ledger, days, D0 + 40 * DAY, out, daily=daily)
    return list(csv.DictReader(io.StringIO(out.getvalue())))


def day_of_rows(ledger: Ledger, days: int = 1) -> list[dict[str, str]]:
    return exported(ledger, ReportRange(FIRST, FIRST.fromordinal(FIRST.toordinal() + days), "days"))


def charged(number: int, result: AttemptResult, backend: object = DEAR_BACKEND, key_id: str = "") -> Entry:
    """Return the row of an attempt as a router writes it."""
    assert isinstance(backend, type(GROQ))
    request = facts(request_id=f"r{number}", items=SEARCHES)
    hold = Hold(
        facts=replace(request, caller=replace(request.caller, key_id=key_id)),
        backend=backend,
        reason=OVERFLOW,
        attempt_no=1,
        held_ms=T0,
        bound_nano=10**11,
        stored=True,
    )
    return AttemptEntries("me", WorkCoefficients(), lambda: T0 / 1000).closing(hold, backend, result)


@pytest.fixture
def ledger() -> MemoryLedger:
    """Return a ledger with a rental, local answers and every kind of charge."""
    memory = MemoryLedger()
    key = KeyStore(memory.keys).create(KeySpec("ann's app"), b"ann123", bytes(range(32)), T0).record.id
    memory.rentals.add(replace(RENTAL, started_ms=D0, stopped_ms=D0 + 5 * 3_600_000 + 1234))
    memory.tariffs.keep(texts_of((DEAR_BACKEND.tariff, GROQ.tariff, PER_SECOND.tariff)), T0)
    for number, gpu_us in enumerate((900_000_007, 1, 0)):
        memory.append((entry("charged", f"l{number}", local=True, backend="local", status="ok", gpu_us=gpu_us),))
    results = [
        (AttemptResult("ok", USAGE), DEAR_BACKEND),
        (AttemptResult("ok", Usage(5, 5)), GROQ),
        (AttemptResult("ok", Usage(0, 0)), GROQ),
        (AttemptResult("ok", Usage(5, 5), seconds=1.2345), PER_SECOND),
        (AttemptResult("ok", None), GROQ),
        (AttemptResult("ok", Usage(5, 5, told_nano=7)), GROQ),
        (AttemptResult("aborted", Usage(5, 5), estimated=True), GROQ),
    ]
    memory.append([charged(number, *each, key_id=key) for number, each in enumerate(results)])
    memory.append((entry("charged", "old", amount_nano=9, tariff_ref="config@1970-01-01", status="ok"),))
    memory.append((entry("adjusted", "old", ts=T0 + 1, amount_nano=-4, tariff_ref="config@1970-01-01"),))
    memory.append((entry("adjusted", "r4", ts=T0 + 12 * DAY, amount_nano=-3),))
    return memory


def groups(rows: Sequence[dict[str, str]]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    by_request = defaultdict(list)
    for row in rows:
        by_request[row["x_RequestId"]].append(row)
    return iter(by_request.items())


def test_every_row_follows_the_text(ledger: MemoryLedger) -> None:
    rows = day_of_rows(ledger, 14)
    assert [(row["x_RequestId"], broken(row)) for row in rows if broken(row)] == []
    daily = exported(ledger, ReportRange(FIRST, date(2026, 10, 5), "days"), daily=True)
    assert [(row["ResourceId"], broken(row)) for row in daily if broken(row)] == []
    for number in range(20):
        books = MemoryLedger()
        bill = fill_books(Random(number), books, FIRST, "s")
        for as_days in (False, True):
            assert [broken(row) for row in exported(books, bill.range, daily=as_days) if broken(row)] == []


def test_a_charge_is_split_by_its_prices(ledger: MemoryLedger) -> None:
    rows = dict(groups(day_of_rows(ledger)))["r0"]
    assert [(row["SkuMeter"], row["PricingQuantity"], row["ListUnitPrice"], row["BilledCost"]) for row in rows] == [
        ("Input Tokens", "0.000823000", "1", "0.000823"),
        ("Output Tokens", "0.000033000", "10", "0.000330"),
        ("Cached Input Tokens", "0.000101000", "0.1", "0.0000101"),
        ("Cache Write Tokens", "0.000070000", "1.25", "0.0000875"),
        ("Cache Write Tokens (1 hour)", "0.000007000", "2", "0.000014"),
        ("Calls of web_search_20250305", "2", "0.01", "0.020000"),
    ]
    assert {row["SubAccountName"] for row in rows} == {"ann's app"}
    assert [row["x_PromptTokens"] for row in rows] == ["1001", "", "", "", "", ""]
    by_price = {(row["SkuPriceId"], row["ListUnitPrice"]) for row in rows}
    assert len(by_price) == len({price_id for price_id, _ in by_price}) == 6
    assert all(price_id.endswith(f"@{DEAR_BACKEND.tariff.ref}") for price_id, _ in by_price if DEAR_BACKEND.tariff)


def test_the_rows_of_a_charge_sum_to_it(ledger: MemoryLedger) -> None:
    rows = dict(groups(day_of_rows(ledger)))
    for each in ledger.entries_between(D0, D0 + DAY):
        if each.kind == "charged" and not each.local:
            billed = [Decimal(row["BilledCost"]) * 10**9 for row in rows[each.request_id] if row["x_Time"]]
            adjusted = -4 if each.request_id == "old" else 0
            assert sum(billed) == each.amount_nano + adjusted, each


def test_only_corrections_of_an_earlier_month_are_called_so(ledger: MemoryLedger) -> None:
    rows = [row for row in day_of_rows(ledger, 14) if Decimal(row["BilledCost"]) < 0]
    assert [(row["x_RequestId"], row["ChargeClass"]) for row in rows] == [("old", ""), ("r4", "Correction")]


def test_a_charge_stands_on_the_day_of_its_hold_as_in_reports() -> None:
    for number in range(20):
        memory = MemoryLedger()
        bill = fill_books(Random(number), memory, FIRST, "s")
        late = D0 + DAY - 1
        memory.append((entry("reserved", "late", ts=late, reserved_nano=9, tariff_ref="t"),))
        memory.append((entry("charged", "late", ts=late + 5, amount_nano=7, tariff_ref="t"),))
        memory.append((entry("adjusted", "late", ts=late + 3 * DAY, amount_nano=-2, tariff_ref="t"),))
        memory.append((entry("reserved", "open", ts=late, reserved_nano=9, tariff_ref="t"),))
        days = ReportRange(FIRST, max(bill.range.after, date(2026, 9, 26)), "days")
        by_day: dict[str, int] = defaultdict(int)
        for row in exported(memory, days):
            if not row["CommitmentDiscountId"]:
                by_day[row["ChargePeriodStart"][:10]] += int(Decimal(row["BilledCost"]) * 10**9)
        expected: dict[str, int] = defaultdict(int)
        for total in memory.totals(days.start_ms, days.end_ms):
            expected[total.day] += total.cost_nano
        assert {day: nano for day, nano in by_day.items() if nano} == {d: n for d, n in expected.items() if n}
        later = exported(memory, ReportRange(date(2026, 9, 22), date(2026, 9, 23), "day"))
        assert "late" not in {row["x_RequestId"] for row in later}


def test_a_commitment_is_used_and_unused_as_it_was_bought(ledger: MemoryLedger) -> None:
    rows = [row for row in day_of_rows(ledger) if row["CommitmentDiscountId"]]
    quantity = {
        status: sum(
            Decimal(row["CommitmentDiscountQuantity"]) for row in rows if row["CommitmentDiscountStatus"] == status
        )
        for status in ("", "Used", "Unused")
    }
    assert abs(quantity[""] - quantity["Used"] - quantity["Unused"]) < Decimal("1e-8")
    effective = sum(Decimal(row["EffectiveCost"]) for row in rows)
    assert effective == sum(Decimal(row["BilledCost"]) for row in rows) > 0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"BilledCost": ""}, "not null"),
        ({"BilledCost": "1,5"}, "numbers"),
        ({"ChargePeriodStart": "2026-09-21T14:13:20.123Z"}, "times"),
        ({"ChargePeriodEnd": "2026-11-01T00:00:00Z"}, "periods"),
        ({"ChargeClass": "correction"}, "allowed values"),
        ({"PricingUnit": "tokens"}, "units"),
        ({"SkuPriceId": ""}, "sku and prices"),
        ({"SkuId": ""}, "sku and prices"),
        ({"ListUnitPrice": ""}, "sku and prices"),
        ({"ListCost": "17"}, "list cost"),
        ({"ContractedUnitPrice": "17"}, "contracted cost"),
        ({"SubAccountName": ""}, "sub account"),
        ({"ConsumedQuantity": ""}, "consumed"),
        ({"CommitmentDiscountId": "c"}, "commitment quantity"),
        ({"Tags": '{"key": "k"}'}, "tag prefixes"),
        ({"Tags": '{"spillway/key": ["k"]}'}, "tags"),
        ({"ResourceName": "demo", "ResourceId": "demo"}, "resource name"),
    ],
)
def test_the_rules_find_what_breaks_them(ledger: MemoryLedger, change: dict[str, str], rule: str) -> None:
    row = dict(groups(day_of_rows(ledger)))["r0"][0]
    assert broken(row) == []
    assert rule in RULES
    assert rule in broken({**row, **change})
    assert broken({name: value for name, value in row.items() if name != "SkuMeter"}) == ["SkuMeter"]
