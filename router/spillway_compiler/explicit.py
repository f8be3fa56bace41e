"""Dataclasses as mypyc can compile them: their `__init__` written out.

mypyc compiles the class body it reads, but the `__init__` of a dataclass is made at run time by the standard library,
so it would run interpreted: for some twenty values per request. The standard library leaves an `__init__` alone that
the class has already, so writing it into the body is enough; equality, hash, `repr` and `replace` stay its own.
`slots` has to go: a compiled class has no dictionary anyway, and the decorator would make a second, ordinary class. And
`frozen` becomes the hash that it stands for: the type checker has seen to the rest by then (core/frozen.py).

The `__init__` takes the place of the blank line behind the last field, on one line, so that line numbers in tracebacks
are those of the source.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass


class CannotWriteOutError(Exception):
    """A dataclass uses something that isn't known here; the message names the class, the field and what to do."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    annotation: str
    default: str = ""
    """Expression of the default; empty if there is none."""
    factory: str = ""
    """Expression of the default factory; empty if there is none."""

    @property
    def parameter(self) -> str:
        if self.factory:
            return f"{self.name}: {self.annotation} | None = None"
        return f"{self.name}: {self.annotation}" + (f" = {self.default}" if self.default else "")

    @property
    def assignment(self) -> str:
        made = f" if {self.name} is not None else ({self.factory})()" if self.factory else ""
        return f"self.{self.name} = {self.name}{made}"


def written_out(source: str) -> str:
    """The module's source with an `__init__` in every dataclass at its top level; the same number of lines.

    Raises `CannotWriteOutError`.
    """
    lines = source.split("\n")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "dataclass":
                    _write_out(node, decorator, lines)
    return "\n".join(lines)


def _write_out(node: ast.ClassDef, decorator: ast.Call, lines: list[str]) -> None:
    """Change the lines of one dataclass."""
    if unknown := {str(option.arg) for option in decorator.keywords} - {"frozen", "slots"}:
        raise CannotWriteOutError(
            f"{node.name}: teach router/spillway_compiler/explicit.py the option {', '.join(unknown)}"
        )
    frozen = any(option.arg == "frozen" and ast.unparse(option.value) == "True" for option in decorator.keywords)
    lines[decorator.lineno - 1] = f"@dataclass(unsafe_hash={frozen})"
    stated = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    if not stated or any(isinstance(part, ast.FunctionDef) and part.name == "__init__" for part in node.body):
        return
    fields = [field for part in stated if (field := _field(node, part))]
    body = [field.assignment for field in fields]
    if any(isinstance(part, ast.FunctionDef) and part.name == "__post_init__" for part in node.body):
        body.append("self.__post_init__()")
    parameters = ", ".join(["self", *(field.parameter for field in fields)])
    lines[_blank_behind(node, stated[-1], lines)] = f"    def __init__({parameters}) -> None: {'; '.join(body)}"


def _field(node: ast.ClassDef, stated: ast.AnnAssign) -> _Field | None:
    """None for a field that `__post_init__` sets."""
    name, annotation = ast.unparse(stated.target), ast.unparse(stated.annotation)
    value = stated.value
    if annotation.startswith("ClassVar"):
        raise CannotWriteOutError(f"{node.name}.{name}: teach router/spillway_compiler/explicit.py class variables")
    if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "field"):
        return _Field(name, annotation, ast.unparse(value) if value is not None else "")
    given = {option.arg: ast.unparse(option.value) for option in value.keywords}
    if given.get("init") == "False" and not given.keys() & {"default", "default_factory"}:
        return None
    factory = given.get("default_factory", "")
    if "init" in given or (factory and "None" in annotation):
        raise CannotWriteOutError(f"{node.name}.{name}: teach router/spillway_compiler/explicit.py this field()")
    return _Field(name, annotation, given.get("default", ""), factory)


def _blank_behind(node: ast.ClassDef, last: ast.AnnAssign, lines: list[str]) -> int:
    """Index of the first blank line behind the last field and its docstring; the formatter leaves one there."""
    at = last.end_lineno or 0
    for part in node.body:
        if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and part.lineno > at:
            at = part.end_lineno or at
            break
        if part.lineno > at:
            break
    while lines[at].strip():
        at += 1
    return at
