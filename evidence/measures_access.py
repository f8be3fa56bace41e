"""Routes, methods and callers with another answer than expected, rules of keys that are bypassed, embeddings of another
space, severe findings."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from evidence.access.embedding_spaces import SPACES, try_spaces
from evidence.access.findings import findings, open_findings
from evidence.access.key_rules import BACKENDS, KEYS, try_keys
from evidence.access.matrix import run
from evidence.results import Measurement, not_measured

ROUTE_ROLE = "security.route_role_unexpected"
OPEN_S1 = "trust.open_s1"
KEY_RULES = "policy.key_rules_bypassed"
EMBEDDING_SPACES = "policy.embedding_space_mixed"
ASKED = 12_000
ASKED_FOR_VECTORS = 18_000
"""In two thirds of the cases a backend of the right space is there to answer."""


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


def embedding_spaces(
    say: Callable[[str], None], requests: int = ASKED_FOR_VECTORS, *, fault: bool = False
) -> dict[str, Measurement]:
    """Ask for embeddings on every way and in every state of the backends. It is void if a space is never served.
    `fault`: all backends claim the same space."""
    seen = asyncio.run(try_spaces(requests, fault=fault))
    if idle := set(SPACES.values()) - seen.served.keys():
        return {EMBEDDING_SPACES: not_measured(f"no vector of the spaces {sorted(idle)} was served")}
    if not seen.cached:
        return {EMBEDDING_SPACES: not_measured("the cache gave no answer")}
    for mixed in seen.mixed[:20]:
        say(f"  {mixed}")
    details = {
        "mixed": seen.mixed[:20],
        "requests": seen.requests,
        "from_the_cache": seen.cached,
        "vectors_by_space": {str(space): count for space, count in sorted(seen.served.items())},
        "refused_by_status": {str(status): count for status, count in sorted(seen.refused.items())},
    }
    return {EMBEDDING_SPACES: Measurement(len(seen.mixed), seen.served.total(), details)}


def open_s1(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Run the tests of every severe finding of the security review."""
    left = open_findings(say)
    details = {"open": left, "tests": {finding.name: list(finding.tests) for finding in findings()}}
    return {OPEN_S1: Measurement(len(left), len(findings()), details)}
