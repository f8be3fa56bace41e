"""A dataclass behaves the same with its `__init__` written out."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from spillway_compiler.build import MODULES
from spillway_compiler.explicit import CannotWriteOutError, written_out
from spillway_router.compiled import source_of

SOURCE = '''\
from __future__ import annotations

from dataclasses import dataclass, field

from spillway_router.core.frozen import fast_frozen

START = 7


@fast_frozen(frozen=True, slots=True)
class Point:
    """Text, and a blank line before the fields.

    It stays.
    """

    x: int
    y: float = 0.5
    """Of the one."""
    names: list[str] = field(default_factory=list)
    """Of the other,
    over two lines."""
    hidden: bytes = field(default=b"", repr=False)
    made: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "made", START + self.x)


@dataclass(slots=True)
class Bare:
    count: int = START
'''


def run(source: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "spillway_router.core.frozen"}
    exec(source, namespace)
    return namespace


def test_every_way_to_construct_one_gives_the_same() -> None:
    before, after = run(SOURCE), run(written_out(SOURCE))
    for name, given in (("Point", (3,)), ("Point", (3, 1.5, ["a"], b"k")), ("Bare", ()), ("Bare", (1,))):
        one, other = before[name](*given), after[name](*given)
        assert repr(one) == repr(other)
        assert [getattr(one, f.name) for f in fields(one)] == [getattr(other, f.name) for f in fields(other)]
        assert other == after[name](*given)
    first, second = after["Point"](3), after["Point"](x=3, names=[])
    assert first == second
    assert first.names is not second.names, "each has its own list"
    assert after["Point"](4, 0.5, (), b"").__hash__() == after["Point"](4, 0.5, (), b"").__hash__()
    assert after["Bare"].__hash__ is None, "a class that is not frozen has no hash, as before"
    with pytest.raises(TypeError, match="'x'"):
        after["Point"]()


def test_lines_stay_where_they_are() -> None:
    after = written_out(SOURCE).split("\n")
    for number, line in enumerate(SOURCE.split("\n")):
        if line.strip() and not line.startswith(("@", "from ", "START")):
            assert after[number] == line


CONSTANTS = """\
from __future__ import annotations

from typing import (
    TypeVar,
)

LIMIT_S = 5.0
NAMES: frozenset[str] = frozenset(
    ("a", "b")
)
LINGER_S = 1.0
PAIR = (1, 2)
TWICE = 1
TWICE = 2
COUNT = 0
ONE = OTHER = 1
T = TypeVar("T")
table = {}


def count() -> None:
    global COUNT
    COUNT += 1
"""


def test_a_name_in_capitals_that_is_assigned_once_is_a_constant() -> None:
    after = written_out(CONSTANTS)
    marked = set(run(after)["__annotations__"])
    assert marked == {"LIMIT_S", "NAMES"}
    assert len(after.split("\n")) == len(CONSTANTS.split("\n"))
    assert "LIMIT_S: _Final = 5.0" in after
    assert "NAMES: _Final[frozenset[str]] = frozenset(" in after
    assert written_out("import a\n\nname = 1\n") == "import a\n\nname = 1\n", "nothing is imported for nothing"


def test_methods_keep_their_lines() -> None:
    method = run(written_out(SOURCE))["Point"].__post_init__
    assert method.__code__.co_firstlineno == SOURCE[: SOURCE.index("def __post")].count("\n") + 1


@pytest.mark.parametrize(
    ("fields_", "message"),
    [
        ("    x: int = field(init=False, default=1)", r"Odd\.x: .* does not support this field\(\)"),
        ("    x: int | None = field(default_factory=int)", r"Odd\.x: .* does not support this field\(\)"),
        ("    x: ClassVar[int] = 1", r"Odd\.x: .* does not support class variables"),
    ],
)
def test_an_unsupported_feature_is_rejected(fields_: str, message: str) -> None:
    with pytest.raises(CannotWriteOutError, match=message):
        written_out(f"@dataclass(slots=True)\nclass Odd:\n{fields_}\n\n\n")
    with pytest.raises(CannotWriteOutError, match="the option order"):
        written_out("@dataclass(order=True)\nclass Odd:\n    x: int\n\n\n")


@pytest.mark.parametrize("module", MODULES)
def test_every_compiled_module_can_be_written_out(module: str) -> None:
    source = source_of(module).read_text(encoding="utf-8")
    after = written_out(source)
    assert after.count("\n") == source.count("\n")
    assert after.count("    def __init__(self, ") >= source.count("    def __init__(self, ")
    compile(after, module, "exec")
