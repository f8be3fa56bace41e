"""A frozen value: equal and hashed by its fields, and nobody gets an assignment past the type checker."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from mypy import api

from spillway_router.core.frozen import dataclass

ASSIGNS = """
from spillway_router.core.routing.model import Refusal

refusal = Refusal(503, "no_backend", "")
refusal.status = 200
"""


@dataclass(frozen=True, slots=True)
class Money:
    nano: int
    name: str = ""


def test_it_is_a_value() -> None:
    assert Money(1) == Money(1) != Money(2)
    assert len({Money(1), Money(1), Money(1, "a")}) == 2
    assert replace(Money(1), nano=2) == Money(2)
    assert [f.name for f in fields(Money)] == ["nano", "name"]


def test_it_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError):
        Money(1).other = 2  # type: ignore[attr-defined]


def test_one_that_is_not_frozen_is_not_hashed() -> None:
    @dataclass(slots=True)
    class Counter:
        count: int = 0

    with pytest.raises(TypeError, match="unhashable"):
        hash(Counter())


def test_the_type_checker_refuses_an_assignment(tmp_path: Path) -> None:
    source = tmp_path / "assigns.py"
    source.write_text(ASSIGNS, "utf-8")
    out, _, status = api.run(["--cache-dir", str(tmp_path / "cache"), str(source)])
    assert status == 1
    assert 'Property "status" defined in "Refusal" is read-only' in out
