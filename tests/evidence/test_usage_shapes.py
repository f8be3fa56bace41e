"""The evidence of usage shapes in a short run: every shape through a router, and a seeded fault that falls short."""

from __future__ import annotations

import asyncio
from pathlib import Path

from evidence.measures_usage import USAGE_SHAPES, usage_shapes
from evidence.money.usage_shapes import load_cases, shape_count
from evidence.money.usage_trial import usage_trial
from evidence.promises import load_promises
from evidence.results import Circumstances, judge

TAKEN = Circumstances("make evidence ONLY=money.usage", "2026-01-01T00:00:00Z", {}, {})
CASES = load_cases()
QUICK = [case for case in CASES if not (case.stream and case.expected.estimated)]
"""A stream without a certain usage is read on for half a second."""


def _quiet(_line: str) -> None:
    """Print nothing."""


def test_the_rows_of_every_shape_are_right(tmp_path: Path) -> None:
    wrong = asyncio.run(usage_trial(tmp_path, QUICK))
    assert not wrong, "\n".join(map(str, wrong))


def test_every_row_has_a_source_and_an_own_name() -> None:
    assert shape_count(CASES) >= load_promises()[USAGE_SHAPES].min_n
    for case in CASES:
        assert case.source.removeprefix("own: ").startswith("https://"), case.name
    names = [(case.name, case.stream) for case in CASES]
    assert len(set(names)) == len(names)


def test_a_router_that_knows_no_dialects_falls_short() -> None:
    measurement = usage_shapes(_quiet, QUICK, fault=True)[USAGE_SHAPES]
    assert not judge(load_promises()[USAGE_SHAPES], measurement, TAKEN).holds
    assert measurement.value is not None
    assert 0.5 < measurement.value < 1
