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

from loadtests.bench.processes import ROOT

from evidence.results import Measurement, not_measured
from evidence.served import FailedError, serving
from spillway_server.demo_model.evaluate import EvaluationError, evaluate

DOCUMENTS = 500
DEMO_LIMIT_S = 900


def clean_exact(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Measure the share of held-out clean documents that the engine answers exactly right, greedy and without a
    grammar.
    """
    try:
        say("  starting the engine (30 to 60 s on a CPU)")
        with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (base, model):
            say(f"  {DOCUMENTS} documents")
            result = evaluate(base, model, DOCUMENTS, ("clean",))[0]
    except (FailedError, EvaluationError) as error:
        return {"demo_model.clean_exact": not_measured(str(error))}
    low, high = result.interval
    details = {
        "right": result.right,
        "interval_95": [round(low, 4), round(high, 4)],
        "answer_tokens_mean": round(result.answer_tokens, 1),
        "prompt_tokens_mean": round(result.prompt_tokens, 1),
    }
    return {"demo_model.clean_exact": Measurement(round(result.share, 4), result.n, details)}


def seconds_after_install(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Measure the wall seconds of `python -m demo` from start to exit; a demo that broke a promise has no time."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "demo.json")
        started_s = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "demo", "--json", str(report)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=DEMO_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            reason = f"the demo did not end within {DEMO_LIMIT_S} s"
            return {"demo.seconds_after_install": not_measured(reason)}
        seconds = time.monotonic() - started_s
        details: dict[str, Any] = {"exit_status": done.returncode}
        excused: list[str] = []
        if report.exists():
            written = json.loads(report.read_text(encoding="utf-8"))
            # The rows of the documents stay with the demo; the verdict and the figures are enough here.
            excused = [claim["name"] for claim in written["claims"] if claim["excused"]]
            details["demo"] = {name: value for name, value in written.items() if not isinstance(value, list)}
    say(f"  exit status {done.returncode} after {seconds:.0f} s")
    if excused:
        reason = f"other programs used the machine, so that these promises were not judged: {', '.join(excused)}"
        return {"demo.seconds_after_install": not_measured(reason)}
    if done.returncode != 0:
        reason = f"the demo ended with status {done.returncode}: {(done.stdout + done.stderr)[-400:]}"
        return {"demo.seconds_after_install": Measurement(None, 0, {"reason": reason, "seconds": seconds, **details})}
    return {"demo.seconds_after_install": Measurement(round(seconds, 1), 1, details)}
