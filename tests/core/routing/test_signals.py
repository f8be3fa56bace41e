"""Copies of a backend's signals."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from tests.core.scenes import IDLE

from spillway_router.core.routing.model import BackendSignals


def other(value: Any) -> Any:
    """Return another value of the same type, as the compiled class demands it."""
    changed: dict[type, Any] = {
        bool: value is not True, str: "down", float: 0.25, int: 7, tuple: ("x",), frozenset: frozenset({"tools"}),
    }  # fmt: skip
    return changed.get(type(value), value)


def test_signals_with_a_budget_keep_everything_else() -> None:
    named = {field.name: other(getattr(IDLE, field.name)) for field in fields(BackendSignals)}
    signals, used = replace(IDLE, **{**named, "engine_context_tokens": 9}), {("all", "day"): 0.5}
    assert signals != IDLE
    assert signals.with_budget(5, used) == replace(signals, headroom_nano=5, budget_used=used)
    assert signals.with_budget(None, None) == replace(signals, headroom_nano=None, budget_used=None)
