"""Open Responses' own compliance tests, run by the project's own runner.

The runner is a program for Bun. Its tests of WebSockets send a header with the handshake, which only Bun's client can.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from conformance.compliance import read_report
from conformance.model import DIRECT, ROUTED, Case, Say, Suite, SuiteRun
from conformance.node_packages import bun, install, locked_version
from conformance.pytest_runs import suite_environ
from conformance.sites import Site, scripted
from conformance.sources import Repository, prepare

SOURCE = Repository(
    "openresponses", "https://github.com/openresponses/openresponses", "92c12d96d7b61d6d15e2214daa5e9c6000ab6e1c"
)
MODELS = ("gpt-6-astra",)
_LIMIT_S = 300


def run(folder: Path, say: Say) -> SuiteRun:
    """Run the tests in both ways."""
    source, packages = prepare(SOURCE), install()
    versions = {"openresponses": SOURCE.commit[:7], "bun": locked_version("bun"), "zod": locked_version("zod")}
    with scripted(folder, MODELS) as site:
        direct = _cases(source, packages, site, DIRECT)
        say(f"  directly: {len(direct)} tests")
        return SuiteRun(_cases(source, packages, site, ROUTED), direct, versions)


def _cases(source: Path, packages: Path, site: Site, way: str) -> tuple[Case, ...]:
    # Without --no-install Bun would fetch what it does not find, and at another version.
    command = [str(bun(packages)), "--no-install", "run", "bin/compliance-test.ts", "--json"]
    command += ["--base-url", f"{site.url(way)}/v1", "--api-key", "unused", "--model", site.model]
    environ = suite_environ({"NODE_PATH": str(packages)})
    ended = subprocess.run(
        command, cwd=source, env=environ, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    return read_report(ended)


SUITE = Suite("open-responses", "Open Responses' own compliance tests", "scripted upstream", run)
