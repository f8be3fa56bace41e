"""Compose, Prometheus, Grafana, systemd: they parse, agree with each other and name only metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from evidence.deploy_commands import ROOT
from tests.deploy.tools import tool

from spillway_hardware.gpus import GPUS
from spillway_router.config.load import parse

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
SOURCES = (*(ROOT / "router/spillway_router/metrics").glob("*.py"), ROOT / "router/spillway_router/runtime/router.py")
_VARIABLE = re.compile(r"\$\{([A-Z_]+)")


def compose() -> dict[str, Any]:
    file: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))
    return file


def series() -> set[str]:
    """Names of the router's families."""
    text = "".join(file.read_text(encoding="utf-8") for file in SOURCES)
    return set(re.findall(r'"((?:spillway|gpu)_[a-z_]+)"', text))


def known_metrics() -> set[str]:
    """Names in the exposition, with the suffixes that Prometheus adds."""
    names = series()
    return names | {f"{name}_total" for name in names} | {f"{name}_bucket" for name in names}


@pytest.mark.parametrize(
    "file",
    [
        "deploy/grafana/dashboards/spillway.json",
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/recordings.yml",
        "deploy/kubernetes/spillway",
    ],
)
def test_only_metrics_that_exist_are_asked_for(file: str) -> None:
    place = ROOT / file
    text = "".join(
        p.read_text(encoding="utf-8") for p in (place.rglob("autoscaling.yaml") if place.is_dir() else [place])
    )
    asked = set(re.findall(r"\b(?:spillway|gpu)_(?:[a-z]+_)*[a-z]+\b", text)) - {"spillway_overflow_per_second"}
    assert asked
    assert asked <= known_metrics(), asked - known_metrics()


def test_every_series_is_documented_and_no_other() -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, re.M)) == series()


def test_the_dashboard_is_whole() -> None:
    board = json.loads((DEPLOY / "grafana/dashboards/spillway.json").read_text(encoding="utf-8"))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 12
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"${datasource}"}, "any Prometheus will do"
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "instance"]
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert all('instance=~"$instance"' in expression for expression in asked)
    assert any("spillway_fixed_cost_today_usd" in expression for expression in asked)
    assert 'decision="overflow"' in asked[1]
    assert "or vector(0)" in asked[1], "no overflow is 0, not nothing"
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)


def test_services_are_hardened_and_bound_to_loopback() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["profiles"], name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} {port}"
        tag = service["image"].rsplit(":", 1)[-1]
        assert tag != "latest", name
    assert "ports" not in compose()["services"]["vllm"]
    assert compose()["networks"]["inside"]["internal"] is True


@pytest.mark.parametrize(
    ("file", "service"), [("split.yaml", "router"), ("one.yaml", "spillway"), ("one.yaml", "spillway-cpu")]
)
def test_the_services_configuration_is_valid(file: str, service: str) -> None:
    variables = compose()["services"][service]["environment"]
    given = {name: str(value) for name, value in variables.items() if not str(value).startswith("${")}
    defaults = {
        "SPILLWAY_MODEL": "m/m",
        "SPILLWAY_GPU": "l4",
        "SPILLWAY_GPU_PRICE_PER_HOUR": "0.8",
        "SPILLWAY_GPUS": "2",
    }
    more = {"SPILLWAY_LEDGER_URL": "sqlite:////data/spillway.db", "GROQ_API_KEY": "k", "VLLM_API_KEY": "k"}
    text = (COMPOSE / file).read_text(encoding="utf-8")
    assert set(_VARIABLE.findall(text)) <= set(variables)
    settings = parse(text, {**defaults, **more, **given})
    assert settings.listen == "0.0.0.0:8080"
    assert [b.name for b in settings.backends] == ["local", "groq"]
    assert settings.gpu.count == 2, "what GPUS gives the engine is what the books bill"


def test_every_variable_of_compose_is_in_the_example() -> None:
    example = (COMPOSE / "env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^([A-Z_]+)=", example, re.M))
    images = {"SPILLWAY_ROUTER_IMAGE", "SPILLWAY_GPU_IMAGE", "SPILLWAY_CPU_IMAGE"}
    assert set(_VARIABLE.findall((COMPOSE / "compose.yaml").read_text())) - images <= named


@pytest.mark.parametrize("name", ["alerts", "recordings"])
def test_rules_say_what_they_should(name: str, tmp_path: Path) -> None:
    program = tool("promtool")
    shutil.copy(DEPLOY / f"prometheus/{name}.yml", tmp_path)
    shutil.copy(ROOT / f"tests/deploy/{name}.test.yaml", tmp_path)
    words = [program, "test", "rules", str(tmp_path / f"{name}.test.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_recording_is_documented_and_loaded() -> None:
    (group,) = yaml.safe_load((DEPLOY / "prometheus/recordings.yml").read_text(encoding="utf-8"))["groups"]
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert [rule["record"] for rule in group["rules"] if f"`{rule['record']}`" not in page] == []
    loaded = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))["rule_files"]
    assert loaded == [f"/etc/prometheus/{name}.yml" for name in ("alerts", "recordings")]


def test_an_engine_and_a_cloud_have_alerts_of_their_own() -> None:
    (group,) = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"]
    alerts = {rule["alert"]: rule for rule in group["rules"]}
    assert {"SpillwayRouterDown", "SpillwayNoRouter", "SpillwayLedgerDown", "SpillwayCertificateRevoked"} <= set(alerts)
    assert "spillway_backlog_tokens" in alerts["SpillwayLocalDown"]["expr"], "which only engines have"
    assert alerts["SpillwayCloudDown"]["labels"]["severity"] == "warning"


def test_what_the_engine_takes_follows_the_gpu_and_nobody_shares_its_volumes() -> None:
    services, example = compose()["services"], (COMPOSE / "env.example").read_text(encoding="utf-8")
    engine = " ".join(services["vllm"]["command"])
    limits = GPUS["a100-80"].limits
    for flag, name, default in (
        ("max-model-len", "MAX_MODEL_LEN", limits.max_model_len),
        ("max-num-seqs", "MAX_NUM_SEQS", limits.max_num_seqs),
        ("max-num-batched-tokens", "MAX_NUM_BATCHED_TOKENS", limits.max_num_batched_tokens),
    ):
        assert f"--{flag}=${{{name}:-{default}}}" in engine
    for gpu in ("t4", "l4"):
        limits = GPUS[gpu].limits
        line = f"{gpu}: MAX_MODEL_LEN={limits.max_model_len} MAX_NUM_SEQS={limits.max_num_seqs}"
        assert f"# {line} MAX_NUM_BATCHED_TOKENS={limits.max_num_batched_tokens}" in example
    of_root = {volume.split(":")[0] for volume in services["vllm"]["volumes"]}
    assert of_root.isdisjoint(volume.split(":")[0] for volume in services["spillway"]["volumes"])
    assert services["vllm"]["environment"]["HOME"].startswith("/cache"), "/tmp can't hold compiled kernels"


def test_scrape_targets_are_services() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    hosts = {target.split(":")[0] for job in jobs for part in job["static_configs"] for target in part["targets"]}
    assert hosts <= set(compose()["services"])


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda unit: unit.name)
def test_systemd_units(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    assert "NoNewPrivileges=yes" in text
    assert "ProtectSystem=strict" in text
    assert "User=spillway" in text
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not on this machine: units were only read")
    there = tmp_path / unit.name
    there.write_text(text.replace("/opt/spillway/.venv/bin/spillway", "/bin/true"))
    done = subprocess.run([program, "verify", str(there)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_shell_scripts_are_valid() -> None:
    for script in (DEPLOY / "container/start", DEPLOY / "container/onstart", DEPLOY / "vast/rent.sh"):
        done = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, done.stderr) == (0, ""), script
