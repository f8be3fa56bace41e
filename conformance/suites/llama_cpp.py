"""llama.cpp's tests of its server's OpenAI and Anthropic routes, against a server that runs already.

The tests were written for one tiny model and for llama.cpp's own fields, so most of what they ask no other server
answers. What counts is whether the router answers as the upstream behind it does.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from conformance.model import DIRECT, ROUTED, Case, Say, Suite, SuiteRun
from conformance.pytest_runs import PytestRun, run_pytest
from conformance.sites import scripted
from conformance.sources import IN_ENVIRONMENT, Distribution, installed_version, prepare

SOURCE = Distribution("llama-cpp-python", "0.3.36", "vendor/llama.cpp/tools/server/tests")
"""The package carries llama.cpp's sources, the server's tests included."""
MODELS = (
    "tinyllama-2",
    "test",
    "davinci-002",
    "gpt-3.5-turbo",
    "gpt-3.5-turbo-instruct",
    "gpt-4.1",
    "codellama70b",
    "text-embedding-3-small",
)
"""The models that the tests name."""
_TESTS = (
    "test_basic.py",
    "test_chat_completion.py",
    "test_compat_anthropic.py",
    "test_compat_oai_responses.py",
    "test_completion.py",
    "test_embedding.py",
)
"""The rest tests llama.cpp's own routes, slots, templates and models."""


def run(folder: Path, say: Say) -> SuiteRun:
    """Run the tests in both ways."""
    source = prepare(SOURCE)
    versions = {"llama-cpp-python": SOURCE.version, "openai": installed_version("openai")}
    with scripted(folder, MODELS) as site:
        direct = _cases(source, site.url(DIRECT), folder / "direct.xml")
        say(f"  directly: {len(direct)} tests")
        return SuiteRun(_cases(source, site.url(ROUTED), folder / "routed.xml"), direct, versions)


def _cases(source: Path, url: str, report: Path) -> tuple[Case, ...]:
    environ = {"DEBUG_EXTERNAL": "1", "PORT": str(urlsplit(url).port), "PYTHONPATH": str(IN_ENVIRONMENT)}
    paths = [f"unit/{name}" for name in _TESTS]
    return run_pytest(PytestRun(source, paths, environ=environ), report)


SUITE = Suite("llama-cpp", "llama.cpp's tests of its server's OpenAI and Anthropic routes", "scripted upstream", run)
