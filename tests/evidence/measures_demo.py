"""The demo model through real vLLM, and the demo from start to end."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from loadtests.bench.processes import ROOT, Command, free_port, running

from spillway_server.demo_model.evaluate import EvaluationError, evaluate
from tests.evidence.results import Measurement, not_measured

DOCUMENTS = 500
ENGINE_LIMIT_S = 300
DEMO_LIMIT_S = 900
SPILLWAY = Path(sys.executable).with_name("spillway")


def clean_exact(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Share of held-out clean documents answered exactly right, greedy and without a grammar, through the engine."""
    with tempfile.TemporaryDirectory() as folder:
        log, port = Path(folder, "serve.log"), free_port()
        argv = (str(SPILLWAY), "serve", "--port", str(port), "--log", str(Path(folder, "engine.log")))
        with running(Command(argv), None, log) as process:
            say("  starting the engine (30 to 60 s on a CPU)")
            model = _served_model(process, f"http://127.0.0.1:{port}/v1")
            if model is None:
                tail = log.read_text(errors="replace")[-400:]
                return {"demo_model.clean_exact": not_measured(f"the engine was not ready: {tail}")}
            say(f"  {DOCUMENTS} documents")
            try:
                result = evaluate(f"http://127.0.0.1:{port}/v1", model, DOCUMENTS, ("clean",))[0]
            except EvaluationError as error:
                return {"demo_model.clean_exact": not_measured(str(error))}
    low, high = result.interval
    details = {
        "right": result.right,
        "interval_95": [round(low, 4), round(high, 4)],
        "answer_tokens_mean": round(result.answer_tokens, 1),
        "prompt_tokens_mean": round(result.prompt_tokens, 1),
    }
    return {"demo_model.clean_exact": Measurement(round(result.share, 4), result.n, details)}


def _served_model(process: subprocess.Popen[bytes], base_url: str) -> str | None:
    """The id of the served model once one token could be generated; None when the engine ended or took too long."""
    deadline = time.monotonic() + ENGINE_LIMIT_S
    with httpx.Client(timeout=20, trust_env=False) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                model = str(client.get(f"{base_url}/models").raise_for_status().json()["data"][0]["id"])
                body = {"model": model, "prompt": "1", "max_tokens": 1}
                client.post(f"{base_url}/completions", json=body).raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.5)
            else:
                return model
    return None


def seconds_after_install(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Wall seconds of `python -m loadtests.demo` from start to exit; a demo that broke a promise has no time."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "demo.json")
        begun = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "loadtests.demo", "--json", str(report)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=DEMO_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            reason = f"the demo did not end within {DEMO_LIMIT_S} s"
            return {"demo.seconds_after_install": not_measured(reason)}
        seconds = time.monotonic() - begun
        details: dict[str, Any] = {"exit_status": done.returncode}
        if report.exists():
            written = json.loads(report.read_text(encoding="utf-8"))
            # Each document's row is the demo's business; the verdict and the figures are enough here.
            details["demo"] = {name: value for name, value in written.items() if not isinstance(value, list)}
    say(f"  exit status {done.returncode} after {seconds:.0f} s")
    if done.returncode != 0:
        reason = f"the demo ended with status {done.returncode}: {(done.stdout + done.stderr)[-400:]}"
        return {"demo.seconds_after_install": Measurement(None, 0, {"reason": reason, "seconds": seconds, **details})}
    return {"demo.seconds_after_install": Measurement(round(seconds, 1), 1, details)}
