"""The checker of types that mypyc goes on believing in: quiet on the compiled modules, and it finds seeded faults."""

from __future__ import annotations

import textwrap

import pytest

from spillway_compiler.build import MODULES, source_of
from spillway_compiler.narrowing import findings

CLASS = """
class Relay:
    def __init__(self) -> None:
        self.flaw: str | None = None
        self.plain = 0

    def _take(self) -> None:
        self.flaw = "bad"
        self.plain = 1

    def _indirect(self) -> None:
        self._take()

    async def method(self, other, sleep) -> str | None:
"""


def problems(body: str) -> list[str]:
    """Return what the checker says of a method with this body."""
    source = CLASS + textwrap.indent(textwrap.dedent(body), "        ")
    return [finding.problem for finding in findings({"seeded": source})]


def test_the_compiled_modules_believe_in_no_outdated_type() -> None:
    places = findings({module: source_of(module).read_text(encoding="utf-8") for module in MODULES})
    assert not places, "\n".join(map(str, places))


AFTER_AWAIT = "self.flaw was tested before an await"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        pytest.param("while self.flaw is None:\n    await sleep()\n    x = self.flaw or 1", AFTER_AWAIT, id="while"),
        pytest.param("if self.flaw is None:\n    await sleep()\n    return self.flaw", AFTER_AWAIT, id="if"),
        pytest.param("if self.flaw is None:\n    await sleep()\n    assert self.flaw", AFTER_AWAIT, id="another test"),
        pytest.param("if not self.flaw:\n    await sleep()\n    return self.flaw", AFTER_AWAIT, id="truth"),
        pytest.param(
            "if isinstance(self.flaw, str):\n    await sleep()\n    return self.flaw", AFTER_AWAIT, id="isinstance"
        ),
        pytest.param("if self.flaw == 'x':\n    await sleep()\n    return self.flaw", AFTER_AWAIT, id="equality"),
        pytest.param("assert self.flaw is None\nawait sleep()\nreturn self.flaw", AFTER_AWAIT, id="assert"),
        pytest.param("if self.flaw:\n    return None\nawait sleep()\nreturn self.flaw", AFTER_AWAIT, id="early return"),
        pytest.param("return self.flaw is None and await sleep() and self.flaw", AFTER_AWAIT, id="and"),
        pytest.param(
            "if self.flaw is None:\n    async with other:\n        return self.flaw", AFTER_AWAIT, id="async with"
        ),
        pytest.param(
            "if self.flaw:\n    try:\n        await sleep()\n    except OSError:\n        pass\n    x = self.flaw",
            AFTER_AWAIT,
            id="try",
        ),
        pytest.param(
            "if self.flaw is None:\n    self._take()\n    return self.flaw",
            "self.flaw was tested before a call of _take",
            id="call",
        ),
        pytest.param(
            "if self.flaw is None:\n    self._indirect()\n    return self.flaw",
            "self.flaw was tested before a call of _indirect",
            id="call of a caller",
        ),
        pytest.param(
            "try:\n    other()\nexcept ValueError as error:\n    pass\nexcept Exception as error:\n    pass",
            "error is bound to ValueError above, to Exception here",
            id="except",
        ),
    ],
)
def test_a_seeded_fault_is_found(body: str, problem: str) -> None:
    assert problems(body) == [problem]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("while self.flaw is None:\n    await sleep()\nreturn self.flaw", id="the loop's own test"),
        pytest.param(
            "if self.flaw is None:\n    await sleep()\n    self.flaw = None\n    return self.flaw", id="assigned"
        ),
        pytest.param("if self.flaw is None:\n    await sleep()\nreturn self.flaw", id="after the region"),
        pytest.param("flaw = self.flaw\nif flaw is None:\n    await sleep()\n    return flaw", id="a local"),
        pytest.param("if self.plain == 0:\n    await sleep()\n    return self.plain", id="not a union"),
        pytest.param("if self.flaw is None:\n    other.unrelated()\n    return self.flaw", id="a call that can't"),
        pytest.param(
            "try:\n    other()\nexcept ValueError as bad:\n    pass\nexcept OSError as broken:\n    pass", id="names"
        ),
    ],
)
def test_sound_code_is_left_alone(body: str) -> None:
    assert problems(body) == []
