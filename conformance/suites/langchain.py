"""LangChain's standard tests for ChatOpenAI (chat and Responses), ChatAnthropic and OpenAIEmbeddings."""

from __future__ import annotations

from pathlib import Path

from conformance.model import DIRECT, ROUTED, Case, Say, Suite, SuiteRun
from conformance.pytest_runs import PytestRun, run_pytest
from conformance.sites import Site, scripted
from conformance.sources import installed_version

MODELS = ("gpt-6-astra",)
_TESTS = Path(__file__).resolve().parents[1] / "in_environment"
_PLUGINS = ("pytest_asyncio.plugin", "pytest_socket", "pytest_recording.plugin", "pytest_benchmark.plugin", "syrupy")
_PACKAGES = ("langchain-tests", "langchain-openai", "langchain-anthropic")


def run(folder: Path, say: Say) -> SuiteRun:
    """Run the tests in both ways."""
    versions = {name: installed_version(name) for name in _PACKAGES}
    with scripted(folder, MODELS) as site:
        direct = _cases(site, DIRECT, folder)
        say(f"  directly: {len(direct)} tests")
        return SuiteRun(_cases(site, ROUTED, folder), direct, versions)


def _cases(site: Site, way: str, folder: Path) -> tuple[Case, ...]:
    environ = {"CONFORMANCE_URL": site.url(way), "CONFORMANCE_MODEL": site.model, "LANGSMITH_TRACING": "false"}
    options = ("--benchmark-disable", "--record-mode=none")
    tests = PytestRun(_TESTS, ("test_langchain.py",), _PLUGINS, options=options, environ=environ)
    return run_pytest(tests, folder / f"{way}.xml")


SUITE = Suite("langchain", "LangChain's standard tests of its OpenAI and Anthropic models", "scripted upstream", run)
