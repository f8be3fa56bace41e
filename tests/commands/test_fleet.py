"""`spillway fleet`: a ledger gives the number of GPUs with reasons, and `apply` sets it by a command of the user's."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.proxy.answers import STRONG
from typer.testing import CliRunner, Result

from spillway_router.cli import app
from spillway_router.config.load import ConfigError, parse
from spillway_router.testing import FakeEngine, FaultUpstream
from spillway_router.testing.harness import cloud, routing, serving, settings

pytestmark = pytest.mark.usefixtures("empty_folder")

CHAIN = "aliases: {auto: {chain: [local, cloud]}}\ngpu: {price_per_hour: '1.39'}\n"
WRITE = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"


def spillway(*words: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def printed(*words: str | Path) -> Any:
    return json.loads(spillway(*words, "--json").stdout)


def with_fleet(file: Path, fleet: dict[str, Any]) -> Path:
    """Put a fleet into the configuration; JSON is YAML."""
    file.write_text(f"{file.read_text()}fleet: {json.dumps(fleet)}\n")
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration whose ledger has five local answers."""

    async def serve() -> None:
        async with serving(FakeEngine(["a", "b"])) as url, FaultUpstream(STRONG) as strong:
            local = f"{{name: local, provider: vllm, local: true, model: m, base_url: '{url}/v1'}}"
            async with routing(settings(local, cloud(strong), more=CHAIN), tmp_path) as router:
                for _ in range(5):
                    assert (await router.chat()).status_code == 200

    asyncio.run(serve())
    return tmp_path / "spillway.yaml"


def test_explain_names_a_reason_for_every_gpu(file: Path) -> None:
    with_fleet(file, {"max": 2})
    said = printed("fleet", "explain", "-c", file, "--since", "2h")
    assert said["gpus"] == 0
    assert [(reason["gpu"], reason["reason"]) for reason in said["reasons"]] == [(1, "stays-away"), (2, "stays-away")]
    assert "GPU 1: the overflow without it has not cost enough" in spillway("fleet", "explain", "-c", file).stdout


def test_the_plan_has_a_row_for_every_number_of_gpus(file: Path) -> None:
    with_fleet(file, {"max": 3, "price_per_hour": "2"})
    plan = printed("fleet", "plan", "-c", file)
    assert [row["rent_usd"] for row in plan["fixed"]] == [0.0, 48.0, 96.0, 144.0]
    assert plan["overflow_backend"] == "cloud"
    assert plan["best_usd"] <= plan["fixed"][0]["overflow_usd"] + plan["fixed"][0]["rent_usd"]
    assert "best possible" in spillway("fleet", "plan", "-c", file).stdout


def test_apply_runs_the_command_with_the_number_and_a_dry_run_does_not(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpus"
    with_fleet(file, {"min": 2, "max": 3, "command": [sys.executable, "-c", WRITE, str(out), "{gpus}"]})
    dry = spillway("fleet", "apply", "-c", file, "--dry-run")
    assert f"would run: {sys.executable}" in dry.stderr
    assert not out.exists()
    spillway("fleet", "apply", "-c", file)
    assert out.read_text() == "2"
    out.unlink()
    assert "nothing to do" in spillway("fleet", "apply", "-c", file, "--rented", "2").stderr
    assert not out.exists()


def test_the_kill_switch_runs_nothing(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpus"
    command = [sys.executable, "-c", WRITE, str(out), "{gpus}"]
    with_fleet(file, {"min": 2, "max": 3, "stop": True, "command": command})
    assert "kill switch" in spillway("fleet", "apply", "-c", file).stdout
    assert not out.exists()


def test_kubernetes_is_scaled_by_kubectl(file: Path) -> None:
    with_fleet(file, {"min": 3, "max": 3, "target": "kubernetes", "deployment": "engines", "namespace": "llm"})
    dry = spillway("fleet", "apply", "-c", file, "--dry-run")
    assert "would run: kubectl scale deployment/engines --replicas=3 --namespace llm" in dry.stderr


def test_what_is_missing_is_named(file: Path) -> None:
    assert "Add, for example, fleet: {max: 4}" in spillway("fleet", "explain", "-c", file, code=1).stderr
    with_fleet(file, {"max": 1})
    assert "Set fleet.command" in spillway("fleet", "apply", "-c", file, code=1).stderr
    file.write_text(file.read_text().replace("[local, cloud]", "[local]"))
    assert "has no cloud" in spillway("fleet", "plan", "-c", file, code=1).stderr


def test_a_command_that_fails_is_reported(file: Path) -> None:
    with_fleet(file, {"min": 2, "max": 2, "command": [sys.executable, "-c", "raise SystemExit(3)", "{gpus}"]})
    assert "ended with status 3" in spillway("fleet", "apply", "-c", file, code=1).stderr
    with_fleet_missing = file.read_text().replace(sys.executable, "/no/such/program")
    file.write_text(with_fleet_missing)
    assert "can't be run" in spillway("fleet", "apply", "-c", file, code=1).stderr


@pytest.mark.parametrize(
    ("fleet", "problem"),
    [
        ("{max: 1, min: 2}", "max must be at least min"),
        ("{max: 1, command: [scale]}", "{gpus}"),
        ("{max: 1, trust: 0.5}", "trust"),
        ("{min: 1}", "max"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(fleet: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(f"fleet: {fleet}\n", {})
    assert problem in "\n".join(map(str, refused.value.problems))
