"""The compliance tests of Open Responses, and the same program's tests of chat completions and messages."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from conformance.model import DIRECT, ROUTED, Case, NotRunError, Say, Suite, SuiteRun
from conformance.pytest_runs import one_line, suite_environ
from conformance.sites import Site, scripted
from conformance.sources import PYTHON, installed_version

MODELS = ("gpt-6-astra",)
FORMATS = ("open-responses", "openai-chat", "anthropic")
_LIMIT_S = 300


def run(folder: Path, say: Say) -> SuiteRun:
    """Run the tests of all three protocols in both ways."""
    versions = {"llm-comply": installed_version("llm-comply")}
    with scripted(folder, MODELS) as site:
        direct = tuple(case for name in FORMATS for case in _cases(site, DIRECT, name))
        say(f"  directly: {len(direct)} tests")
        routed = tuple(case for name in FORMATS for case in _cases(site, ROUTED, name))
    return SuiteRun(routed, direct, versions)


def _cases(site: Site, way: str, protocol: str) -> tuple[Case, ...]:
    command = [str(PYTHON), "-m", "llm_comply.cli", "--json", "--format", protocol, "--model", site.model]
    command += ["--base-url", f"{site.url(way)}/v1", "--api-key", "unused"]
    if protocol == "anthropic":
        command += ["--auth-header", "x-api-key", "--no-bearer", "--header", "anthropic-version:2023-06-01"]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=suite_environ({})
    )
    try:
        results = json.loads(ended.stdout[ended.stdout.index("{") :])["results"]
    except ValueError:
        raise NotRunError(f"llm-comply ended with status {ended.returncode}: {one_line(ended.stderr)}") from None
    return tuple(
        Case(f"{protocol}::{result['id']}", result["status"], one_line(" ".join(result.get("errors", []))))
        for result in results
    )


SUITE = Suite(
    "open-responses", "the compliance tests of Open Responses, chat completions and messages", "scripted upstream", run
)
