"""schemathesis: requests made up from the router's own description, valid and invalid ones.

Only the router has this description, so nothing runs directly. A case is one route and one kind of check.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from conformance.model import Case, NotRunError, Say, Suite, SuiteRun
from conformance.pytest_runs import one_line, suite_environ
from conformance.sites import scripted_with_local
from conformance.sources import PYTHON, installed_version

_LIMIT_S = 1200
_EXAMPLES = 40
_SEED = 1
_ROUTE = re.compile(r"^_{3,} ([A-Z]+ /\S*|Stateful tests) _{3,}$", re.M)
_TEST_CASE = re.compile(r"^\d+\. Test Case ID: \w+$", re.M)
_KIND = re.compile(r"^- (ST\d+) (.+)$", re.M)
_DETAIL = re.compile(r"^ +(?:Invalid component: |`)(.+)$", re.M)
"""What makes a request invalid, or else the answer's body."""


def run(folder: Path, say: Say) -> SuiteRun:
    """Run schemathesis on the router."""
    version = installed_version("schemathesis")
    with scripted_with_local(folder) as (url, key):
        say(f"  {_EXAMPLES} examples for each route and phase")
        cases = _cases(url, key, folder)
    return SuiteRun(cases, versions={"schemathesis": version})


def _cases(url: str, key: str, folder: Path) -> tuple[Case, ...]:
    report = folder / "schemathesis.json"
    command = [str(PYTHON.with_name("schemathesis")), "run", f"{url}/openapi.json", f"--url={url}"]
    command += [f"--header=Authorization: Bearer {key}"]
    command += [f"--max-examples={_EXAMPLES}", f"--seed={_SEED}", "--generation-deterministic", "--workers=1"]
    command += ["--no-color", "--continue-on-failure", "--report=json", f"--report-json-path={report}"]
    ended = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=suite_environ({})
    )
    if ended.returncode not in (0, 1) or not report.exists():
        raise NotRunError(f"schemathesis ended with status {ended.returncode}: {one_line(ended.stdout[-400:])}")
    return read_report(json.loads(report.read_text(encoding="utf-8")), ended.stdout)


def read_report(document: Mapping[str, Any], output: str) -> tuple[Case, ...]:
    """Return a failed case for each failure in the output, and a passed one for each route without any.

    The report counts the failures but has no details; the output has them for people.

    Raises:
        NotRunError: the output shows other kinds of failures than the report counts.
    """
    failed = tuple(_failures(output))
    counted = {f"{route}::{kind['code']}" for kind in document["failures"] for route in kind["operations"]}
    shown = {case.name.rpartition("::")[0] for case in failed}
    if shown != counted:
        raise NotRunError(f"schemathesis' output was not understood: {sorted(shown ^ counted)}")
    flawed = {name.partition("::")[0] for name in counted}
    return (*(Case(name, "passed") for name in document["valid_rates"] if name not in flawed), *failed)


def _failures(output: str) -> Iterator[Case]:
    _, *sections = _ROUTE.split(output)
    for route, section in zip(sections[::2], sections[1::2], strict=True):
        numbers: Counter[str] = Counter()
        for block in _TEST_CASE.split(section)[1:]:
            detail = _DETAIL.search(block)
            for code, title in _KIND.findall(block):
                numbers[code] += 1
                message = f"{title}: {detail[1] if detail else ''}"
                yield Case(f"{route}::{code}::{numbers[code]}", "failed", one_line(message))


SUITE = Suite("openapi", "schemathesis on the router's own OpenAPI description", "scripted upstream", run)
