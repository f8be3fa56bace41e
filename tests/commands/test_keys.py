"""`spillway keys`: rules are set, changed and shown; after a rotation the old secret works for a while."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.tables.keys import KeyStore

RULES = ["--models", "auto,cm", "--backends", "local", "--rpm", "30", "--budget", "2.50/day", "--expires", "90d"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "spillway.yaml").write_text(f"ledger: {{url: 'sqlite:///{tmp_path / 'ledger.db'}'}}\n")
    return tmp_path / "spillway.yaml"


def keys(config: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["keys", *arguments, "--config", str(config)])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def listed(config: Path) -> dict[str, object]:
    (row,) = json.loads(keys(config, "list", "--json"))
    return dict(row)


def test_rules_are_set_changed_and_shown(config: Path) -> None:
    key_id = json.loads(keys(config, "create", "ann", *RULES, "--json"))["id"]
    row = listed(config)
    assert (row["models"], row["backends"], row["rpm"], row["budget"]) == (
        ["auto", "cm"],
        ["local"],
        30,
        "2.500000/day",
    )
    assert row["expires"]
    keys(config, "set", key_id, "--models", "all", "--rpm", "0", "--budget", "none", "--may-route")
    row = listed(config)
    assert (row["models"], row["backends"], row["rpm"], row["budget"]) == ([], ["local"], 0, None)
    assert (row["may_route"], row["role"]) == (True, "inference")
    assert row["expires"]
    keys(config, "set", key_id, "--expires", "never", "--role", "viewer")
    assert (listed(config)["expires"], listed(config)["role"]) == (None, "viewer")


@pytest.mark.parametrize(
    "wrong",
    [
        ["--budget", "5"],
        ["--budget", "five/day"],
        ["--budget", "NaN/day"],
        ["--budget", "5/week"],
        ["--budget=-1/day"],
        ["--expires", "soon"],
        ["--rpm", "-1"],
        ["--tpm", "-1"],
        ["--concurrent", "9999999999"],
        ["--models", ","],
        ["--role", "root"],
    ],
    ids=" ".join,
)
def test_rules_that_make_no_sense_are_refused(config: Path, wrong: list[str]) -> None:
    keys(config, "create", "ann", *wrong, code=1)
    key_id = json.loads(keys(config, "create", "ann", "--json"))["id"]
    keys(config, "set", key_id, *wrong, code=1)
    assert listed(config)["role"] == "inference"


def test_a_rotation_keeps_the_old_secret_for_a_while(config: Path) -> None:
    created = json.loads(keys(config, "create", "ann", "--json"))
    rotated = json.loads(keys(config, "rotate", created["id"], "--grace", "1h", "--json"))
    assert created["key"] != rotated["key"]
    ledger = open_ledger(f"sqlite:///{config.parent / 'ledger.db'}")
    try:
        store = KeyStore(ledger.keys)
        assert store.verify(created["key"], 0.0) is not None
        assert store.verify(rotated["key"], 0.0) is not None
    finally:
        ledger.close()
    keys(config, "rotate", created["id"], "--grace", "0m")
    ledger = open_ledger(f"sqlite:///{config.parent / 'ledger.db'}")
    try:
        assert KeyStore(ledger.keys).verify(rotated["key"], 0.0) is None
    finally:
        ledger.close()
    assert "no valid key" in keys(config, "rotate", "nobody", code=1)
    assert "no valid key" in keys(config, "set", "nobody", "--rpm", "1", code=1)
