"""`spillway prices`, and how `check` reports prices, with real rows of LiteLLM's file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from spillway_router.cli import app
from spillway_router.commands.check_litellm import convert
from spillway_router.config import load
from spillway_router.core.money.tariff import nano_from_usd
from spillway_router.testing.processes import ROOT

EXCERPT = ROOT / "tests" / "prices" / "data" / "litellm_excerpt.json"


def spillway(*words: str | Path, env: dict[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env=env)


def answer(*words: str | Path, env: dict[str, str | None] | None = None) -> Any:
    done = spillway(*words, "--json", env=env)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a configuration whose ledger, and therefore its price list, is in a folder of the test."""
    path = tmp_path / "spillway.yaml"
    path.write_text(
        f"ledger: {{url: 'sqlite:///{tmp_path / 'data' / 'ledger.db'}'}}\n"
        "backends:\n"
        "  - {name: groq, provider: groq, model: openai/gpt-oss-20b, api_key: k}\n"
        "  - {name: kept, provider: fireworks, model: m, api_key: k,\n"
        "     price: {input_per_million: '1', output_per_million: '1', checked_on: 2026-01-31}}\n"
        "  - {name: gone, provider: groq, model: llama-guard-3-8b, api_key: k}\n"
        "  - {name: ended, provider: generic, base_url: 'http://h/v1', model: m, api_key: k,\n"
        "     price: {input_per_million: '1', output_per_million: '1', valid_until: 2026-02-28}}\n"
    )
    return path


def changed(source: Path, *edits: tuple[str, str]) -> Path:
    text = EXCERPT.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    source.write_text(text)
    return source


def test_the_list_of_a_day(file: Path) -> None:
    shown = spillway("prices", "list", "-c", file, "--provider", "anthropic", "--on", "2026-11-21").stdout
    lines = shown.splitlines()
    assert lines[0] == "Prices on 2026-11-21 in USD per million tokens"
    assert lines[1].split() == ["input", "output", "cached", "write", "write", "1h", "reasoning"]
    at = next(i for i, line in enumerate(lines) if line.startswith("anthropic  claude-haiku-5-5 "))
    assert lines[at].split()[2:8] == ["0.1", "0.5", "0.01", "0.125", "0.2", "-"]
    assert lines[at].endswith("from 2026-11-20, checked on 2026-11-29")  # a day to come, seen from the day of the list
    assert lines[at + 1].split() == ["prompts", "above", "100,000", "tokens", "0.5", "2.5", "0.05", "0.625", "1", "-"]
    assert lines[at + 2].split()[:3] == ["batch,", "any", "prompt"]
    assert "MIT License" in lines[-1]
    later = spillway("prices", "list", "-c", file, "--provider", "anthropic", "--on", "2027-11-20").stdout
    assert "(stale)" in later
    assert "prices are stale: checked more than 90 days ago" in later
    assert "withdrew the model on" in later
    (row,) = [r for r in answer("prices", "list", "-c", file, "--on", "2026-11-21") if r["model"] == "claude-haiku-5-5"]
    assert (row["unit"], row["cache_write_long"], row["usable"]) == ("USD per million tokens", "0.2", True)
    assert row["steps"][0]["above_tokens"] == 100_000
    wrong = spillway("prices", "list", "-c", file, "--on", "yesterday")
    assert wrong.exit_code == 1
    assert "write it as 2026-11-20" in wrong.output


def test_diff_names_each_price_with_unit_and_percent(file: Path, tmp_path: Path) -> None:
    old = '"input_cost_per_token": 7.5e-08,\n    "litellm_provider": "groq"'
    source = changed(
        tmp_path / "new.json", (old, old.replace("7.5e-08", "9e-08")), ("groq/qwen/qwen3.8-27b", "groq/qwen/qwen4")
    )
    rows = answer("prices", "diff", source, "-c", file, "--provider", "groq", "--on", "2026-11-21")["changes"]
    changes = {(c["kind"], c["model"], c["price"]): (c["old"], c["new"], c["unit"], c["percent"]) for c in rows}
    unit = "USD per million tokens"
    assert changes["changed", "openai/gpt-oss-20b", "input"] == ("0.075", "0.09", unit, "+20.0")
    assert changes["added", "qwen/qwen4", "output"] == (None, "4", unit, None)
    assert changes["removed", "qwen/qwen3.8-27b", "input"] == ("0.8", None, unit, None)
    shown = spillway("prices", "diff", source, "-c", file).stdout
    assert "input: 0.075 -> 0.09 USD per million tokens  +20.0 %" in shown
    assert "left out together/togethercomputer/CodeLlama-34b-Instruct: no price per token" in shown


def test_import_shows_first_and_then_keeps_history(file: Path, tmp_path: Path) -> None:
    own = tmp_path / "data" / "prices.json"
    source = changed(tmp_path / "new.json", ('"output_cost_per_token": 3e-07', '"output_cost_per_token": 6e-06'))
    words = ("prices", "import", source, "-c", file, "--as-of", "2026-12-01")
    dry = spillway(*words, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "output: 0.3 -> 6 USD per million tokens  +1900.0 %  <- more than tenfold: is the unit right?" in dry.stdout
    assert "nothing written" in dry.stdout
    assert not own.exists()
    done = answer(*words)
    assert (done["file"], done["written"], done["models"]) == (str(own), True, 12)
    assert "MIT License" in json.loads(own.read_text())["licence"]
    assert os.listdir(own.parent) == ["prices.json"]

    def output_on(day: str) -> str:
        rows = answer("prices", "list", "-c", file, "--provider", "groq", "--on", day)
        return next(str(r["output"]) for r in rows if r["model"] == "openai/gpt-oss-20b")

    assert [output_on(day) for day in ("2026-11-25", "2026-12-01", "2027-01-01")] == ["0.3", "6", "6"]
    before = own.read_bytes()
    clash = spillway("prices", "import", EXCERPT, "-c", file, "--as-of", "2026-12-01")
    assert clash.exit_code == 1
    assert "groq/openai/gpt-oss-20b from 2026-12-01" in clash.output
    assert "--replace" in clash.output
    assert own.read_bytes() == before
    assert spillway("prices", "import", EXCERPT, "-c", file, "--as-of", "2026-12-01", "--replace").exit_code == 0
    assert output_on("2027-01-01") == "0.3"
    assert spillway("prices", "import", source, "-c", file, "--as-of", "2026-12-24").exit_code == 0
    assert [output_on(day) for day in ("2026-12-23", "2026-12-24")] == ["0.3", "6"]


def test_an_imported_price_prices_a_backend(file: Path, tmp_path: Path) -> None:
    source = tmp_path / "own.json"
    source.write_text(
        '{"providers": {"openrouter": {"some/model": {"prices": ['
        '{"from": "2026-01-01", "input": 0.25, "output": "2"}]}}}}'
    )
    file.write_text(file.read_text() + "  - {name: router, provider: openrouter, model: some/model, api_key: k}\n")
    missing = spillway("check", "-c", file)
    assert missing.exit_code == 1
    assert "backends.router: has no known price for 'some/model'" in missing.output
    assert "spillway prices update FILE" in missing.output
    assert spillway("prices", "import", source, "-c", file).exit_code == 0
    assembly = _assembly_of(file)
    tariff = assembly.targets["router"].backend.tariff
    assert tariff is not None
    assert (str(tariff.input_per_million), tariff.ref.partition("#")[0]) == ("0.25", "import@2026-01-01")


def _assembly_of(file: Path) -> Any:
    from datetime import date

    from spillway_router.config.assemble import Assembly, assemble

    loaded = load.read(str(file), {})
    assembly = assemble(loaded.settings, loaded.environment, date(2026, 11, 21))
    assert isinstance(assembly, Assembly), assembly
    return assembly


def test_withdrawn_and_ended_models_are_disabled_and_stale_prices_give_a_warning(file: Path) -> None:
    assembly = _assembly_of(file)
    assert set(assembly.targets) == {"groq", "kept"}
    disabled = {problem.where: problem.problem for problem in assembly.disabled}
    assert "withdrew the model on 2025-06-06" in disabled["backends.gone"]
    assert "ended on 2026-02-28" in disabled["backends.ended"]
    (warning,) = assembly.warnings
    assert warning.where == "backends.kept"
    assert "checked 294 days ago (2026-01-31)" in warning.problem


def test_check_warns_of_a_stale_price_without_an_error(file: Path, tmp_path: Path) -> None:
    stale = (
        "  - {name: old, provider: generic, base_url: 'http://127.0.0.1:9/v1', model: m, api_key: k,\n"
        "     price: {input_per_million: '1', output_per_million: '1', checked_on: 2020-01-31}}\n"
    )
    ledger = f"ledger: {{url: 'sqlite:///{tmp_path / 'ledger.db'}'}}\n"
    file.write_text(f"{ledger}prices: {{stale_after_days: 30}}\nbackends:\n{stale}")
    shown = spillway("check", "-c", file, "--offline")
    assert shown.exit_code == 0, shown.output
    assert f"  warning      {file}:4: backends.old: its price was checked" in shown.stdout
    assert "prices.stale_after_days = 30" in shown.stdout
    (warning,) = answer("check", "-c", file, "--offline")["warnings"]
    assert (warning["where"], warning["line"]) == ("backends.old", 4)


def test_a_configured_price_takes_precedence_over_the_list(file: Path) -> None:
    file.write_text(
        file.read_text().replace(
            "model: llama-guard-3-8b, api_key: k}",
            "model: llama-guard-3-8b, api_key: k, price: {input_per_million: '1', output_per_million: '1'}}",
        )
    )
    assembly = _assembly_of(file)
    assert "gone" in assembly.targets
    assert any("2025-06-06" in w.problem and w.where == "backends.gone" for w in assembly.warnings)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not valid JSON"),
        ('{"gpt-4o": {}}', "no price found"),
        ('{"providers": {"groq": {"m": {"prices": []}}}}', "groq/m: it has no prices"),
        (
            '{"providers": {"groq": {"m": {"prices": [{"from": "2026-11-20", "input": "1"}]}}}}',
            "an unknown price is never 0",
        ),
    ],
)
def test_a_file_that_is_no_price_list_is_rejected(content: str, says: str, file: Path, tmp_path: Path) -> None:
    source = tmp_path / "bad.json"
    source.write_text(content)
    for command in ("diff", "import"):
        done = spillway("prices", command, source, "-c", file)
        assert done.exit_code == 1
        assert str(source) in done.output
        assert says in done.output
    assert not (tmp_path / "data").exists()
    assert "can't be read" in spillway("prices", "diff", tmp_path / "nowhere.json", "-c", file).output


def test_a_damaged_own_list_is_an_error_not_a_missing_price(file: Path, tmp_path: Path) -> None:
    own = tmp_path / "data" / "prices.json"
    own.parent.mkdir()
    own.write_text("[]")
    done = spillway("check", "-c", file)
    assert done.exit_code == 1
    assert "prices.file" in done.output
    assert str(own) in done.output


def test_steps_of_a_configuration_reach_the_tariff() -> None:
    text = """
backends:
  - {name: c, provider: generic, base_url: "http://h/v1", model: m, api_key: k, price: {
     input_per_million: "3", output_per_million: "15", cache_write_long_per_million: "6", per_second: "0.0001",
     steps: [{above_tokens: 200000, input_per_million: "6", output_per_million: "22.5"}], valid_from: 2026-11-20}}
"""
    part = load.parse(text, {}).backends[0].price
    assert part is not None
    tariff = part.tariff()
    assert (tariff.ref.partition("#")[0], tariff.steps[0].above_tokens) == ("config@2026-11-20", 200_000)
    assert tariff.rates.all()["cache_write_long"] * 10**9 == nano_from_usd("6")
    with pytest.raises(load.ConfigError, match=r"line 4.*price\.inputs_per_million: unknown setting"):
        load.parse(text.replace("     input_per", "     inputs_per"), {})


def test_prices_of_a_litellm_configuration_are_carried_over() -> None:
    converted = convert(
        """
model_list:
  - model_name: big
    litellm_params: {model: openai/big, api_base: "https://h/v1", api_key: os.environ/BIG,
      input_cost_per_token: 3e-6, output_cost_per_token: 0.000015, cache_creation_input_token_cost: 3.75e-06,
      input_cost_per_token_above_200k_tokens: 6e-06, output_cost_per_token_above_200k_tokens: 2.25e-05}
  - model_name: timed
    litellm_params: {model: openai/timed, api_base: "https://h/v1", api_key: os.environ/BIG,
      input_cost_per_second: 0.0001}
"""
    )
    big, timed = (backend["price"] for backend in converted.settings["backends"])
    assert big == {
        "input_per_million": "3",
        "output_per_million": "15",
        "cache_write_per_million": "3.75",
        "steps": [
            {
                "above_tokens": 200000,
                "input_per_million": "6",
                "output_per_million": "22.5",
                "cache_write_per_million": "6",
            }
        ],
    }
    assert timed == {"input_per_million": "0", "output_per_million": "0", "per_second": "0.0001"}
    assert load.parse(converted.text, {"BIG": "k"}).backends[0].price is not None


# an update


def newer(tmp_path: Path) -> Path:
    """LiteLLM's file with another price, another day of withdrawal, and without a model that was listed."""
    rows = json.loads(EXCERPT.read_text())
    rows["groq/openai/gpt-oss-20b"]["output_cost_per_token"] = 4e-07
    rows["claude-haiku-5-5"] |= {"deprecation_date": "2099-01-31", "successor_model": "claude-haiku-6"}
    del rows["groq/qwen/qwen3.8-27b"]
    path = tmp_path / "newer.json"
    path.write_text(json.dumps(rows))
    return path


def test_an_update_shows_the_difference_before_anything_is_written(file: Path, tmp_path: Path) -> None:
    own, source = tmp_path / "data" / "prices.json", newer(tmp_path)
    shown = spillway("prices", "update", source, "-c", file)
    assert shown.exit_code == 1
    assert "add --yes" in shown.output
    assert "Would change" in shown.output
    assert "output: 0.3 -> 0.4 USD per million tokens  +33.3 %" in shown.output
    assert "withdrawn anthropic  claude-haiku-5-5 on 2099-01-31; change to claude-haiku-6" in shown.output
    assert "not listed any more at groq: " in shown.output
    not_listed = {"provider": "groq", "model": "qwen/qwen3.8-27b", "retired_on": None, "successor": ""}
    assert not_listed in answer("prices", "update", source, "-c", file)["withdrawn"]
    assert not own.exists()
    values = answer("prices", "update", source, "-c", file)
    assert (values["written"], own.exists()) == (False, False)
    done = spillway("prices", "update", source, "-c", file, "--yes")
    assert done.exit_code == 0, done.output
    (row,) = [
        r for r in answer("prices", "list", "-c", file, "--provider", "groq") if r["model"] == "openai/gpt-oss-20b"
    ]
    assert (row["output"], row["source"], row["origin"], row["age_days"]) == ("0.4", "import", "newer.json", 0)
    again = spillway("prices", "update", source, "-c", file)
    assert again.exit_code == 0, again.output
    assert "no price differs" in again.output


def test_an_update_of_one_provider_leaves_the_others(file: Path, tmp_path: Path) -> None:
    values = answer("prices", "update", newer(tmp_path), "-c", file, "--provider", "groq", "--yes")
    assert {change["provider"] for change in values["changes"]} == {"groq"}
    wrong = spillway("prices", "update", newer(tmp_path), "-c", file, "--provider", "nobody")
    assert wrong.exit_code == 1
    assert "no prices of nobody; it has groq" in wrong.output


def test_prices_are_fetched_over_https_only(file: Path) -> None:
    done = spillway("prices", "update", "http://127.0.0.1:1/prices.json", "-c", file)
    assert done.exit_code == 1
    assert "over https" in done.output


def test_a_price_of_a_day_to_come_was_not_checked_then(file: Path, tmp_path: Path) -> None:
    spillway("prices", "update", newer(tmp_path), "-c", file, "--yes", "--as-of", "2098-12-01")
    listed = spillway("prices", "list", "-c", file, "--provider", "groq").stdout
    assert "checked -" not in listed
    (row,) = [
        r
        for r in answer("prices", "list", "-c", file, "--provider", "groq", "--on", "2098-12-02")
        if r["model"] == "openai/gpt-oss-20b"
    ]
    assert row["output"] == "0.4"


def test_check_names_the_successor_of_a_model_that_is_withdrawn_soon(file: Path) -> None:
    from datetime import UTC, datetime, timedelta

    soon = (datetime.now(UTC).date() + timedelta(9)).isoformat()
    list_file = file.parent / "data" / "prices.json"
    list_file.parent.mkdir()
    price = {"from": "2026-01-01", "input": "1", "output": "1"}
    row = {"prices": [price], "retired_on": soon, "successor": "a/newer-model"}
    list_file.write_text(json.dumps({"providers": {"groq": {"openai/gpt-oss-20b": row}}}))
    shown = spillway("check", "-c", file, "--offline").output
    assert f"backends.groq: the model is withdrawn on {soon}, in 9 days; change to a/newer-model by then" in shown
