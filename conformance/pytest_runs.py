"""Runs of pytest in the suites' environment, and their results as cases."""

from __future__ import annotations

import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.model import Case, NotRunError, Verdict
from conformance.sources import PYTHON

_RUN_LIMIT_S = 1800
_TEST_LIMIT_S = 90
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True, slots=True)
class PytestRun:
    """The tests to run: `paths` below `folder`, with these plugins and nothing else that the environment would load.

    `deselect` holds pytest's expression for `-k`; `environ` is added to the environment.
    """

    folder: Path
    paths: Sequence[str]
    plugins: Sequence[str] = ()
    options: Sequence[str] = ()
    environ: Mapping[str, str] | None = None


def run_pytest(run: PytestRun, report: Path) -> tuple[Case, ...]:
    """Run the tests and return a case for each. `report` is the file for pytest's own report.

    Raises:
        NotRunError: pytest ran no test, or not to its end.
    """
    plugins = [word for name in (*run.plugins, "pytest_timeout") for word in ("-p", name)]
    command = [str(PYTHON), "-m", "pytest", *plugins, "-p", "no:cacheprovider", "-q", "--tb=short", "-o", "addopts="]
    command += [f"--timeout={_TEST_LIMIT_S}", f"--junitxml={report}", *run.options, *run.paths]
    ended = subprocess.run(
        command,
        cwd=run.folder,
        env=suite_environ(run.environ or {}),
        capture_output=True,
        text=True,
        timeout=_RUN_LIMIT_S,
        check=False,
    )
    if ended.returncode not in (0, 1) or not report.exists():
        last = (ended.stdout + ended.stderr).strip()[-600:]
        raise NotRunError(f"pytest ended with status {ended.returncode}: {last}")
    return read_report(report)


def suite_environ(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a suite: without proxies and without plugins that nobody asked for."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "NO_PROXY": "127.0.0.1,localhost", **more}


def read_report(report: Path) -> tuple[Case, ...]:
    """Read pytest's JUnit report. A test that failed and whose teardown failed too is one case."""
    cases: dict[str, Case] = {}
    for element in ElementTree.parse(report).iter("testcase"):
        case = _case(element)
        if case.name not in cases or case.verdict == "failed":
            cases[case.name] = case
    return tuple(cases.values())


def _case(element: ElementTree.Element) -> Case:
    name = f"{element.get('classname', '')}::{element.get('name', '')}"
    verdicts: tuple[tuple[str, Verdict], ...] = (("failure", "failed"), ("error", "failed"), ("skipped", "skipped"))
    for tag, verdict in verdicts:
        problem = element.find(tag)
        if problem is not None:
            return Case(name, verdict, one_line(problem.get("message") or problem.text or ""))
    return Case(name, "passed")


def one_line(message: str, limit: int = 300) -> str:
    """Return a message on one line, cut to a bounded length and without addresses of objects."""
    return _ADDRESS.sub("0x…", " ".join(message.split()))[:limit]
