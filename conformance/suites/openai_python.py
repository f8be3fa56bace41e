"""openai-python's own tests of chat, completions, embeddings, models and responses."""

from __future__ import annotations

from pathlib import Path

from conformance.model import DIRECT, ROUTED, Case, Say, Suite, SuiteRun
from conformance.pytest_runs import PytestRun, run_pytest
from conformance.sites import Site, scripted
from conformance.sources import Distribution, installed_version, prepare

SOURCE = Distribution("openai")
MODELS = ("gpt-6-astra", "gpt-3.5-turbo-instruct", "text-embedding-3-small")
"""The models that the tests name."""
_TESTS = ("chat", "responses", "test_completions.py", "test_embeddings.py", "test_models.py", "test_responses.py")


def run(folder: Path, say: Say) -> SuiteRun:
    """Run the tests in both ways."""
    version = installed_version(SOURCE.name)
    source = prepare(SOURCE)
    with scripted(folder, MODELS) as site:
        direct = cases(source, site, DIRECT, folder)
        say(f"  directly: {len(direct)} tests")
        routed = cases(source, site, ROUTED, folder)
    return SuiteRun(routed, direct, {"openai": version, "pytest": installed_version("pytest")})


def cases(source: Path, site: Site, way: str, folder: Path) -> tuple[Case, ...]:
    """Run the tests in one way."""
    paths = [f"tests/api_resources/{name}" for name in _TESTS]
    tests = PytestRun(source, paths, ("pytest_asyncio.plugin",), environ={"TEST_API_BASE_URL": f"{site.url(way)}/v1"})
    return run_pytest(tests, folder / f"{way}.xml")


SUITE = Suite("openai-python", "openai-python's own tests of the five endpoints", "scripted upstream", run)
