"""`spillway ledger`: exit codes, the named row, files."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.ledger.helpers import T0, entry, tamper
from tests.sources import ROOT
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.core.money.users import user_id
from spillway_router.ledger.orphans import unknown_charge
from spillway_router.ledger.store.migrations import load_migrations
from spillway_router.ledger.store.sqlite import migrations
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
    assert (code, out, err) == (0, "", f"ledger: {database}\n2 rows of 2026-09-21\n")
    with file.open(encoding="utf-8", newline="") as text:
        assert sorted(row["BilledCost"] for row in csv.DictReader(text)) == ["0.000000005", "0.001000"]
    code, out, _ = spillway(database, "export", "--format", "jsonl", *days)
    assert [json.loads(line)["ts"] for line in out.splitlines()] == [T0, T0, T0]
    code, _, err = spillway(database, "export", "--from", "soon")
    assert (code, "2026-11-20" in err) == (1, True)
    code, _, err = spillway(database, "export", *days, "--output", str(tmp_path / "no" / "such.csv"))
    assert (code, "another --output" in err) == (1, True)


def test_unknown_lists_what_reconcile_takes(database: Path, tmp_path: Path) -> None:
    days = ("--from", "2026-09-21", "--to", "2026-09-21")
    code, out, _ = spillway(database, "unknown", *days)
    assert code == 0
    assert out.splitlines()[-1] == "1 calls of 2026-09-21: estimated $0.0010, at most $0.0010"
    (one,) = json.loads(spillway(database, "unknown", *days, "--json")[1])
    assert (one["request_id"], one["attempt_no"], one["at_most_nano"]) == ("lost", 1, 1_000_000)
    head, row = spillway(database, "unknown", *days, "--csv")[1].splitlines()
    bill = tmp_path / "bill.csv"
    bill.write_text(f"{head}\n{row}0.0004\n")
    assert spillway(database, "reconcile", str(bill))[0] == 0
    assert spillway(database, "unknown", *days, "--json")[1].strip() == "[]"
    assert spillway(database, "unknown", "--from", "soon")[0] == 1


def test_an_estimate_of_a_whole_answer_is_reconciled_too(database: Path, tmp_path: Path) -> None:
    with closing(SqliteLedger.open(tmp_path / "ledger.db")) as ledger:
        ledger.append((entry("charged", "r2", amount_nano=300, status="ok", estimated_nano=300, at_most_nano=900),))
    bill = tmp_path / "bill.csv"
    bill.write_text("request_id,attempt_no,cost_nano\nr2,1,300\n")
    assert spillway(database, "reconcile", str(bill))[1].splitlines()[0] == "     1  adjusted"
    assert spillway(database, "reconcile", str(bill))[1].splitlines()[0] == "     1  already"


def test_reconcile_reads_a_bill(database: Path, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_text("request_id,attempt_no,cost_usd\nlost,1,0.0004\n")
    code, out, _ = spillway(database, "reconcile", str(bill))
    assert (code, out.splitlines()) == (0, ["     1  adjusted", "charges changed by -0.000600 USD"])
    (act,) = json.loads(spillway(database, "acts", "--json")[1])
    assert (act["kind"], act["subject"], act["details"]["changed_nano"]) == ("ledger.reconcile", "bill.csv", -600_000)
    bill.write_text("request_id,attempt_no,cost_usd\nr1,1,0.0004\n")
    code, _, err = spillway(database, "reconcile", str(bill))
    assert (code, err) == (1, "  r1 attempt 1: not unknown\n")
    assert len(json.loads(spillway(database, "acts", "--about", "ledger", "--json")[1])) == 1
    assert spillway(database, "acts", "--about", "key", "--json")[1].strip() == "[]"
    bill.write_text("request_id\n")
    code, _, err = spillway(database, "reconcile", str(bill))
    assert (code, "no rows" in err) == (1, True)
    assert spillway(database, "verify")[0] == 0


READING = (
    ("report",),
    ("ledger", "verify"),
    ("ledger", "export"),
    ("keys", "list"),
    ("rentals", "list"),
    ("reviews", "list"),
    ("explain", "req_1"),
)
CHANGING = (("keys", "revoke", "k"), ("rentals", "stop", "--all"), ("ledger", "reconcile", "spillway.yaml"))


@pytest.mark.parametrize("command", [*READING, *CHANGING], ids=" ".join)
def test_a_command_that_reads_fails_where_there_is_no_ledger_and_makes_none(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spillway.yaml").write_text("ledger: {url: 'sqlite:///books/x.db'}\n")
    monkeypatch.chdir(tmp_path)
    if "reconcile" in command:
        (tmp_path / "bill.csv").write_text("request_id,attempt_no,cost_usd\nr1,1,0.1\n")
        command = (*command[:-1], "bill.csv")
    result = RUNNER.invoke(app, [*command, "--config", "spillway.yaml"])
    assert result.exit_code == 1
    assert f"there is no ledger at {tmp_path}/books/x.db" in result.stderr
    assert not (tmp_path / "books").exists()


@pytest.mark.parametrize("command", READING[:-1], ids=" ".join)
def test_a_command_that_reads_names_its_ledger_and_leaves_the_file_as_it_is(
    command: tuple[str, ...], database: Path
) -> None:
    before = database.read_bytes()
    result = RUNNER.invoke(app, [*command, "--config", str(database.parent / "spillway.yaml")])
    assert (result.exit_code, result.stderr.splitlines()[0]) == (0, f"ledger: {database}")
    assert database.read_bytes() == before


def test_a_reading_command_says_that_an_older_ledger_needs_the_router_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    (tmp_path / "spillway.yaml").write_text(f"ledger: {{url: 'sqlite:///{path}'}}\n")
    SqliteLedger.open(path, load_migrations(migrations.__name__)[:-1]).close()
    code, _, err = spillway(path, "verify")
    assert code == 1
    assert "start the router once" in err
    SqliteLedger.open(path).close()
    assert spillway(path, "verify")[0] == 0


def test_check_makes_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "spillway.yaml").write_text("ledger: {url: 'sqlite:///books/x.db'}\n")
    result = RUNNER.invoke(app, ["check", "--offline", "--config", str(tmp_path / "spillway.yaml")])
    assert (result.exit_code, result.stderr) == (0, "")
    assert not (tmp_path / "books").exists()


def test_a_backup_is_written_verified_and_restored(database: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    code, out, _ = spillway(database, "backup", str(file), "--json")
    written = json.loads(out)
    assert (code, written["rows"], written["ledger"], written["backup"]) == (0, 3, str(database), str(file))
    assert spillway(database, "backup", str(file))[0] == 1
    tamper(database, "DELETE FROM entries WHERE seq = 3")
    code, out, _ = spillway(database, "restore", str(file), "--json")
    restored = json.loads(out)
    assert (code, restored["rows"], restored["head"]) == (0, 3, written["head"])
    assert Path(restored["before"]).exists()
    assert spillway(database, "verify", "--head", written["head"])[0] == 0
    (act,) = json.loads(spillway(database, "acts", "--json")[1])
    assert (act["kind"], act["subject"]) == ("ledger.restore", "backup.db")
    assert act["by"].startswith("command of ")


def test_a_damaged_backup_is_not_restored(database: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    spillway(database, "backup", str(file))
    tamper(file, "UPDATE entries SET amount_nano = 4 WHERE request_id = 'r1'")
    before = database.read_bytes()
    code, _, err = spillway(database, "restore", str(file))
    assert code == 1
    assert "chain" in err
    assert database.read_bytes() == before


def test_an_older_ledger_can_be_backed_up_before_it_is_brought_up_to_date(tmp_path: Path) -> None:
    path, file = tmp_path / "ledger.db", tmp_path / "backup.db"
    (tmp_path / "spillway.yaml").write_text(f"ledger: {{url: 'sqlite:///{path}'}}\n")
    SqliteLedger.open(path, load_migrations(migrations.__name__)[:6]).close()
    code, _, err = spillway(path, "backup", str(file))
    assert (code, file.exists()) == (0, True)
    assert "not verified" in err


def test_a_ledger_in_postgresql_is_backed_up_by_its_own_tools(tmp_path: Path) -> None:
    (tmp_path / "spillway.yaml").write_text("ledger: {url: 'postgresql://u:hunter2@h/d'}\n")
    code, _, err = spillway(tmp_path / "ledger.db", "backup", str(tmp_path / "backup.db"))
    assert code == 1
    assert "pg_dump" in err
    assert "hunter2" not in err


def test_acts_say_what_was_done_to_keys_and_by_whom(database: Path) -> None:
    config = str(database.parent / "spillway.yaml")
    created = RUNNER.invoke(app, ["keys", "create", "ann", "-c", config])
    assert created.exit_code == 0, created.output
    with closing(SqliteLedger.open_to_read(database)) as ledger:
        (key_id,) = [key.id for key in ledger.keys.all()]
    assert RUNNER.invoke(app, ["keys", "revoke", key_id, "-c", config]).exit_code == 0
    code, out, _ = spillway(database, "acts", "--json")
    acts = json.loads(out)
    assert (code, [(act["kind"], act["subject"]) for act in acts]) == (
        0,
        [("key.create", key_id), ("key.revoke", key_id)],
    )
    assert all(act["by"].startswith("command of ") for act in acts)
    assert acts[0]["details"]["name"] == "ann"
    assert "key.revoke" in spillway(database, "acts")[1]
    pseudonym = RUNNER.invoke(app, ["keys", "user", key_id, "ann@example.com"]).stdout.strip()
    assert pseudonym == user_id(key_id, "ann@example.com")


def test_reconcile_reads_a_bill_by_days(database: Path, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_text("day,provider,cost_usd\n2026-09-21,groq,0.0004\n")
    code, out, _ = spillway(database, "reconcile", str(bill))
    assert (code, out.splitlines()[0], out.splitlines()[-1]) == (
        0,
        "2026-09-21 groq: billed 0.000400, booked 0.001000005 USD: adjusted (groq by -0.000600005)",
        "charges changed by -0.000600005 USD",
    )
    assert "1 call still not known one by one: estimated 0.001000, at most 0.001000 USD" in out
    code, out, _ = spillway(database, "reconcile", str(bill))
    assert (code, "already" in out) == (0, True)
    bill.write_text("day,provider,cost_usd\n2026-09-21,groq,7\n")
    code, _, err = spillway(database, "reconcile", str(bill))
    assert (code, "--force adjusts them" in err) == (1, True)
    code, out, _ = spillway(database, "reconcile", str(bill), "--force", "--json")
    assert (code, json.loads(out)["days"][0]["rows"]) == (0, [["groq", 6_999_600_000]])
    assert spillway(database, "verify")[0] == 0


def test_the_report_names_what_a_bill_adjusted(database: Path, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_text("day,provider,cost_usd\n2026-09-21,groq,0.0004\n")
    assert spillway(database, "reconcile", str(bill))[0] == 0
    config = str(database.parent / "spillway.yaml")
    shown = RUNNER.invoke(app, ["report", "--from", "2026-09-21", "--to", "2026-09-21", "--json", "--config", config])
    rows = {row["decision"]: row["cost_nano"] for row in json.loads(shown.stdout)["cloud"]["rows"]}
    assert rows["bill"] == -600_005
    assert sum(rows.values()) == 400_000
    text = RUNNER.invoke(app, ["report", "--from", "2026-09-21", "--to", "2026-09-21", "--config", config]).stdout
    assert any(line.split()[1:2] == ["bill"] for line in text.splitlines())


RECONCILED = {"reconcile none", "reconcile some", "reconcile all rows", "reconcile act"}


def killed(folder: Path, *words: str) -> set[str]:
    """Kill a command at each of its steps; return how it ended each time."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.commands.killed_commands", folder, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return {line for line in run.stdout.splitlines() if line.startswith(("reconcile ", "update "))}


@pytest.mark.parametrize(
    ("command", "ends"), [("try_reconcile", RECONCILED), ("try_update", {"update old", "update new"})]
)
def test_a_reconciliation_and_an_update_of_prices_may_be_killed_at_any_step(
    tmp_path: Path, command: str, ends: set[str]
) -> None:
    assert killed(tmp_path, command) == ends


def test_a_reconciliation_in_postgresql_may_be_killed_at_any_step(tmp_path: Path, postgres_url: str) -> None:
    assert killed(tmp_path, "try_reconcile", postgres_url) == RECONCILED
