"""Combinations of route, method and caller whose answer is not the expected one, and severe findings still open."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from evidence.access.findings import findings, open_findings
from evidence.access.matrix import run
from evidence.results import Measurement

ROUTE_ROLE = "security.route_role_unexpected"
OPEN_S1 = "trust.open_s1"


def route_role(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Ask every route as every caller."""
    with tempfile.TemporaryDirectory() as name:
        count, unexpected = run(Path(name))
    for cell in unexpected:
        say(f"  {cell}")
    return {ROUTE_ROLE: Measurement(len(unexpected), count, {"unexpected": [str(cell) for cell in unexpected]})}


def open_s1(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Run the tests of every severe finding of the security review."""
    left = open_findings(say)
    details = {"open": left, "tests": {finding.name: list(finding.tests) for finding in findings()}}
    return {OPEN_S1: Measurement(len(left), len(findings()), details)}
