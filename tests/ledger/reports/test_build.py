"""The report against a bill computed by other means from the same rows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from spillway_router.core.money.alternatives import Offer
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.core.money.currency import Amounts, Currency
from spillway_router.core.money.tariff import NANO, Rates, Tariff, TariffStep, Usage, price
from spillway_router.dashboard.report_file import report_html
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.reports.build import CLOUD_ROWS, build_report
from spillway_router.ledger.reports.csv_file import report_csv
from spillway_router.ledger.reports.days import GroupKey, ReportRange, one_day
from spillway_router.ledger.reports.json_report import report_json, report_values
from spillway_router.ledger.reports.model import AllLocal, Report
from spillway_router.ledger.reports.terminal import render_report
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.ledger.reports.words import forecast_words, notes
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

DAY = date(2026, 11, 20)
START, END = one_day(DAY).start_ms, one_day(DAY).end_ms
HOUR_MS = 3_600_000
RENTAL = GpuRental(Decimal("1.39"))
COEFFICIENTS = WorkCoefficients(prefill_ps=100_000_000, decode_ps=1_000_000_000, kv_ps=0)
OSS = Tariff(Decimal("0.075"), Decimal("0.30"), valid_from="2026-11-20", source="groq")
MINI = Tariff(Decimal("0.15"), Decimal("0.60"), valid_from="2026-11-20", source="openai")
TERMS = ReportTerms(RENTAL, COEFFICIENTS, {"groq/gpt-oss-20b": Offer.of(OSS), "openai/gpt-4o-mini": Offer.of(MINI)})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger.open(tmp_path / "spillway.db")
    yield opened
    opened.close()


def report_of(ledger: SqliteLedger, *by: GroupKey) -> Report:
    return build_report(ledger, one_day(DAY), TERMS, END, by)


def local(request: str, seconds: int, attempt: int = 1, **rest: Any) -> Entry:
    given = {"decision": "local", "status": "ok", "prompt_tokens": 1000, "completion_tokens": 100, **rest}
    return Entry(
        kind="charged",
        request_id=request,
        attempt_no=attempt,
        ts=START + 5,
        backend="local",
        model="demo",
        local=True,
        gpu_us=seconds * 1_000_000,
        **given,
    )


def cloud(request: str, decision: str, amount: int, attempt: int = 1, **rest: Any) -> Entry:
    given = {"status": "ok", "prompt_tokens": 1000, "completion_tokens": 100, **rest}
    return Entry(
        kind="charged",
        request_id=request,
        attempt_no=attempt,
        ts=START + 5,
        backend="groq",
        model="gpt-oss-20b",
        decision=decision,
        amount_nano=amount,
        **given,
    )


def rent(ledger: SqliteLedger, hours: float, nano: int = 1_390_000_000) -> None:
    """One A100 from midnight on, for so many hours."""
    stop = START + round(hours * HOUR_MS)
    ledger.rentals.add(
        RentalRecord(
            id="rent_1",
            gpu="a100-80",
            count=1,
            price_nano_per_hour=nano,
            kind="reserved",
            started_ms=START,
            stopped_ms=stop,
            source="cli",
        )
    )


def test_a_second_look_is_no_draft(ledger: SqliteLedger) -> None:
    rent(ledger, 1)
    draft = local("a", 10, status="discarded")
    look = local("b", 1, attempt=2, status="discarded", decision="audit", reasons="self_check")
    ledger.append((draft, local("b", 10), look))
    row = report_of(ledger).fixed.rows[0]
    assert (row.served.answers, row.discarded, row.gpu_seconds) == (1, 1, 21.0)


def test_what_is_not_known_for_sure_is_counted_until_it_is_reconciled(ledger: SqliteLedger) -> None:
    guess = cloud("a", "overflow", 300, status="aborted", estimated_nano=300, at_most_nano=1_000)
    free = cloud("b", "fallback", 0, status="error", estimated_nano=0, at_most_nano=2_000)
    right = guess._replace(request_id="c", attempt_no=1)
    bill = right._replace(kind="adjusted", amount_nano=-50, estimated_nano=-300, at_most_nano=-1_000)
    ledger.append((guess, free, cloud("d", "overflow", 7), right, bill))
    report = report_of(ledger)
    side = report.cloud
    assert (side.unsure, side.estimated_nano, side.at_most_nano, side.cost_nano) == (2, 300, 3_000, 557)
    line = "Not known for sure: 2 calls, estimated $0.00000030, at most $0.0000030."
    assert [note.partition(" `")[0] for note in notes(report) if note.startswith("Not known")] == [line]
    assert "Not known for sure: 2 calls" in report_html(report)
    values = report_values(report)["cloud"]
    assert (values["unsure"], values["estimated_nano"], values["at_most_usd"]) == (2, 300, "0.000003")
    grouped = report_of(ledger, "decision")
    unsure = {row.keys["decision"]: (row.unsure, row.estimated_nano, row.at_most_nano) for row in grouped.groups}
    assert unsure == {"overflow": (1, 300, 1_000), "fallback": (1, 0, 2_000)}
    assert report_csv(grouped).splitlines()[1].endswith(",1,0.000000,0.000002")


def test_a_day_worked_out_by_hand(ledger: SqliteLedger) -> None:
    rent(ledger, 2)  # 2.78 USD for 7200 GPU-seconds
    ledger.append(
        (
            local("a", 1800, document=True),
            local("b", 900),
            local("c", 900, status="discarded", document=True),  # draft that was escalated
            cloud("c", "escalated", 500_000, attempt=2, document=True),
            cloud("d", "overflow", 105_000),
            cloud("e", "overflow", 0, status="error", prompt_tokens=0, completion_tokens=0),
            cloud("e", "fallback", 105_000, attempt=2),
            cloud("f", "byok", 0),
            Entry(kind="reserved", request_id="g", attempt_no=1, ts=START + 9, backend="groq", reserved_nano=7_000),
        )
    )
    report = report_of(ledger)
    fixed, side = report.fixed, report.cloud
    assert (fixed.billed_nano, fixed.used_nano, fixed.idle_nano) == (
        2_780_000_000,
        1_390_000_000,
        1_390_000_000,
    )
    assert (fixed.gpu_hours, fixed.utilisation) == (2.0, 0.5)
    assert (fixed.served.answers, fixed.rows[0].discarded) == (2, 1)
    costs = {row.decision: (row.served.answers, row.cost_nano) for row in side.rows}
    assert costs == {
        "overflow": (1, 105_000),
        "escalated": (1, 500_000),
        "fallback": (1, 105_000),
        "routed": (0, 0),
        "pinned": (0, 0),
        "byok": (1, 0),
        "referee": (0, 0),
        "audit": (0, 0),
        "shadow": (0, 0),
        "bill": (0, 0),
        "other": (0, 0),
    }
    assert (side.unsettled, side.unsettled_nano, side.cost_nano) == (1, 7_000, 717_000)
    assert (report.requests, report.served.answers, report.served.documents) == (6, 6, 2)
    assert report.total_nano == 2_780_717_000
    # 6 answers with 6,600 tokens in all; documents did 3/4 of the local work and cost 500,000 in the cloud
    assert report.units.per_request_nano == 463_452_833
    assert report.units.per_1k_tokens_nano == 421_320_758
    assert report.units.per_document_nano == (2_780_000_000 * 3 // 4 + 500_000) // 2
    # 6 x (1000 x 0.075 + 100 x 0.30) USD per million
    oss = report.alternatives[0]
    assert (oss.tariff_ref.partition("#")[0], oss.all_cloud_nano) == ("groq@2026-11-20", 630_000)
    assert oss.savings_nano == 630_000 - 2_780_717_000
    assert oss.break_even.requests_per_day == pytest.approx(24 * 1.39 / 105e-6)
    # cloud answers would be 4 x (1000 x 0.1 ms + 100 x 1 ms) = 0.8 s of work on the GPU
    assert report.capacity_per_day == pytest.approx(86400 * 6 / 2700.8)
    assert report.all_local is not None
    assert (report.all_local.gpus_needed, report.all_local.cost_nano) == (1, 2_780_000_000)


def test_work_for_more_than_one_gpu_needs_more_in_the_all_local_case(ledger: SqliteLedger) -> None:
    big = {"prompt_tokens": 0, "completion_tokens": 5_000_000}  # 5000 s of work here
    rent(ledger, 1)
    ledger.append((cloud("a", "overflow", 1, **big),))
    report = report_of(ledger)
    assert report.all_local is not None
    assert (report.all_local.gpus_needed, report.all_local.cost_nano) == (2, 2_780_000_000)


def test_answers_that_were_on_one_gpu_need_no_second_one(ledger: SqliteLedger) -> None:
    """The coefficients claim two hours of work in one, and it was done; only what the cloud answered may need more."""
    rent(ledger, 1)
    ledger.append((local("a", 7200),))
    report = report_of(ledger)
    assert report.fixed.overcommitted
    assert report.all_local == AllLocal(gpus_needed=1, cost_nano=1_390_000_000, savings_nano=0)
    assert report.capacity_per_day == 24
    ledger.append((cloud("b", "overflow", 7, prompt_tokens=0, completion_tokens=3_600),))  # an hour at the coefficients
    report = report_of(ledger)
    assert report.all_local is not None
    assert report.all_local.gpus_needed == 2


STEPPED = Tariff(Decimal(1), Decimal(2), steps=(TariffStep(Rates(Decimal(10), Decimal(20)), 200_000),))
EMBEDDER = Tariff(Decimal("0.02"), Decimal(0))
DEDICATED = Tariff(Decimal(0), Decimal(0), per_second=Decimal("0.001"))


def compared(ledger: SqliteLedger, **offers: Offer) -> Report:
    return build_report(ledger, one_day(DAY), ReportTerms(RENTAL, COEFFICIENTS, offers), END, ("decision",))


def test_long_prompts_cost_their_step(ledger: SqliteLedger) -> None:
    short = {"prompt_tokens": 200_000, "completion_tokens": 1000}
    long = {"prompt_tokens": 200_001, "completion_tokens": 1000}
    ledger.append((cloud("a", "overflow", 1, **short), cloud("b", "escalated", 1, **long)))
    for _ in range(2):  # from the rows, then from the running sums
        report = compared(ledger, stepped=Offer.of(STEPPED))
        short_nano, long_nano = 202_000_000, 2_000_010_000 + 20_000_000
        assert report.alternatives[0].all_cloud_nano == short_nano + long_nano
        by_decision = {row.keys["decision"]: row.all_cloud_nano for row in report.groups}
        assert by_decision == {"overflow": short_nano, "escalated": long_nano}
        ledger.sum_up(10)


def test_only_alternatives_are_compared(ledger: SqliteLedger) -> None:
    """Chat and embeddings are apart, a prompt must fit, and a price per second is none for other answers."""
    embedded = {"backend": "embed", "model": "e5", "completion_tokens": 0}
    long = cloud("b", "overflow", 40, prompt_tokens=140_000, completion_tokens=100)
    ledger.append((cloud("a", "overflow", 30), long, cloud("c", "routed", 5)._replace(**embedded)))
    report = compared(
        ledger,
        chat=Offer.of(MINI),
        small=Offer.of(OSS, context_tokens=131_072),
        embedder=Offer.of(EMBEDDER),
        dedicated=Offer.of(DEDICATED),
    )
    rows = {row.name: (row.answers, row.all_cloud_nano, row.savings_nano) for row in report.alternatives}
    chat_nano, small_nano = 150 * 141_000 + 600 * 200, 75 * 1000 + 300 * 100
    assert rows == {
        "chat": (2, chat_nano, chat_nano - 70),
        "small": (1, small_nano, small_nano - 30),
        "embedder": (1, 20_000, 20_000 - 5),
    }
    assert (report.cheapest, report.not_compared) == ("chat", ("dedicated",))
    assert {row.keys["decision"]: row.all_cloud_nano for row in report.groups}["routed"] is None
    assert "chat: 2 of 3 answers" in shown(report)
    assert "dedicated" in shown(report)


def test_an_answer_without_output_is_no_embedding(ledger: SqliteLedger) -> None:
    cut_off = cloud("a", "overflow", 1, status="aborted", completion_tokens=0)
    ledger.append((cut_off, cloud("b", "overflow", 1)))
    report = compared(ledger, chat=Offer.of(MINI), embedder=Offer.of(EMBEDDER))
    assert [(row.name, row.answers) for row in report.alternatives] == [("chat", 2)]


def test_each_day_has_its_price(ledger: SqliteLedger) -> None:
    later = cloud("b", "overflow", 1)._replace(ts=END + 5)
    ledger.append((cloud("a", "overflow", 1), later))
    offer = Offer((("2026-11-01", OSS), ("2026-11-21", MINI)))
    days = ReportRange(DAY, DAY + timedelta(days=2), "two days")
    terms = ReportTerms(RENTAL, COEFFICIENTS, {"cheaper once": offer})
    for _ in range(2):
        report = build_report(ledger, days, terms, END + 10, ("day",))
        assert [row.all_cloud_nano for row in report.groups] == [105_000, 210_000]
        assert report.alternatives[0].all_cloud_nano == 315_000
        by_key = build_report(ledger, days, terms, END + 10, ("key",)).groups
        assert [row.all_cloud_nano for row in by_key if not row.idle] == [315_000]
        ledger.sum_up(10)


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (461_870_000_000, "about $460"),
        (3_583_000_000_000, "about $3,600"),
        (1_234_000_000, "about $1.20"),
        (1_234_567, "about $0.0012"),
        (0, "about $0.0000"),
        (-99_600_000_000, "about -$100"),
    ],
)
def test_a_guess_has_two_digits(nano: int, text: str) -> None:
    assert Amounts().about(nano) == text


def test_a_forecast_from_half_an_hour_says_that_it_is_a_guess(ledger: SqliteLedger) -> None:
    ledger.append((cloud("a", "overflow", 5_280_000_000),))
    now_ms = START + 33 * 60_000
    forecast = build_report(ledger, one_day(DAY), TERMS, now_ms).forecast
    assert forecast is not None
    words = forecast_words(forecast, Amounts())
    assert words.startswith("Forecast: a guess from 33 minutes: 2026-11 may cost about $2,500")
    later = build_report(ledger, one_day(DAY), TERMS, now_ms + 2 * 86_400_000).forecast
    assert later is not None
    assert "2 full days of history" in forecast_words(later, Amounts())


def test_a_document_that_waits_for_a_person_is_not_answered(ledger: SqliteLedger) -> None:
    rent(ledger, 1)
    waiting = local("b", 0, 2, document=True)._replace(backend="review", model="", prompt_tokens=0, completion_tokens=0)
    ledger.append((local("a", 10, document=True), local("b", 10, status="discarded", document=True), waiting))
    report = report_of(ledger)
    assert (report.requests, report.served.answers, report.served.documents) == (2, 1, 1)
    assert report.fixed.served.answers == 1
    assert [row.answers for row in report.alternatives] == [1, 1]


def test_other_days_dont_count(ledger: SqliteLedger) -> None:
    early = Entry(kind="charged", request_id="x", attempt_no=1, ts=START - 1, amount_nano=5, status="ok")
    late = Entry(kind="charged", request_id="y", attempt_no=1, ts=END, amount_nano=5, status="ok")
    ledger.append((early, late))
    assert report_of(ledger).total_nano == 0
    assert report_of(ledger).requests == 0


def test_an_empty_day_divides_by_nothing(ledger: SqliteLedger) -> None:
    report = report_of(ledger)
    assert report.units.per_request_nano is None
    assert report.all_local is None
    assert report.alternatives[0].break_even.utilisation is None
    assert "0 requests" in shown(report)


statuses = st.sampled_from(["ok", "ok", "ok", "error", "aborted", "discarded", "unknown"])
attempts = st.lists(
    st.tuples(
        st.booleans(),  # local
        st.sampled_from(["overflow", "escalated", "fallback", "routed", "pinned", "byok", "cache"]),
        statuses,
        st.integers(0, 5000),
        st.integers(1, 2000),
        st.booleans(),  # document
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(attempts, st.integers(0, 24 * 60), st.integers(0, 10**6))
def test_the_report_equals_a_bill_added_up_row_by_row(
    requests: list[tuple[bool, str, str, int, int, bool]], minutes: int, adjustment: int
) -> None:
    """An own bill kept while the rows are made: plain sums, no grouping, no SQL."""
    rows: list[Entry] = []
    bill = answers = tokens_in = tokens_out = documents = work = 0
    by_decision = dict.fromkeys(CLOUD_ROWS, 0)
    all_cloud = Fraction(0)
    for number, (is_local, decision, status, prompt, out, document) in enumerate(requests):
        shape: dict[str, Any] = {
            "status": status,
            "prompt_tokens": prompt,
            "completion_tokens": out,
            "document": document,
        }
        if is_local:
            rows.append(local(f"r{number}", 7, **shape))
            work += 7
        else:
            cost = price(Usage(prompt, out), MINI)
            rows.append(cloud(f"r{number}", decision, cost, **shape))
            bill += cost
            by_decision[decision if decision in by_decision else "other"] += cost
        if status in ("ok", "aborted"):
            answers += 1
            documents += document
            tokens_in += prompt
            tokens_out += out
            all_cloud += Fraction(prompt) * 75 + Fraction(out) * 300
    if requests and not requests[0][0]:
        rows.append(_adjusted(rows, adjustment))
        bill += adjustment
        decision = requests[0][1]
        by_decision[decision if decision in by_decision else "other"] += adjustment

    with tempfile.TemporaryDirectory() as folder:
        ledger = SqliteLedger.open(Path(folder) / "spillway.db")
        rent(ledger, minutes / 60)
        ledger.append(rows)
        report = report_of(ledger)
        ledger.close()

    billed = int(Fraction(139, 100) * minutes * NANO / 60)
    assert report.fixed.billed_nano == billed
    assert report.fixed.used_nano + report.fixed.idle_nano == billed
    assert sum(row.used_nano for row in report.fixed.rows) == report.fixed.used_nano
    if minutes:
        share = min(Fraction(1), Fraction(work, minutes * 60))
        assert abs(report.fixed.used_nano - billed * share) < 40
    assert {row.decision: row.cost_nano for row in report.cloud.rows} == by_decision
    assert report.total_nano == billed + bill
    assert (report.requests, report.served.attempts) == (len(requests), len(requests))
    assert (report.served.answers, report.served.documents) == (answers, documents)
    assert (report.served.prompt_tokens, report.served.completion_tokens) == (tokens_in, tokens_out)
    assert report.alternatives[0].all_cloud_nano == all_cloud


def _adjusted(rows: list[Entry], nano: int) -> Entry:
    first = next(row for row in rows if row.request_id == "r0")
    return Entry(
        kind="adjusted",
        request_id="r0",
        attempt_no=1,
        ts=first.ts,
        backend=first.backend,
        model=first.model,
        decision=first.decision,
        status=first.status,
        document=first.document,
        amount_nano=nano,
    )


def shown(report: Report, width: int = 140) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    render_report(report, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_both_sides_stand_side_by_side(ledger: SqliteLedger) -> None:
    rent(ledger, 1)
    ledger.append((local("a", 1800), cloud("b", "overflow", 105_000)))
    text = shown(report_of(ledger))
    heading = next(line for line in text.splitlines() if "Fixed: rented GPU" in line)
    assert "Per request: cloud" in heading
    for part in ("50.0%  $0.6950", "$0.00011", "1.000 GPU-hours  $1.39", "requests/day", "groq/gpt-oss-20b"):
        assert part in text
    assert max(len(line) for line in shown(report_of(ledger), width=80).splitlines()) <= 80


def test_json_has_exact_integers_and_decimal_text(ledger: SqliteLedger) -> None:
    rent(ledger, 1)
    ledger.append((cloud("b", "overflow", 105_001),))
    data = json.loads(report_json(report_of(ledger)))
    assert data["cloud"]["cost_nano"] == 105_001
    assert data["cloud"]["cost_usd"] == "0.000105001"
    assert data["fixed"]["units"]["per_request_usd"] is None
    assert data["day"] == "2026-11-20"


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "$0.0000"),
        (1, "$0.000000001"),
        (31_499, "$0.000031"),
        (100_000, "$0.00010"),
        (41_449_999, "$0.0414"),
        (41_450_000, "$0.0415"),
        (994_999_999, "$0.9950"),
        (999_949_999, "$0.9999"),
        (999_950_000, "$1.00"),
        (1_390_000_000, "$1.39"),
        (1_031_030_000_000, "$1,031.03"),
        (-1_500_000_000, "-$1.50"),
        (-31_499, "-$0.000031"),
    ],
)
def test_money_has_cents_from_a_dollar_on_and_four_decimals_or_two_digits_below(nano: int, text: str) -> None:
    assert Amounts().money(nano) == text


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "EUR 0.0000"),
        (1_087_000_000, "EUR 1.00"),
        (1_086_000_000, "EUR 0.9991"),
        (-1_234_567_890_123, "-EUR 1,135.80"),
        (33, "EUR 0.000000030"),
    ],
)
def test_money_is_converted_exactly_and_rounded_once(nano: int, text: str) -> None:
    assert Amounts(Currency("EUR", "0.92", "2026-11-01")).money(nano) == text
