"""h1spec's raw HTTP/1.1 requests. What stands beside the router is uvicorn, which serves vLLM too."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from conformance.model import DIRECT, ROUTED, Case, NotRunError, Say, Suite, SuiteRun
from conformance.pytest_runs import one_line, suite_environ
from conformance.sites import scripted
from conformance.sources import PYTHON, Repository, prepare

SOURCE = Repository("h1spec", "https://github.com/dropseed/h1spec", "d8f69184825d3eedd649843a545c957f3fccac06")
_PROGRAM = Path(__file__).resolve().parents[1] / "in_environment" / "h1spec_json.py"
_LIMIT_S = 600


def run(folder: Path, say: Say) -> SuiteRun:
    """Run the tests against uvicorn and against the router."""
    source = prepare(SOURCE)
    with scripted(folder, ("scripted",)) as site:
        direct = _cases(source, site.url(DIRECT))
        say(f"  directly: {len(direct)} tests")
        return SuiteRun(_cases(source, site.url(ROUTED)), direct, {"h1spec": SOURCE.commit[:7]})


def _cases(source: Path, url: str) -> tuple[Case, ...]:
    address = urlsplit(url)
    command = [str(PYTHON), str(_PROGRAM), str(source), str(address.hostname), str(address.port)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=suite_environ({})
    )
    if ended.returncode:
        raise NotRunError(f"h1spec ended with status {ended.returncode}: {one_line(ended.stderr)}")
    return tuple(
        Case(f"{result['section']}::{result['name']}", "passed" if result["passed"] else "failed", result["detail"])
        for result in json.loads(ended.stdout)
    )


SUITE = Suite("http1", "h1spec's raw HTTP/1.1 requests, strict ones included", "uvicorn with FastAPI", run)
