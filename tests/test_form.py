"""The form of the tests: helpers lie outside of test modules, coroutine tests are plain, and nothing sleeps to wait.

The form of the code, everywhere: whoever constructs an object from five or more values passes them by keyword, and a
variable is named after what it holds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

from tests.sources import code

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
SLEEPERS = {
    "tests/deploy/clean_root.py": "polls a container from outside, bounded by a deadline",
    "tests/ledger/store/test_postgres.py": "polls the sessions of a PostgreSQL server, bounded by a deadline",
    "tests/loadtests/test_locust_runs.py": "polls the report that another process writes, bounded by a deadline",
}
"""Files that may call `time.sleep`, each with the reason: nothing in another process signals what they wait for."""
MOST_POSITIONAL = 4
POSITIONAL: dict[tuple[str, str], str] = {}
"""Classes constructed by position from more values: file, class and the reason."""

NO_NAMES = frozenset({"found", "known", "made", "told"})
"""Names that say how a value came about instead of what it is."""


def positional_constructions(tree: ast.Module, classes: Set[str]) -> Iterator[tuple[str, int]]:
    """Yield class and line of each construction of one of `classes` with too many values by position."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) > MOST_POSITIONAL:
            name = ast.unparse(node.func).split(".")[-1]
            if name in classes:
                yield name, node.lineno


def variables(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield name and line of each parameter and of each name that a function assigns."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for node in ast.walk(function):
                if isinstance(node, ast.arg):
                    yield node.arg, node.lineno
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id, node.lineno


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """Yield the full names that a module imports, members of packages included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def nested_mains(tree: ast.Module) -> Iterator[str]:
    """Yield the functions that define an `async def main` inside."""
    for outer in ast.walk(tree):
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = (node for node in ast.walk(outer) if isinstance(node, ast.AsyncFunctionDef) and node is not outer)
            if any(node.name == "main" for node in inner):
                yield outer.name


def calls_time_sleep(tree: ast.Module) -> bool:
    """Return whether a module calls `time.sleep` under this or its own name."""
    direct = any(name == "time.sleep" for name in imported_modules(tree))
    return direct or any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "sleep"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "time"
        for node in ast.walk(tree)
    )


def faults(name: str, source: str) -> Iterator[str]:
    """Yield what is wrong with the form of the test file `name`, one sentence each."""
    tree = ast.parse(source)
    for module in imported_modules(tree):
        package, *parts = module.split(".")
        if package == "tests" and any(part.startswith("test_") for part in parts):
            yield f"{name} imports {module}: move what it needs into a helper module"
    for outer in nested_mains(tree):
        yield f"{name}: {outer} defines `async def main`; make the test itself a coroutine"
    if calls_time_sleep(tree) and name not in SLEEPERS:
        yield f"{name} calls time.sleep; wait for an event, or add the file to SLEEPERS with its reason"


def test_the_tests_have_the_agreed_form() -> None:
    files = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(TESTS.rglob("*.py"))}
    assert [fault for name, source in files.items() for fault in faults(name, source)] == []


def test_every_exception_is_still_needed() -> None:
    assert [name for name in SLEEPERS if not calls_time_sleep(ast.parse((ROOT / name).read_text("utf-8")))] == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("from tests.proxy.test_sdk import chat", "move what it needs"),
        ("from tests.proxy import test_sdk", "move what it needs"),
        ("import tests.proxy.test_sdk", "move what it needs"),
        ("def test_it():\n    async def main(): ...\n    asyncio.run(main())", "make the test itself a coroutine"),
        ("import time\ntime.sleep(1)", "calls time.sleep"),
        ("from time import sleep\nsleep(1)", "calls time.sleep"),
    ],
)
def test_a_fault_in_the_form_is_noticed(source: str, words: str) -> None:
    """Seeded faults: the first test above can fail."""
    (fault,) = faults("tests/test_new.py", source)
    assert words in fault


def test_objects_of_many_values_are_constructed_by_keyword() -> None:
    trees = code()
    classes = {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    assert "Entry" in classes  # the search has not gone blind
    places = {
        (file, name): line for file, tree in trees.items() for name, line in positional_constructions(tree, classes)
    }
    assert [f"{file}:{places[file, name]} {name}" for file, name in places if (file, name) not in POSITIONAL] == []
    assert [place for place in POSITIONAL if place not in places] == []


@pytest.mark.parametrize(
    ("call", "lines"), [("Shape(1, 2, 3, 4)", []), ("Shape(1, 2, 3, 4, 5)", [1]), ("sizes.Shape(1, 2, 3, 4, n=5)", [])]
)
def test_a_construction_by_position_is_noticed(call: str, lines: list[int]) -> None:
    assert [line for _, line in positional_constructions(ast.parse(call), {"Shape"})] == lines


def test_variables_are_named_after_what_they_hold() -> None:
    names = ((file, name, line) for file, tree in code().items() for name, line in variables(tree))
    assert sorted({f"{file}:{line} {name}" for file, name, line in names if name in NO_NAMES}) == []


@pytest.mark.parametrize("source", ["def f():\n    found = 1", "def f(found): ...", "def f():\n    [a for found in a]"])
def test_a_variable_is_noticed(source: str) -> None:
    assert "found" in [name for name, _ in variables(ast.parse(source))]
