"""Every grouping of a report, in every form in which it is reported, against figures added up from the raw rows.

The forms are the report itself, its CSV, JSON and HTML, and the FOCUS export by day; the independent figures are those
of money/raw_books.py.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from html.parser import HTMLParser
from io import StringIO
from itertools import combinations
from pathlib import Path
from random import Random

from evidence.money.raw_books import FIGURES, Atom, RawBooks, raw_books
from evidence.results import Measurement
from spillway_router.core.money.alternatives import Offer
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.core.money.tariff import Rates, Tariff, TariffStep
from spillway_router.dashboard.report_file import report_html
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.rentals.corrections import RentalBooks
from spillway_router.ledger.reports.build import build_report
from spillway_router.ledger.reports.csv_file import report_csv
from spillway_router.ledger.reports.days import GROUP_KEYS, GroupKey, ReportRange
from spillway_router.ledger.reports.export import export_focus
from spillway_router.ledger.reports.json_report import report_json
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.testing.books import fill_books

GROUPINGS_UNEQUAL = "money.groupings_unequal"
LEDGERS = 12
SEED = 20261129
_FIRST = date(2026, 10, 23)
_CHEAP = Tariff(Decimal("0.01"), Decimal("0.02"), steps=(TariffStep(Rates(Decimal("0.04"), Decimal("0.05")), 200_000),))
_OFFERS = {
    "steps": Offer((("2026-10-01", _CHEAP), ("2026-11-01", _CHEAP.times(Decimal(3))))),
    "dearer": Offer.of(Tariff(Decimal(5), Decimal(25))),
}
"""The first one is the cheapest, with a step at a length and a price that changes within the books."""
_TERMS = ReportTerms(GpuRental(Decimal("1.39")), WorkCoefficients(), _OFFERS)
_TIMES = {"day", "month"}
ALL_GROUPINGS = [by for count in range(1, len(GROUP_KEYS) + 1) for by in combinations(GROUP_KEYS, count)]
_FOCUS_KEYS = tuple(key for key in GROUP_KEYS if key != "provider")

_Group = tuple[bool, tuple[str, ...]]
"""Whether it is a row of idle time, and its key values."""
Figures = dict[_Group, dict[str, int | None]]
Build = Callable[[Ledger, ReportRange, ReportTerms, int, tuple[GroupKey, ...]], Report]


@dataclass(slots=True)
class _Comparison:
    figures: int = 0
    unequal: int = 0
    first_unequal: list[str] = field(default_factory=list)
    by_form: Counter[str] = field(default_factory=Counter)

    def compare(self, form: str, reported: Figures, true: Figures, names: Sequence[str]) -> None:
        """Compare these figures of every group in either; a group that is missing tells 0."""
        for group in {*reported, *true}:
            for name in names:
                mine, other = reported.get(group, {}).get(name) or 0, true.get(group, {}).get(name) or 0
                self.figures += 1
                self.by_form[form] += 1
                if mine != other:
                    self.unequal += 1
                    if len(self.first_unequal) < 10:
                        self.first_unequal.append(f"{form} {group} {name}: {mine}, not {other}")


def groupings_unequal(
    say: Callable[[str], None], ledgers: int = LEDGERS, every: int = 1, build: Build = build_report
) -> dict[str, Measurement]:
    """Count the figures that differ, over all 511 groupings (or every so many) of random books."""
    comparison = _Comparison()
    for number in range(ledgers):
        with tempfile.TemporaryDirectory() as folder:
            _compare_ledger(
                comparison, Path(folder, "spillway.db"), number, ALL_GROUPINGS[number % every :: every], build
            )
        say(f"  {number + 1} of {ledgers} ledgers: {comparison.unequal} of {comparison.figures:,} figures differ")
    details = {
        "groupings": len(ALL_GROUPINGS[::every]),
        "figures_by_form": dict(comparison.by_form),
        "first_unequal": comparison.first_unequal,
        "seed": SEED,
    }
    return {GROUPINGS_UNEQUAL: Measurement(comparison.unequal, comparison.figures, details)}


def _compare_ledger(
    comparison: _Comparison, file: Path, number: int, groupings: Sequence[tuple[GroupKey, ...]], build: Build
) -> None:
    rng = Random(SEED + number)
    ledger = SqliteLedger.open(file)
    # Two books of up to three days each, beside each other: the range crosses the end of a month.
    bills = [fill_books(rng, ledger, _FIRST + timedelta(days=at), f"b{at}") for at in (7, 9)]
    days = ReportRange(bills[0].range.first, bills[-1].range.after, "some days")
    now_ms = max(bill.now_ms for bill in bills)
    RentalBooks(ledger).write_due(days.end_ms + 86_400_000)
    for _ in range(rng.choice((0, 1, 2))):
        ledger.sum_up(rng.randint(1, 200))
    books = raw_books(file, UTC, days.first.isoformat(), (days.after - timedelta(days=1)).isoformat())
    for by in groupings:
        report = build(ledger, days, _TERMS, max(now_ms, days.end_ms), by)
        true = true_figures(books, by)
        # Keys share what their groups would have cost elsewhere by a price that ignores lengths.
        names = NAMES if "key" in by else (*NAMES, "all_cloud")
        comparison.compare("report", _of_report(report), true, names)
        comparison.compare("JSON", figures_of_json(report_json(report), by), true, names)
        comparison.compare("CSV", _of_csv(report_csv(report), by), true, names)
        _compare_html(comparison, report_html(report), by, true)
    focus = StringIO()
    export_focus(ledger, days, max(now_ms, days.end_ms), focus, daily=True)
    _compare_focus(comparison, focus.getvalue(), books)
    ledger.close()


_UNITS = ("per_request", "per_1k_tokens", "per_document")
NAMES = (*FIGURES, "total", *_UNITS)


def true_figures(books: RawBooks, by: tuple[GroupKey, ...]) -> Figures:
    """Return the figures of a grouping by the raw rows."""
    groups: dict[_Group, Counter[str]] = {}
    elsewhere: dict[_Group, Fraction] = {}

    def add(group: _Group, amounts: Mapping[str, int]) -> None:
        groups.setdefault(group, Counter()).update(amounts)

    writers = {_model(atom) for atom in books.atoms if atom.figures["completion_tokens"]}
    for atom in books.atoms:
        group = False, tuple(atom.keys[key] for key in by)
        add(group, _amounts(atom))
        if _model(atom) in writers:  # the others are for embeddings, which no offer here could give
            elsewhere[group] = elsewhere.get(group, Fraction()) + _elsewhere(atom)
    apart = not _TIMES.issuperset(by)
    for day, nano in books.idle.items():
        times = {"day": day, "month": day[:7]}
        add((apart, tuple(times.get(key, "") for key in by)), {"idle": nano})
    figures: Figures = {}
    for (is_idle, values), sums in groups.items():
        total = sums["used"] + sums["idle"] + sums["cloud"]
        cost = total + (sums["spread"] if apart and not is_idle else 0)
        figures[is_idle, values] = {
            **sums,
            "total": total,
            "per_request": _per(cost, sums["answers"]),
            "per_1k_tokens": _per(1000 * cost, sums["prompt_tokens"] + sums["completion_tokens"]),
            "per_document": _per(sums["document_nano"], sums["documents"]),
            "all_cloud": int(elsewhere.get((is_idle, values), Fraction()) + Fraction(1, 2)),
        }
    return figures


def _model(atom: Atom) -> tuple[str, str]:
    return atom.keys["backend"], atom.keys["model"]


def _elsewhere(atom: Atom) -> Fraction:
    """Return what the answers would have cost at the cheapest offer, row by row, in nano-dollars."""
    cost = Fraction()
    for prompt, answers, prompt_tokens, completion_tokens in atom.answers_by_prompt:
        tariff = _OFFERS["steps"].prices[atom.keys["day"] >= "2026-11-01"][1]
        rates = tariff.steps[0].rates if prompt > 200_000 else tariff.rates
        cost += Fraction(rates.input) * prompt_tokens * 1000 + Fraction(rates.output) * completion_tokens * 1000
        cost += Fraction(tariff.per_request) * answers * 10**9
    return cost


def _amounts(atom: Atom) -> dict[str, int]:
    return {**atom.figures, "spread": atom.spread, "document_nano": atom.document_nano}


def _per(nano: int, count: int) -> int | None:
    return int((Decimal(nano) / count).quantize(Decimal(1), ROUND_HALF_UP)) if count else None


def _of_report(report: Report) -> Figures:
    return {
        (row.idle, tuple(row.keys.values())): {
            "attempts": row.served.attempts,
            "answers": row.served.answers,
            "documents": row.served.documents,
            "prompt_tokens": row.served.prompt_tokens,
            "completion_tokens": row.served.completion_tokens,
            "used": row.used_nano,
            "idle": row.idle_nano,
            "cloud": row.cloud_nano,
            "total": row.total_nano,
            "per_request": row.units.per_request_nano,
            "per_1k_tokens": row.units.per_1k_tokens_nano,
            "per_document": row.units.per_document_nano,
            "all_cloud": row.all_cloud_nano,
        }
        for row in report.groups
    }


def figures_of_json(text: str, by: tuple[GroupKey, ...]) -> Figures:
    """Read the decimal amounts; the integers beside them are those of the report."""
    figures: Figures = {}
    for row in json.loads(text)["groups"]:
        amounts = {name: _nano(row[f"{name}_usd"]) for name in ("used", "idle", "cloud", "total")}
        units = {name: _nano(row["units"][f"{name}_usd"]) for name in _UNITS}
        units["all_cloud"] = _nano(row["all_cloud_usd"])
        figures[row["idle"], tuple(row["keys"][key] for key in by)] = {**row["served"], **amounts, **units}
    return figures


def _of_csv(text: str, by: tuple[GroupKey, ...]) -> Figures:
    figures: Figures = {}
    for row in csv.DictReader(StringIO(text)):
        counts = {name: int(row[name]) for name in FIGURES[:5]}
        amounts = {
            "used": row["fixed_used_usd"],
            "idle": row["fixed_idle_usd"],
            "cloud": row["cloud_usd"],
            "total": row["total_usd"],
            **{name: row[f"{name}_usd"] for name in (*_UNITS, "all_cloud")},
        }
        figures[row["idle"] == "yes", tuple(row[key] for key in by)] = {
            **counts,
            **{name: _nano(amount) for name, amount in amounts.items()},
        }
    return figures


def _nano(usd: str | None) -> int | None:
    return int(Decimal(usd) * 10**9) if usd else None


# HTML: the figures are rounded for people, so the same words are made of the true figures.


class Tables(HTMLParser):
    """Reads all tables: their cells as text, below the heading that stands before each."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self._heading = self._text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "table":
            self.tables[self._heading] = []
        elif tag == "tr":
            self.tables[self._heading].append([])
        elif tag in ("td", "th", "h1", "h2"):
            self._text = ""

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h1", "h2"):
            self._heading = self._text
        elif tag in ("td", "th"):
            self.tables[self._heading][-1].append(self._text)


def _compare_html(comparison: _Comparison, text: str, by: tuple[GroupKey, ...], true: Figures) -> None:
    parser = Tables()
    parser.feed(text)
    rows = parser.tables.get(f"By {', '.join(by)}", [[]])[1:]
    reported = Counter((tuple(row[: len(by)]), *row[len(by) : len(by) + 6]) for row in rows)
    shown = ("answers", "used", "idle", "cloud", "total", "per_request")
    for (is_idle, values), figures in true.items():
        words = (
            f"{figures.get('answers') or 0:,}",
            *(_shown(figures.get(name) or 0) for name in shown[1:5]),
            "-" if figures["per_request"] is None else _shown(figures["per_request"]),
        )
        row = (_names(is_idle, values, by), *words)
        comparison.figures += len(shown)
        comparison.by_form["HTML"] += len(shown)
        if not reported[row] and any(figures.get(name) for name in FIGURES):
            comparison.unequal += 1
            if len(comparison.first_unequal) < 10:
                comparison.first_unequal.append(f"HTML lacks {row}")


def _names(is_idle: bool, values: tuple[str, ...], by: tuple[GroupKey, ...]) -> tuple[str, ...]:
    if not is_idle:
        return tuple(value or "(none)" for value in values)
    first = next(key for key in by if key not in _TIMES)
    return tuple("(idle GPU time)" if key == first else value for key, value in zip(by, values, strict=True))


def _shown(nano: int) -> str:
    """Return an amount as people read it: two decimals from one dollar on, four below, more where these show less than
    two digits."""
    usd = Decimal(abs(nano)).scaleb(-9)
    places = 2
    if usd.quantize(Decimal("0.0001"), ROUND_HALF_UP) < 1:
        places = 4
        while nano and places < 9 and usd.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP).scaleb(places) < 10:
            places += 1
    rounded = usd.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return f"{'-' if nano < 0 and rounded else ''}${rounded:,f}"


# FOCUS


def _compare_focus(comparison: _Comparison, text: str, books: RawBooks) -> None:
    rows = list(_focus_rows(text))
    atoms: list[tuple[Mapping[str, str], int]] = [
        ({key: atom.keys[key] for key in _FOCUS_KEYS}, atom.figures["used"] + atom.figures["settled"])
        for atom in books.atoms
    ]
    idle: list[tuple[Mapping[str, str], int]] = [
        ({"day": day, "month": day[:7]}, nano) for day, nano in books.idle.items()
    ]
    for count in range(1, len(_FOCUS_KEYS) + 1):
        for by in combinations(_FOCUS_KEYS, count):
            comparison.compare("FOCUS", _added(rows, by), _added([*atoms, *idle], by), ("cost",))


def _focus_rows(text: str) -> Iterator[tuple[dict[str, str], int]]:
    """Yield the key values and the effective cost of each row but the purchases, which are the bill itself."""
    for row in csv.DictReader(StringIO(text)):
        if row["ChargeCategory"] == "Purchase":
            continue
        tags, day = json.loads(row["Tags"] or "{}"), row["ChargePeriodStart"][:10]
        keys = {
            "day": day,
            "month": day[:7],
            "backend": row["ResourceId"] if row["CommitmentDiscountStatus"] != "Unused" else "",
            "model": row["SkuId"] if row["CommitmentDiscountStatus"] != "Unused" else "",
            "key": row["SubAccountId"],
            "tier": tags.get("spillway/tier", ""),
            "task": tags.get("spillway/task", ""),
            "decision": row["x_Decision"],
        }
        yield keys, int(Decimal(row["EffectiveCost"]) * 10**9)


def _added(rows: Sequence[tuple[Mapping[str, str], int]], by: tuple[str, ...]) -> Figures:
    sums: Counter[_Group] = Counter()
    for keys, nano in rows:
        sums[False, tuple(keys.get(key, "") for key in by)] += nano
    return {group: {"cost": nano} for group, nano in sums.items()}
