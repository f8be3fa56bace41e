"""`init`, `config show`, `config diff`, `logs`, and files that a user may not read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from spillway_router.cli import app
from spillway_router.config.load import parse

NOBODY = 65534


def spillway(*words: str | Path, answers: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], input=answers)


def test_init_writes_a_configuration_that_check_accepts(tmp_path: Path) -> None:
    file = tmp_path / "spillway.yaml"
    words = ("--gpu-price", "$1.39", "--cloud", "groq", "--keyword", "pass word", "--keyword", "no", "--budget", "50")
    done = spillway("init", "--output", file, *words)
    assert done.exit_code == 0, done.output
    settings = parse(file.read_text(), {})
    assert f"{settings.gpu.price_per_hour}" == "1.39"
    assert [backend.name for backend in settings.backends] == ["local", "groq"]
    assert settings.privacy.keywords == ("pass word", "no")
    assert f"{settings.budgets[0].limit_usd}" == "50"
    assert file.read_text().count("# ") > 6
    assert spillway("check", "--offline", "-c", file).exit_code == 0
    again = spillway("init", "--output", file, *words)
    assert (again.exit_code, "--force" in again.output) == (1, True)


@pytest.mark.parametrize(
    ("words", "fix"),
    [(("--gpu-price", "1,39"), "12.50"), (("--cloud", "grok"), "groq"), (("--budget", "-1"), "amount")],
)
def test_init_refuses_what_it_can_not_write(words: tuple[str, ...], fix: str, tmp_path: Path) -> None:
    file = tmp_path / "spillway.yaml"
    done = spillway("init", "--output", file, *words)
    assert (done.exit_code, fix in done.output, file.exists()) == (1, True, False)


SECRETIVE = """
listen: 127.0.0.1:8080
backends:
  - {name: mine, provider: generic, base_url: "http://127.0.0.1:9/v1", api_key: sk-secret-1, model: m,
     headers: {x-token: secret-2}, price: {input_per_million: "1", output_per_million: "1"}}
alerts: {webhook_url: "https://hooks.example.com/secret-3", secret: secret-4-long}
ledger: {url: "postgresql://u:secret-5@db/x"}
"""


def test_config_show_hides_every_secret(tmp_path: Path) -> None:
    file = tmp_path / "spillway.yaml"
    file.write_text(SECRETIVE)
    for words in ((), ("--all",), ("--json",)):
        shown = spillway("config", "show", "-c", file, *words).stdout
        assert "secret-" not in shown
        values = yaml.safe_load(shown)
        assert values["backends"][0]["api_key"] == "***"
        assert values["ledger"]["url"] == "postgresql://u:***@db/x"
        assert ("slo" in values) is (words == ("--all",))


def test_config_show_leaves_out_what_nobody_set(tmp_path: Path) -> None:
    file = tmp_path / "spillway.yaml"
    file.write_text("listen: 127.0.0.1:8099\n")
    assert list(yaml.safe_load(spillway("config", "show", "-c", str(file)).stdout)) == ["listen", "backends", "ledger"]


def test_a_file_that_is_missing_is_named_once_with_what_writes_it(tmp_path: Path) -> None:
    file = str(tmp_path / "gone.yaml")
    message = spillway("check", "-c", file).stderr
    assert (message.count(file), "spillway init --output" in message) == (1, True)


def test_config_diff_names_what_changes_and_fails_if_something_does(tmp_path: Path) -> None:
    present, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    present.write_text(SECRETIVE)
    other.write_text(SECRETIVE + "slo: {ttft_ms: 1500}\n")
    changed = spillway("config", "diff", other, "-c", present)
    assert changed.exit_code == 1
    assert "-  ttft_ms: 2000" in changed.stdout
    assert "+  ttft_ms: 1500.0" in changed.stdout
    assert "secret-" not in changed.stdout
    same = spillway("config", "diff", present, "-c", present)
    assert (same.exit_code, same.stdout) == (0, "no setting differs\n")


def test_logs_shows_the_last_lines_and_says_where_the_routers_are(tmp_path: Path) -> None:
    file = tmp_path / "engine.log"
    file.write_text("one\ntwo\nthree\x1b[31m\n")
    assert spillway("logs", "--file", file, "-n", "2").stdout == "two\nthree\\x1b[31m\n"
    assert "journalctl" in spillway("logs", "router").stdout
    missing = spillway("logs", "engine", "--file", tmp_path / "none.log")
    assert (missing.exit_code, "--file" in missing.output) == (1, True)


def test_a_user_without_rights_gets_a_message_and_no_traceback() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), Path(name, "data")
        data.mkdir()
        (folder / "spillway.yaml").write_text("listen: 127.0.0.1:8080\n")
        folder.chmod(0o755)
        data.chmod(0)
        done = subprocess.run(
            [str(Path(sys.executable).with_name("spillway")), "report", "-c", str(folder / "spillway.yaml")],
            user=NOBODY if os.getuid() == 0 else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        data.chmod(0o755)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(data) in done.stderr
    assert "--url" in done.stderr


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("keys", "create"), "inference|viewer|admin"),
        (("rentals", "start"), "reserved|interruptible"),
        (("reviews", "list"), "open|accepted|corrected"),
        (("calibrate",), '"tokens": [["token", logprob, ['),
        (("calibrate",), "--output"),
        (("extract",), "--output"),
        (("convert",), "auto|w4a16|w8a16|16bit"),
    ],
)
def test_help_shows_choices_and_loses_no_bracket(words: tuple[str, ...], shown: str) -> None:
    text = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).stdout
    assert shown in text


def test_an_empty_list_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "spillway.yaml"
    file.write_text("listen: 127.0.0.1:8080\n")
    created = json.loads(spillway("keys", "create", "ann", "-c", file, "--json").stdout)
    assert "spillway rentals start" in spillway("rentals", "list", "-c", file).stderr
    assert created["id"] in spillway("keys", "list", "-c", file).stdout


@pytest.mark.parametrize("words", [("-h",), ("keys", "-h"), ("keys", "create", "-h"), ("report", "-h")])
def test_h_is_help_everywhere(words: tuple[str, ...]) -> None:
    shown = spillway(*words)
    assert shown.exit_code == 0
    assert "Usage:" in shown.stdout
