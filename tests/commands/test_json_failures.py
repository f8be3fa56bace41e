"""Every command with `--json` where it must fail: standard output holds nothing or one JSON value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.commands.json_keys import commands
from typer.testing import CliRunner, Result

from spillway_router.cli import app

pytestmark = pytest.mark.usefixtures("empty_folder")
NOBODY = "http://127.0.0.1:9"
"""An address at which nothing listens."""
WORDS = {"target": "aws", "of": "engine", "place": "s3://bucket/prefix", "values": "AL=1", "url": NOBODY}
"""What stands for an argument; for the others it is the name of a file or an ID that does not exist."""
MORE = {"keys set": ("--rpm", "3"), "rentals correct": ("--count", "2"), "rentals start": ("--price", "1")}
"""Options without which a command asks nobody."""
TOLD_BY_JSON = {"check", "extract", "rentals watch"}
"""Commands that name what is wrong in their JSON, and not on standard error too."""
NEVER_FAILS = {"config show", "doctor", "keys create", "keys user", "prices list", "rentals start"}
"""Commands for which a missing ledger is no failure."""


def with_json() -> dict[str, Any]:
    every = dict(commands(typer.main.get_command(app)))
    return {name: one for name, one in every.items() if any("--json" in part.opts for part in one.params)}


def words_of(name: str, command: Any) -> list[str]:
    arguments = [part.name for part in command.params if part.param_type_name == "argument"]
    return [*name.split(), *(WORDS.get(one, "nothing-here") for one in arguments), *MORE.get(name, ()), "--json"]


def check(name: str, result: Result, said: str = "") -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit), (name, result.exception)
    where = result.stdout if name in TOLD_BY_JSON and result.stdout else result.stderr
    assert result.exit_code in (1, 2), (name, result.output)
    assert said in where, (name, where)
    assert where.strip(), name
    if result.stdout:
        json.loads(result.stdout)


@pytest.mark.parametrize("name", with_json())
def test_a_wrong_command_line(name: str) -> None:
    result = CliRunner().invoke(app, [*words_of(name, with_json()[name]), "--no-such-option"])
    check(name, result)
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize("text", [None, "listn: 3\n"])
def test_a_configuration_that_is_wrong_or_missing(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "spillway.yaml"
    if text is not None:
        file.write_text(text)
    for name, command in with_json().items():
        if name != "doctor" and any("--config" in part.opts for part in command.params):
            check(name, CliRunner().invoke(app, [*words_of(name, command), "--config", str(file)]))


def test_a_ledger_that_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "spillway.yaml"
    file.write_text(f"ledger: {{url: 'sqlite:///{tmp_path / 'missing.db'}'}}\n")
    for name, command in with_json().items():
        if name not in NEVER_FAILS | {"check"} and any("--config" in part.opts for part in command.params):
            check(name, CliRunner().invoke(app, [*words_of(name, command), "--config", str(file)]))
            (tmp_path / "missing.db").unlink(missing_ok=True)


def test_a_router_that_does_not_answer(tmp_path: Path) -> None:
    for name, command in with_json().items():
        if any("--url" in part.opts for part in command.params):
            result = CliRunner().invoke(app, [*words_of(name, command), "--url", NOBODY])
            check(name, result, "" if name == "extract" else "nothing answers at")
    document = tmp_path / "a.txt"
    document.write_text("AL: 23.4 mm")
    check("extract", CliRunner().invoke(app, ["extract", str(document), "--url", NOBODY, "--json"]), "unreachable")


@pytest.mark.parametrize(
    "words", [("plan", "--table"), ("plan", "--settings", "local"), ("report", "--csv"), ("ledger", "unknown", "--csv")]
)
def test_two_forms_at_once(words: tuple[str, ...]) -> None:
    check(" ".join(words), CliRunner().invoke(app, [*words, "--json"]), "--json")


def test_models_that_are_not_there() -> None:
    for words in (("plan", "--model", "./missing"), ("convert", "missing.gguf"), ("push", "missing", "s3://b/p")):
        result = CliRunner().invoke(app, [*words, "--json"])
        check(words[0], result, "missing")
        assert set(json.loads(result.stdout)["refused"]) == {"reason", "fix"}
