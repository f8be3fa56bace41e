"""`spillway fleet`: a ledger gives the number of GPUs with reasons, and `apply` sets it by a command of the user's."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml
from evidence.deploy_commands import ROOT
from jsonschema import Draft202012Validator
from tests.proxy.answers import STRONG
from typer.testing import CliRunner, Result

from spillway_router.cli import app
from spillway_router.commands.fleet_keeper import FleetKeeper
from spillway_router.commands.fleet_targets import FleetTargetError, order_for, set_number
from spillway_router.config.load import ConfigError, parse, read
from spillway_router.testing import FakeEngine, FaultUpstream
from spillway_router.testing.harness import cloud, routing, serving, settings
from spillway_router.testing.threaded_server import threaded_server

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


def test_what_the_program_prints_is_not_among_the_json(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [sys.executable, "-c", "print('scaled')", "{gpus}"]
    decided = printed("fleet", "apply", "-c", with_fleet(file, {"max": 2, "command": words}), "--rented", "2")
    assert set(decided) == {"gpus", "reasons"}
    assert capfd.readouterr() == ("", "scaled\n")


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


def test_sky_gets_a_copy_of_the_service_with_the_number(file: Path, tmp_path: Path) -> None:
    """SkyPilot keeps the replicas that run if only the part `service` changed."""
    written = {"name": "pool", "resources": {"accelerators": "L40S:1"}, "service": {"replicas": 1}, "run": "x"}
    (tmp_path / "pool.sky.yaml").write_text(yaml.safe_dump(written))
    with_fleet(
        file, {"min": 3, "max": 3, "target": "sky", "service": "pool", "service_file": str(tmp_path / "pool.sky.yaml")}
    )
    fleet = read(str(file)).settings.fleet
    assert fleet is not None
    order = order_for(fleet, 3)
    assert order.words == ("sky", "serve", "update", "--yes", "pool", "{file}")
    assert yaml.safe_load(order.file) == {**written, "service": {"replicas": 3}}
    kept = tmp_path / "kept.yaml"
    copy = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"
    set_number(replace(order, words=(sys.executable, "-c", copy, "{file}", str(kept))), {"PATH": "/usr/bin"})
    assert yaml.safe_load(kept.read_text())["service"] == {"replicas": 3}


def test_ray_is_scaled_by_its_api(file: Path) -> None:
    """The path and the body are those of Ray 2.60.0, which took them on a cluster of two nodes (docs/deploy/ray.md)."""
    asked: list[tuple[str, object]] = []

    class Dashboard(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, body))
            self.send_response(200 if body["target_num_replicas"] == 2 else 412)
            self.end_headers()
            self.wfile.write(b'{"error": "external_scaler_enabled is not set"}')

        def log_message(self, *words: object) -> None: ...

    with threaded_server(Dashboard) as url:
        with_fleet(file, {"min": 2, "max": 3, "target": "ray", "application": "engines", "ray_api": url})
        spillway("fleet", "apply", "-c", file)
        assert asked == [("/api/v1/applications/engines/deployments/Engine/scale", {"target_num_replicas": 2})]
        schema = json.loads((ROOT / "deploy/ray/schema.json").read_text())["ScaleDeploymentRequest"]
        Draft202012Validator(schema).validate(asked[0][1])
        fleet = read(str(file)).settings.fleet
        assert fleet is not None
        with pytest.raises(FleetTargetError, match=r"412: .*external_scaler_enabled"):
            set_number(order_for(fleet, 3), {})


@pytest.mark.parametrize(
    ("fleet", "missing"),
    [
        ({"target": "sky"}, "Set fleet.service and fleet.service_file"),
        ({"target": "sky", "service": "s", "service_file": "/none.yaml"}, "is no SkyPilot service"),
        ({"target": "ray"}, "Set fleet.application"),
        ({"target": "ray", "application": "a", "ray_api": "http://127.0.0.1:9"}, "Check fleet.ray_api"),
        ({"target": "kubernetes"}, "Set fleet.command, or fleet.deployment"),
    ],
)
def test_a_target_that_lacks_something_says_what(file: Path, fleet: dict[str, Any], missing: str) -> None:
    with_fleet(file, {"min": 2, "max": 2, **fleet})
    assert missing in spillway("fleet", "apply", "-c", file, code=1).stderr


def test_the_router_sets_the_number_itself_and_rentals_follow(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpus"
    command = [sys.executable, "-c", WRITE, str(out), "{gpus}"]
    plain = file.read_text()

    def configured(**fleet: Any) -> None:
        file.write_text(plain)
        with_fleet(file, {"max": 3, "every_s": 300, "command": command, "rentals": True, **fleet})

    configured(min=2)
    keeper = FleetKeeper(read(str(file)))
    assert keeper.look() == 2
    assert (out.read_text(), running(file)) == ("2", ["fleet-1", "fleet-2"])
    out.unlink()
    assert keeper.look() is None, "it is set already"
    assert not out.exists()
    configured(min=3)
    assert (keeper.look(), running(file)) == (3, ["fleet-1", "fleet-2", "fleet-3"])
    configured(min=0)
    assert (keeper.look(), running(file)) == (0, [])


def test_both_kill_switches_hold_from_the_next_turn_on(file: Path, tmp_path: Path) -> None:
    out, switch = tmp_path / "gpus", tmp_path / "stop"
    command = [sys.executable, "-c", WRITE, str(out), "{gpus}"]
    plain = file.read_text()
    fleet = {"min": 2, "max": 3, "every_s": 300, "command": command, "stop_file": str(switch)}
    with_fleet(file, {**fleet, "stop": True})
    keeper = FleetKeeper(read(str(file)))
    assert keeper.look() is None
    file.write_text(plain)
    with_fleet(file, fleet)
    switch.touch()
    assert keeper.look() is None
    assert not out.exists()
    file.write_text(f"{plain}fleet: {{max: no number}}\n")
    assert keeper.look() is None, "a configuration with errors changes nothing"
    switch.unlink()
    file.write_text(plain)
    with_fleet(file, fleet)
    assert keeper.look() == 2


def test_a_number_that_could_not_be_set_is_tried_again(file: Path, tmp_path: Path) -> None:
    gate, out = tmp_path / "gate", tmp_path / "gpus"
    script = "import pathlib, sys; pathlib.Path(sys.argv[1]).read_text(); open(sys.argv[2], 'w').write(sys.argv[3])"
    command = [sys.executable, "-c", script, str(gate), str(out), "{gpus}"]
    with_fleet(file, {"min": 1, "max": 1, "every_s": 300, "command": command})
    keeper = FleetKeeper(read(str(file)))
    assert keeper.look() is None
    gate.touch()
    assert keeper.look() == 1
    assert out.read_text() == "1"


def running(file: Path) -> list[str]:
    """The machines of the fleet that are on the books and run."""
    rows = printed("rentals", "list", "-c", file)
    return sorted(row["machine"] for row in rows if row["source"] == "fleet" and row["stopped"] is None)


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
