"""The share of usage shapes that end in the right row of the ledger."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from evidence.money.usage_shapes import UsageCase, load_cases, shape_count
from evidence.money.usage_trial import usage_trial
from evidence.results import Measurement

USAGE_SHAPES = "money.usage_shapes_right"


def usage_shapes(
    say: Callable[[str], None], cases: Sequence[UsageCase] | None = None, *, fault: bool = False
) -> dict[str, Measurement]:
    """Answer a router's requests with every shape of the table, whole and as a stream, and compare counts, status,
    model and charge of the ledger's row. A shape is right if all of its rows are.

    `fault`: the router's catalogue says nothing about dialects.
    """
    cases = load_cases() if cases is None else cases
    with tempfile.TemporaryDirectory() as name:
        wrong = asyncio.run(usage_trial(Path(name), cases, fault=fault))
    for row in wrong:
        say(f"  {row}")
    shapes = shape_count(cases)
    sources = {case.source for case in cases if case.source.startswith("https://")}
    details = {
        "requests": len(cases),
        "streams": sum(case.stream for case in cases),
        "estimated": len({case.name for case in cases if case.expected.estimated}),
        "unknown": len({case.name for case in cases if case.expected.status == "unknown"}),
        "providers": dict(Counter(case.provider for case in cases)),
        "documents_and_issues": len(sources),
        "own_variations": len({case.name for case in cases if case.source.startswith("own:")}),
        "wrong": [str(row) for row in wrong],
    }
    share = 1 - shape_count([row.case for row in wrong]) / shapes
    return {USAGE_SHAPES: Measurement(share, shapes, details)}
