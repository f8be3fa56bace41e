"""Engines on Ray: Ray Serve is told what its schema takes, and a replica starts, tells, checks and ends its engine."""

from __future__ import annotations

import asyncio
import json
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.testing.threaded_server import threaded_server
from spillway_server.on_ray.application import RayOrder, application, deploy, with_application
from spillway_server.on_ray.replica import EngineProcess, filled, reply_to, work_of

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = json.loads((ROOT / "deploy/ray/schema.json").read_text(encoding="utf-8"))
RECORDED = json.loads((ROOT / "tests/runtime/shapes/ray_applications.json").read_text(encoding="utf-8"))
ORDER = RayOrder("engines", 2, 1, ("spillway", "serve", "--host", "{host}", "--port", "{port}"))
FAKE = (sys.executable, "-m", "loadtests.fake_engine", "--host", "{host}", "--port", "{port}")


def errors(sent: dict[str, Any]) -> list[str]:
    """What Ray would refuse of a configuration."""
    return [error.message for error in Draft202012Validator(SCHEMAS["ServeDeploySchema"]).iter_errors(sent)]


def test_ray_takes_the_order() -> None:
    sent = with_application({}, application(ORDER))
    assert errors(sent) == []
    (one,) = sent["applications"]
    assert one["external_scaler_enabled"] is True
    assert one["deployments"][0]["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 1}
    assert one["deployments"][0]["graceful_shutdown_timeout_s"] > one["args"]["drain_s"]
    assert errors({"applications": [{**one, "import_path": 1}]}) != []


def test_what_others_run_on_the_cluster_is_told_again() -> None:
    """Recorded from Ray 2.60.0: its answer holds the configuration of each application."""
    sent = with_application(RECORDED, {**application(ORDER), "name": "second", "route_prefix": "/second"})
    assert errors(sent) == []
    assert [one["name"] for one in sent["applications"]] == ["engines", "second"]
    replaced = with_application(RECORDED, application(ORDER))
    assert [one["args"]["drain_s"] for one in replaced["applications"]] == [130.0]
    from_a_program = {"applications": {"theirs": {"name": "theirs", "deployed_app_config": None}}}
    with pytest.raises(ValueError, match="Ray would delete it"):
        with_application(from_a_program, application(ORDER))


def test_serve_on_ray_deploys_the_same_command_for_each_node() -> None:
    sent: list[dict[str, Any]] = []

    class Dashboard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b'{"applications": {}}')

        def do_PUT(self) -> None:
            sent.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None: ...

    with threaded_server(Dashboard) as url:
        words = ["serve", "--on", "ray", "--ray", url, "--name", "engines", "--replicas", "3", "--gpus", "2"]
        done = CliRunner().invoke(app, [*words, "--model", "owner/name", "--vllm-arg=--max-num-seqs=8"])
    assert done.exit_code == 0, done.output
    assert "discover: ray" in done.output
    assert errors(sent[0]) == []
    (one,) = sent[0]["applications"]
    command = one["args"]["command"]
    assert command[:2] == ["spillway", "serve"]
    assert command[-1] == "--vllm-arg=--max-num-seqs=8"
    assert one["deployments"][0]["num_replicas"] == 3
    assert one["deployments"][0]["ray_actor_options"]["num_gpus"] == 2


def test_a_cluster_that_is_not_there_is_said() -> None:
    obstacle = deploy("http://127.0.0.1:9", ORDER)
    assert obstacle is not None
    assert "did not take the order" in obstacle.reason
    assert "ray status" in obstacle.fix


async def test_a_replica_runs_its_engine_until_nothing_runs_in_it() -> None:
    engine = EngineProcess(FAKE, "127.0.0.1", 60)
    await engine.until_ready()
    await engine.check_health()
    status, _, body = reply_to("/engines/spillway/engine", "", engine.root)
    assert (status, json.loads(body)) == (200, {"url": f"{engine.root}/v1"})
    await asyncio.to_thread(engine.end, 0.5)
    with pytest.raises(RuntimeError, match="the engine ended"):
        engine.check()


async def test_an_engine_that_does_not_start_fails_its_replica() -> None:
    with pytest.raises(RuntimeError, match="ended with status 3"):
        await EngineProcess((sys.executable, "-c", "raise SystemExit(3)"), "127.0.0.1", 60).until_ready()


def test_clients_of_rays_own_port_are_sent_to_the_engine() -> None:
    status, headers, _ = reply_to("/v1/chat/completions", "a=b", "http://10.0.0.7:4000")
    assert (status, headers["location"]) == (307, "http://10.0.0.7:4000/v1/chat/completions?a=b")


def test_the_work_in_an_engine_is_read_from_its_metrics() -> None:
    page = 'vllm:num_requests_running{m="x"} 2.0\nvllm:num_requests_waiting{m="x"} 1.0\nvllm:other 9\n'
    assert (work_of(page), work_of("")) == (3.0, None)
    assert filled(("a", "{host}:{port}"), "h", 1) == ["a", "h:1"]
