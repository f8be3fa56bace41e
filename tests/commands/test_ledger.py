"""`spillway ledger`: exit codes, the named row, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tests.ledger.helpers import T0, entry, tamper
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.ledger.orphans import unknown_charge
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

RUNNER = CliRunner()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    (tmp_path / "spillway.yaml").write_text(f"ledger: {{url: 'sqlite:///{path}'}}\n")
    ledger = SqliteLedger.open(path)
    hold = entry("reserved", "lost", reserved_nano=1_000_000)
    ledger.append((hold, entry("charged", "r1", amount_nano=5, status="ok")))
    ledger.append((unknown_charge(hold),))
    ledger.close()
    return path


def spillway(database: Path, *arguments: str) -> tuple[int, str, str]:
    config = str(database.parent / "spillway.yaml")
    result = RUNNER.invoke(app, ["ledger", *arguments, "--config", config])
    return result.exit_code, result.stdout, result.stderr


def test_verify_names_the_first_bad_row_and_exits_1(database: Path) -> None:
    code, out, _ = spillway(database, "verify")
    assert (code, out.splitlines()[-1]) == (0, "no faults")
    head = out.split("head ")[1].split()[0]
    assert spillway(database, "verify", "--head", head)[0] == 0
    assert spillway(database, "verify", "--head", "00")[0] == 1
    tamper(database, "UPDATE entries SET amount_nano = 4 WHERE request_id = 'r1'")
    code, out, _ = spillway(database, "verify")
    assert code == 1
    assert "chain: row 2" in out
    code, out, _ = spillway(database, "verify", "--json")
    assert code == 1
    report = json.loads(out)
    assert (report["holds"], report["rows"], report["faults"][0]["seq"]) == (False, 3, 2)


def test_export_writes_the_days_that_were_asked_for(database: Path, tmp_path: Path) -> None:
    days = ("--from", "2026-09-21", "--to", "2026-09-21")
    file = tmp_path / "focus.csv"
    code, out, err = spillway(database, "export", *days, "--output", str(file))
    assert (code, out, err) == (0, "", "2 rows of 2026-09-21\n")
    with file.open(encoding="utf-8", newline="") as text:
        assert sorted(row["BilledCost"] for row in csv.DictReader(text)) == ["0.000000005", "0.001000"]
    code, out, _ = spillway(database, "export", "--format", "jsonl", *days)
    assert [json.loads(line)["ts"] for line in out.splitlines()] == [T0, T0, T0]
    code, _, err = spillway(database, "export", "--from", "soon")
    assert (code, "2026-11-20" in err) == (1, True)
    code, _, err = spillway(database, "export", *days, "--output", str(tmp_path / "no" / "such.csv"))
    assert (code, "another --output" in err) == (1, True)


def test_reconcile_reads_a_bill(database: Path, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_text("request_id,attempt_no,cost_usd\nlost,1,0.0004\n")
    code, out, _ = spillway(database, "reconcile", str(bill))
    assert (code, out.splitlines()) == (0, ["     1  adjusted", "charges changed by -0.000600 USD"])
    bill.write_text("request_id,attempt_no,cost_usd\nr1,1,0.0004\n")
    code, _, err = spillway(database, "reconcile", str(bill))
    assert (code, err) == (1, "  r1 attempt 1: not unknown\n")
    bill.write_text("request_id\n")
    code, _, err = spillway(database, "reconcile", str(bill))
    assert (code, "no rows" in err) == (1, True)
    assert spillway(database, "verify")[0] == 0
