"""anthropic-sdk-python's own tests of messages, beta.messages and models."""

from __future__ import annotations

from pathlib import Path

from conformance.model import DIRECT, ROUTED, Case, Say, Suite, SuiteRun
from conformance.pytest_runs import PytestRun, run_pytest
from conformance.sites import Site, scripted
from conformance.sources import Distribution, in_environment, installed_version, prepare

SOURCE = Distribution("anthropic")
MODELS = ("claude-opus-5-5", "model_id")
"""The models that the tests name, beside those that the SDK calls deprecated."""
_DEPRECATED = "import anthropic.resources.messages as m; print(*m.DEPRECATED_MODELS)"
_TESTS = ("test_messages.py", "test_models.py", "beta/test_messages.py", "beta/test_models.py")


def run(folder: Path, say: Say) -> SuiteRun:
    """Run the tests in both ways."""
    version = installed_version(SOURCE.name)
    source = prepare(SOURCE)
    with scripted(folder, (*MODELS, *in_environment(_DEPRECATED).split())) as site:
        direct = _cases(source, site, DIRECT, folder)
        say(f"  directly: {len(direct)} tests")
        routed = _cases(source, site, ROUTED, folder)
    return SuiteRun(routed, direct, {"anthropic": version, "pytest": installed_version("pytest")})


def _cases(source: Path, site: Site, way: str, folder: Path) -> tuple[Case, ...]:
    plugins = ("pytest_asyncio.plugin", "respx.plugin", "http_snapshot._pytest_plugin", "inline_snapshot.pytest_plugin")
    # The first plugin replaces httpx, which others import.
    paths = [f"tests/api_resources/{name}" for name in _TESTS]
    tests = PytestRun(source, paths, ("tests._alias_httpx", *plugins), environ={"TEST_API_BASE_URL": site.url(way)})
    return run_pytest(tests, folder / f"{way}.xml")


SUITE = Suite("anthropic-python", "anthropic-sdk-python's own tests of messages and models", "scripted upstream", run)
