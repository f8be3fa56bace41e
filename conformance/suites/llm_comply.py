"""llm-comply: the compliance tests of Open Responses in Python, and its own of chat completions and messages."""

from __future__ import annotations

import subprocess
from pathlib import Path

from conformance.compliance import read_report
from conformance.model import DIRECT, ROUTED, Case, Say, Suite, SuiteRun
from conformance.pytest_runs import suite_environ
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
    return read_report(ended, f"{protocol}::")


SUITE = Suite("llm-comply", "compliance tests of responses, chat completions and messages", "scripted upstream", run)
