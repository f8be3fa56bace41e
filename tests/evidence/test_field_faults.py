"""The evidence of holds in a short run with a seeded fault: routers that hold too little are found out."""

from __future__ import annotations

from dataclasses import replace

from evidence.measures_fields import fields
from evidence.promises import load_promises
from evidence.results import Circumstances, judge

TAKEN = Circumstances("make evidence ONLY=money", "2026-01-01T00:00:00Z", {}, {})


def _quiet(_line: str) -> None:
    """Print nothing."""


def test_routers_that_believe_in_short_contexts_fall_short() -> None:
    measurement = fields(_quiet, 300, fault=True)["money.charged_above_hold"]
    promise = replace(load_promises()["money.charged_above_hold"], min_n=300)
    assert not judge(promise, measurement, TAKEN).holds
    assert measurement.value is not None
    assert measurement.value > 10
