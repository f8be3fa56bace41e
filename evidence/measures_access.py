"""Routes, methods and callers with another answer than expected, rules of keys that are bypassed, severe findings."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from evidence.access.findings import findings, open_findings
from evidence.access.key_rules import BACKENDS, KEYS, try_keys
from evidence.access.matrix import run
from evidence.results import Measurement, not_measured

ROUTE_ROLE = "security.route_role_unexpected"
OPEN_S1 = "trust.open_s1"
KEY_RULES = "policy.key_rules_bypassed"
ASKED = 12_000


def route_role(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Ask every route as every caller."""
    with tempfile.TemporaryDirectory() as name:
        count, unexpected = run(Path(name))
    for cell in unexpected:
        say(f"  {cell}")
    return {ROUTE_ROLE: Measurement(len(unexpected), count, {"unexpected": [str(cell) for cell in unexpected]})}


def key_rules(say: Callable[[str], None], requests: int = ASKED, *, fault: bool = False) -> dict[str, Measurement]:
    """Ask for every backend on every way, by keys that may not use all of them. It is void if a backend or a key is
    never served. `fault`: the keys have no rules."""
    seen = asyncio.run(try_keys(requests, fault=fault))
    idle = sorted((frozenset(BACKENDS) - seen.at_backends.keys()) | (KEYS.keys() - seen.reached.keys()))
    if idle:
        return {KEY_RULES: not_measured(f"nothing was served of: {', '.join(idle)}")}
    for bypass in seen.bypassed[:20]:
        say(f"  {bypass}")
    details = {"bypassed": seen.bypassed[:20], "served": dict(seen.reached), "at_backends": dict(seen.at_backends)}
    return {KEY_RULES: Measurement(len(seen.bypassed), seen.requests, details)}


def open_s1(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Run the tests of every severe finding of the security review."""
    left = open_findings(say)
    details = {"open": left, "tests": {finding.name: list(finding.tests) for finding in findings()}}
    return {OPEN_S1: Measurement(len(left), len(findings()), details)}
