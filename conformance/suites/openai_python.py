"""openai-python's own tests of chat, completions, embeddings, models and responses."""

from __future__ import annotations

from pathlib import Path

from conformance.model import DIRECT, ROUTED, Case, Say, Suite, SuiteRun
from conformance.pytest_runs import PytestRun, run_pytest
from conformance.sites import Site, scripted
from conformance.sources import IN_ENVIRONMENT, Distribution, installed_version, prepare

SOURCE = Distribution("openai")
MODELS = ("gpt-6-astra", "gpt-3.5-turbo-instruct", "text-embedding-3-small")
"""The models that the tests name."""
_MAKES_STORED_RESPONSE = "stored_response"
"""The plugin in conformance/in_environment, for an upstream that gives a response the id that it is asked for."""
_TESTS = ("chat", "responses", "test_completions.py", "test_embeddings.py", "test_models.py", "test_responses.py")


def run(folder: Path, say: Say) -> SuiteRun:
    """Run the tests in both ways."""
    version = installed_version(SOURCE.name)
    source = prepare(SOURCE)
    with scripted(folder, MODELS) as site:
        direct = cases(source, site, DIRECT, folder, (_MAKES_STORED_RESPONSE,))
        say(f"  directly: {len(direct)} tests")
        routed = cases(source, site, ROUTED, folder, (_MAKES_STORED_RESPONSE,))
    return SuiteRun(routed, direct, {"openai": version, "pytest": installed_version("pytest")})


def cases(source: Path, site: Site, way: str, folder: Path, plugins: tuple[str, ...] = ()) -> tuple[Case, ...]:
    """Run the tests in one way, with these plugins of conformance/in_environment."""
    paths = [f"tests/api_resources/{name}" for name in _TESTS]
    environ = {"TEST_API_BASE_URL": f"{site.url(way)}/v1", "PYTHONPATH": str(IN_ENVIRONMENT)}
    tests = PytestRun(source, paths, ("pytest_asyncio.plugin", *plugins), environ=environ)
    return run_pytest(tests, folder / f"{way}.xml")


SUITE = Suite("openai-python", "openai-python's own tests of the five endpoints", "scripted upstream", run)
