"""`spillway keys`: rules are set, changed and shown; after a rotation the old secret works for a while."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.core.money.users import user_id
from spillway_router.ledger.provider_keys import ProviderKeys
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.tables.keys import KeyStore
from spillway_router.ledger.tables.provider_keys import ProviderPlace
from spillway_router.ledger.vault import Vault

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


def provider_key(config: Path, *arguments: str, typed: str = "", code: int = 0, **more: str) -> str:
    environment = {"SPILLWAY_SECRET_KEY": base64.b64encode(bytes(32)).decode(), **more}
    words = ["keys", "provider-key", *arguments, "--config", str(config)]
    result = CliRunner().invoke(app, words, input=typed, env=environment)
    assert result.exit_code == code, result.output
    return result.output


def test_a_provider_key_is_read_from_standard_input_or_a_variable_and_never_shown(config: Path) -> None:
    key_id = json.loads(keys(config, "create", "ann", "--json"))["id"]
    shown = provider_key(config, "set", key_id, "groq", typed="gsk-0123456789\n")
    shown += provider_key(config, "set", key_id, "openai", "--user", "eve", "--from-env", "EVES", EVES="sk-0123456789")
    shown += provider_key(config, "reseal") + provider_key(config, "list", key_id)
    rows = json.loads(provider_key(config, "list", key_id, "--json"))
    assert {(row["provider"], row["user_id"]) for row in rows} == {("groq", ""), ("openai", user_id(key_id, "eve"))}
    ledger = open_ledger(f"sqlite:///{config.parent / 'ledger.db'}")
    try:
        store = ProviderKeys(ledger.provider_keys, Vault([bytes(32)]))
        assert store.secret(ProviderPlace(key_id, "", "groq"), 0.0) == "gsk-0123456789"
        assert store.secret(ProviderPlace(key_id, user_id(key_id, "eve"), "openai"), 0.0) == "sk-0123456789"
        assert store.secret(ProviderPlace(key_id, "", "openai"), 0.0) is None
    finally:
        ledger.close()
    assert "0123456789" not in shown
    provider_key(config, "remove", key_id, "groq")
    assert "no key of groq" in provider_key(config, "remove", key_id, "groq", code=1)
    assert "is none of" in provider_key(config, "set", key_id, "nobody", typed="x", code=1)
    assert "printable" in provider_key(config, "set", key_id, "groq", typed="", code=1)
    assert "empty" in provider_key(config, "set", key_id, "groq", "--from-env", "NONE", code=1)
    assert "openssl" in provider_key(config, "set", key_id, "groq", typed="x", code=1, SPILLWAY_SECRET_KEY="short")
    assert "openssl" in provider_key(config, "set", key_id, "groq", typed="x", code=1, SPILLWAY_SECRET_KEY="")


def test_a_file_with_secret_keys_that_others_may_read_is_refused(config: Path) -> None:
    file = config.parent / "secret"
    file.write_text(base64.b64encode(bytes(32)).decode())
    file.chmod(0o640)
    config.write_text(config.read_text() + "keys: {secret_key_file: secret}\n")
    key_id = json.loads(keys(config, "create", "ann", "--json"))["id"]
    assert "chmod 600" in provider_key(config, "set", key_id, "groq", typed="x", code=1)
    file.chmod(0o600)
    provider_key(config, "set", key_id, "groq", typed="x", SPILLWAY_SECRET_KEY="")
    file.unlink()
    assert "can't read" in provider_key(config, "list", key_id, code=1)
