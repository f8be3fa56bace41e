"""`spillway deploy --json` for real: one JSON value on standard output, whatever happens once the machine runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.runpod_server import KEY, Account, runpod_server
from typer.testing import CliRunner, Result

from spillway_router.cli import app
from spillway_router.deploy import readiness
from spillway_router.deploy.readiness import Readiness

pytestmark = pytest.mark.usefixtures("empty_folder")
ORDER = ("deploy", "runpod", "--gpu", "a100-80", "--price", "1.39", "--model", "demo", "--image", "r/i:1", "--yes")


def deploy(account: Account, *more: str) -> Result:
    env = {"RUNPOD_API_KEY": KEY, "RUNPOD_API_URL": account.url}
    return CliRunner().invoke(app, [*ORDER, *more, "--json"], env=env)


def waits(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Readiness]) -> None:
    monkeypatch.setattr(readiness, "await_ready", lambda _locate, _within_s: act())


def test_a_machine_that_gets_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    waits(monkeypatch, lambda: Readiness(True, "https://pod.example", 30, ""))
    with runpod_server() as account:
        done = deploy(account)
        (pod_id,) = account.pods
    assert done.exit_code == 0, done.output
    said: dict[str, Any] = json.loads(done.stdout)
    assert (said["target"], said["handle"], said["ready"], said["url"]) == (
        "runpod",
        pod_id,
        True,
        "https://pod.example/v1",
    )
    assert said["key"].startswith("sk-spill-")
    assert said["rental"].startswith("rent_")
    assert (said["per_hour_usd"], said["per_month_usd"]) == ("1.39", "1014.70")
    assert "price   $1.39 per hour" in done.stderr
    assert said["key"] not in done.stderr


def _interrupted() -> Readiness:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("act", "ready"), [(lambda: Readiness(False, "https://pod.example", 1200, "it answers 503"), False),
                       (_interrupted, None)],
)  # fmt: skip
def test_the_key_of_a_machine_that_is_not_ready_is_printed_all_the_same(
    act: Callable[[], Readiness], ready: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits(monkeypatch, act)
    with runpod_server() as account:
        done = deploy(account)
    assert done.exit_code != 0
    said = json.loads(done.stdout)
    assert said["ready"] is ready
    assert said["key"].startswith("sk-spill-")


def test_the_key_of_a_machine_that_can_not_be_booked_is_printed_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "spillway.yaml").write_text(f"ledger: {{url: 'sqlite:///{tmp_path / 'ledger'}'}}\n")
    with runpod_server() as account:
        done = deploy(account, "--wait", "0")
        as_text = CliRunner().invoke(
            app, [*ORDER, "--wait", "0"], env={"RUNPOD_API_KEY": KEY, "RUNPOD_API_URL": account.url}
        )
    assert done.exit_code == as_text.exit_code == 1
    assert "IS RUNNING AND COSTS MONEY" in done.stderr
    said = json.loads(done.stdout)
    assert (said["rental"], said["ready"], said["url"]) == (None, None, None)
    assert said["key"].startswith("sk-spill-")
    assert "key   sk-spill-" in as_text.stdout


def test_a_released_machine() -> None:
    with runpod_server() as account:
        created = json.loads(deploy(account, "--wait", "0").stdout)
        env = {"RUNPOD_API_KEY": KEY, "RUNPOD_API_URL": account.url}
        done = CliRunner().invoke(app, ["deploy", "runpod", "--destroy", "--yes", "--json"], env=env)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["released"] == created["handle"]
    assert f"stopped {created['rental']}" in done.stderr
