"""Copies of a backend's signals."""

from __future__ import annotations

from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

from tests.core.scenes import IDLE

from spillway_router.core.routing.model import BackendSignals


def test_signals_with_a_budget_keep_everything_else() -> None:
    named: dict[str, Any] = {field.name: f"a value of {field.name}" for field in fields(BackendSignals)}
    signals, used = replace(IDLE, **named), {("all", "day"): Decimal("0.5")}
    assert signals.with_budget(5, used) == replace(signals, headroom_nano=5, budget_used=used)
    assert signals.with_budget(None, None) == replace(signals, headroom_nano=None, budget_used=None)
