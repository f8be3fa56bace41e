"""SkyPilot: the task is one that SkyPilot accepts, no secret stands in it, and a spot machine is a service."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml
from evidence.deploy_commands import MODEL, ROOT
from jsonschema import Draft202012Validator
from tests.deploy.in_process import spillway
from tests.deploy.stand_ins import asked, program

SCHEMAS = json.loads((ROOT / "deploy" / "sky" / "schema.json").read_text(encoding="utf-8"))
ORDER = ("sky", "--gpu", "a100-80", "--price", "1.39", "--model", MODEL, "--image", "r/i:1")
GROQ = ("--cloud", "groq=openai/gpt-oss-20b", "--secret", "GROQ_API_KEY", "--budget", "5")


def errors(content: dict[str, Any]) -> list[str]:
    """What SkyPilot would refuse of a task; a secret gets its value on the command line."""
    parts = [("task", {**content, "secrets": dict.fromkeys(content.get("secrets", {}), "x")})]
    parts += [(name, content[name]) for name in ("resources", "service") if name in content]
    return [e.message for name, part in parts for e in Draft202012Validator(SCHEMAS[name]).iter_errors(part)]


def task_of(folder: Path, *more: str) -> dict[str, Any]:
    done = spillway(folder, "deploy", *ORDER, *more, "--dry-run", "--json", env={"GROQ_API_KEY": "gsk_of_nobody"})
    assert done.status == 0, done.err
    assert "gsk_of_nobody" not in done.out
    content: dict[str, Any] = yaml.safe_load(json.loads(done.out)["steps"][0]["stdin"])
    return content


def test_sky_accepts_the_task(tmp_path: Path) -> None:
    machine = task_of(tmp_path, *GROQ, "--place", "aws/us-east-1")
    assert errors(machine) == []
    assert errors({**machine, "resources": {**machine["resources"], "accelerator": "L4"}}) != []
    assert machine["resources"]["accelerators"] == "A100-80GB:1"
    assert machine["resources"]["ports"] == 8080
    assert machine["resources"]["max_hourly_cost"] == 1.39
    assert machine["secrets"] == {"GROQ_API_KEY": None}
    assert "service" not in machine


def test_a_spot_machine_is_a_service_that_is_ready_when_the_router_is(tmp_path: Path) -> None:
    service = task_of(tmp_path, "--interruptible", "--set", "replicas=2")
    assert errors(service) == []
    assert service["resources"]["use_spot"] is True
    assert (service["service"]["readiness_probe"]["path"], service["service"]["replicas"]) == ("/ready", 2)
    lone = spillway(tmp_path, "deploy", *ORDER, "--set", "replicas=2", "--dry-run")
    assert "replicas are a service's" in lone.err


def test_it_is_launched_booked_asked_and_taken_down(tmp_path: Path) -> None:
    program(tmp_path, "sky", {})
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = spillway(tmp_path, "deploy", *ORDER, *GROQ, "--yes", "--wait", "0", env=env)
    assert done.status == 0, done.err
    assert yaml.safe_load((tmp_path / "spillway.sky.yaml").read_text())["name"] == "spillway"
    launch = asked(tmp_path)[0][0]
    assert launch[:4] == ["launch", "--cluster", "spillway", "--secret"]
    assert launch[-2:] == ["--yes", "spillway.sky.yaml"]
    assert "what was typed" in done.out
    rentals = json.loads(spillway(tmp_path, "rentals", "list", "--json").out)
    assert [(row["source"], row["stopped"]) for row in rentals] == [("sky", None)]
    assert spillway(tmp_path, "deploy", "sky", "--destroy", "--yes", env=env).status == 0
    assert asked(tmp_path)[-1][0] == ["down", "--yes", "spillway"]
