"""A fast frozen value is equal and hashed by its fields, and the type checker rejects every assignment to it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from mypy import api

from spillway_compiler.build import MODULES
from spillway_router.compiled import PACKAGE, source_of
from spillway_router.core.frozen import fast_frozen

ASSIGNS = """
from spillway_router.core.routing.model import Refusal

refusal = Refusal(503, "no_backend", "")
refusal.status = 200
"""


@fast_frozen(frozen=True, slots=True)
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


def test_a_mutable_class_is_rejected() -> None:
    with pytest.raises(TypeError, match="frozen classes only"):
        fast_frozen(frozen=False, slots=True)


def test_only_compiled_modules_use_it() -> None:
    """Everywhere else a frozen dataclass is the standard library's and is frozen at run time, too."""
    compiled = {source_of(module) for module in MODULES}
    for source in sorted(PACKAGE.rglob("*.py")):
        text = source.read_text("utf-8")
        if source not in compiled and source != source_of("core.frozen"):
            assert "fast_frozen" not in text, f"{source} is not compiled: use dataclasses.dataclass"


def test_the_type_checker_rejects_an_assignment(tmp_path: Path) -> None:
    source = tmp_path / "assigns.py"
    source.write_text(ASSIGNS, "utf-8")
    out, _, status = api.run(["--cache-dir", str(tmp_path / "cache"), str(source)])
    assert status == 1
    assert 'Property "status" defined in "Refusal" is read-only' in out
