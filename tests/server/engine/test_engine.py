"""Real vLLM on the CPU with the demo model, run by our own supervisor."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from tests.conftest import ENGINE_PYTHON, ROOT, RunningEngine

from spillway_server.engine.liveness import read_activity

pytestmark = pytest.mark.engine

SERVE = """
from spillway_router.cli import app
app()
"""


def test_it_generates(engine: RunningEngine) -> None:
    body = {"model": engine.model, "prompt": "1", "max_tokens": 3, "temperature": 0, "priority": 1}
    answer = httpx.post(f"{engine.base_url}/completions", json=body, timeout=60)
    answer.raise_for_status()
    assert answer.json()["usage"]["completion_tokens"] >= 1


def test_our_reading_of_its_metrics(engine: RunningEngine) -> None:
    page = httpx.get(engine.base_url.removesuffix("/v1") + "/metrics", timeout=10).text
    activity = read_activity(page)
    assert activity.tokens > 0
    assert "vllm:admission_rejections_total" in page, "the queue cap is on"


def test_serve_starts_generates_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """`spillway serve` as a process: SIGTERM ends it, its engine and all of its engine's processes."""
    if not ENGINE_PYTHON.exists():
        pytest.skip("the engine's environment .venv-vllm is missing: run `make install`")
    command = [sys.executable, "-c", SERVE, "serve", "--model", "demo", "--port", "0", "--json"]
    command += ["--device", "cpu", "--engine-python", str(ENGINE_PYTHON), "--log", str(tmp_path / "engine.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as serve:
        assert serve.stdout is not None
        family: list[psutil.Process] = []
        kinds = []
        try:
            for line in serve.stdout:
                event = json.loads(line)
                kinds.append(event["event"])
                if event["event"] == "EngineReady":
                    body = {"model": event["served_model"], "prompt": "1", "max_tokens": 1}
                    answer = httpx.post(f"{event['base_url']}/completions", json=body, timeout=60)
                    assert answer.status_code == 200
                    family = psutil.Process(serve.pid).children(recursive=True)
                    serve.send_signal(signal.SIGTERM)
            assert serve.wait(timeout=60) == 0
        finally:
            serve.kill()
    reported = [kind for kind in kinds if kind != "Note"]  # how fast it is known to be
    assert reported[0] == "EngineStarting"
    assert kinds[-3:] == ["EngineUnready", "EngineDraining", "EngineStopped"]
    assert len(family) >= 3, "guard, API server, engine core"
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
