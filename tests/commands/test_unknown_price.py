"""A GPU whose price nobody gave: no command and no page shows what was saved, and rows for a spreadsheet say so."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner, Result

from spillway_router.cli import app
from spillway_router.config.assemble import assembly_of
from spillway_router.config.costs import report_terms
from spillway_router.config.load import read
from spillway_router.dashboard.money import money_page
from spillway_router.ledger.calendar import DAY_MS, start_of
from spillway_router.ledger.reports.build import report_for
from spillway_router.ledger.reports.days import ReportQuery
from spillway_router.ledger.reports.rows import alternative_rows
from spillway_router.ledger.store.open import open_ledger
from spillway_router.testing.business import BACKENDS, fill

pytestmark = pytest.mark.usefixtures("empty_folder")
TODAY = date.today()
FIRST = TODAY - timedelta(days=3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration without a price, whose ledger has three days of a business on a GPU that is booked at 0."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = open_ledger(url)
    fill(ledger, FIRST, 3, Random(7), per_day=12, size=500, price_nano_per_hour=0)
    ledger.close()
    written = tmp_path / "spillway.yaml"
    written.write_text(f"ledger: {{url: '{url}'}}\nbackends:{BACKENDS}\n")
    return written


def run(file: Path, *words: str) -> Result:
    done = CliRunner().invoke(app, [*words, "--config", str(file)])
    assert done.exit_code == 0, done.output
    return done


def test_a_report_knows_no_saving(file: Path) -> None:
    days = ("--from", FIRST.isoformat(), "--to", TODAY.isoformat())
    report = json.loads(run(file, "report", *days, "--json").stdout)
    assert report["unpriced_gpu_hours"] == 72
    assert report["alternatives"]
    for row in report["alternatives"]:
        assert (row["savings_nano"], row["savings_usd"]) == (None, None)
        assert row["break_even"] == {"utilisation": None, "requests_per_day": None}
        assert row["all_cloud_nano"] > 0
    assert report["all_local"] is None
    assert "unknown per GPU-hour x 1" in run(file, "report", *days).stdout


@pytest.mark.parametrize("words", [("report", "--csv"), ("report", "--by", "day"), ("ledger", "export")])
def test_rows_for_a_spreadsheet_are_warned_of(file: Path, words: tuple[str, ...]) -> None:
    done = run(file, *words, "--from", FIRST.isoformat(), "--to", TODAY.isoformat())
    assert "price of the gpu is unknown" in done.stderr.lower()
    assert "72.000 GPU-hours" in done.stderr
    assert "unknown" not in done.stdout


def test_the_money_page_knows_no_saving(file: Path) -> None:
    loaded = read(str(file))
    ledger = open_ledger(loaded.settings.ledger.url, "read")
    terms = report_terms(loaded.settings, assembly_of(loaded, TODAY))
    query = ReportQuery(first=FIRST.isoformat(), last=TODAY.isoformat(), by=("day",))
    report = report_for(ledger, query, terms, start_of(TODAY) + DAY_MS)
    page = money_page(report, report, TODAY)
    ledger.close()
    assert page.cards[0].value == "unknown"
    assert {day.outcome for day in page.days} == {"-"}
    assert {row[2:4] for row in alternative_rows(report)} == {("unknown", "unknown")}


def test_a_replay_says_that_rent_is_left_out(file: Path) -> None:
    replayed = json.loads(run(file, "replay", "--json").stdout)
    assert any("price of its GPU is unknown" in note for note in replayed["notes"])
