"""Write out what mypyc needs to compile a module well: the `__init__` of dataclasses, and which names are constants.

mypyc compiles the class body that it reads, but the standard library makes the `__init__` of a dataclass at run time,
so it would run interpreted, for some twenty values per request. The standard library leaves an existing `__init__`
alone, so writing one into the body is enough; equality, hash, `repr` and `replace` remain the standard library's.
`slots` has to go: a compiled class has no dictionary anyway, and the decorator would make a second, ordinary class.
`@fast_frozen` becomes a dataclass with the hash of a frozen one, as at run time without compilation (core/frozen.py).

A name in capitals that is assigned once, at the top level, is marked as `Final`. Compiled code then reads it, also from
other compiled modules, out of a C variable. Otherwise it would look it up in the module's dictionary each time, which a
short request did some hundred times.

The `__init__` replaces the blank line after the last field and stands on one line, so that line numbers in tracebacks
are those of the source.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

DECORATORS = ("dataclass", "fast_frozen")
_FROZEN_MODULE = "spillway_router.core.frozen"
REPLACED_BY_TESTS = frozenset({"FIRST_BYTE_S", "LINGER_S"})
"""Constants that stay variables, because a test replaces them."""
_TYPE_MAKERS = frozenset({"TypeVar", "NewType", "ParamSpec"})
_FINAL = "_Final"
_UNSUPPORTED = "router/spillway_compiler/explicit.py does not support"


class CannotWriteOutError(Exception):
    """A dataclass uses a feature that this module does not support; the message names class and field, and the fix."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    annotation: str
    default: str = ""
    """Source of the default; empty if there is none."""
    factory: str = ""
    """Source of the default factory; empty if there is none."""

    @property
    def parameter(self) -> str:
        if self.factory:
            return f"{self.name}: {self.annotation} | None = None"
        return f"{self.name}: {self.annotation}" + (f" = {self.default}" if self.default else "")

    @property
    def assignment(self) -> str:
        fallback = f" if {self.name} is not None else ({self.factory})()" if self.factory else ""
        return f"self.{self.name} = {self.name}{fallback}"


def written_out(source: str) -> str:
    """Return the module's source with an `__init__` in every dataclass at its top level, and its constants marked; the
    line count stays the same.

    Raises `CannotWriteOutError` for a dataclass that it can't write out.
    """
    lines = source.split("\n")
    body = ast.parse(source).body
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module == _FROZEN_MODULE:
            lines[node.lineno - 1] = "from dataclasses import dataclass as fast_frozen"
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in DECORATORS:
                    _write_out(node, decorator, lines)
    _mark_constants(body, lines)
    return "\n".join(lines)


def _mark_constants(body: list[ast.stmt], lines: list[str]) -> None:
    """Mark the constants of a module as `Final` in `lines`. `Final` is imported on the line of the first import."""
    assigned: dict[str, list[ast.Assign | ast.AnnAssign]] = {}
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for part in (part for target in targets for part in ast.walk(target)):
                if isinstance(part, ast.Name):
                    assigned.setdefault(part.id, []).append(node)
    changed = {name for part in body for node in ast.walk(part) if isinstance(node, ast.Global) for name in node.names}
    marked = False
    for name, nodes in assigned.items():
        if name.isupper() and len(nodes) == 1 and name not in changed and name not in REPLACED_BY_TESTS:
            marked |= _mark_constant(name, nodes[0], lines)
    if marked:
        first = next(node for node in body if isinstance(node, ast.Import | ast.ImportFrom) and not _is_future(node))
        lines[first.lineno - 1] = f"from typing import Final as {_FINAL}; {lines[first.lineno - 1]}"


def _is_future(node: ast.Import | ast.ImportFrom) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _mark_constant(name: str, node: ast.Assign | ast.AnnAssign, lines: list[str]) -> bool:
    """Mark one constant; return False for a type, and for what is assigned together with others.

    A tuple of known length is left alone: as a constant it would be one C variable per item, from which a tuple is made
    at each use.
    """
    value = node.value
    if value is None or (isinstance(value, ast.Call) and ast.unparse(value.func) in _TYPE_MAKERS):
        return False
    if isinstance(value, ast.Tuple) and isinstance(node, ast.Assign):
        return False
    line = lines[node.lineno - 1]
    if isinstance(node, ast.AnnAssign):
        annotation = ast.unparse(node.annotation)
        if "Final" in annotation or node.annotation.lineno != node.annotation.end_lineno:
            return False
        start, end = node.annotation.col_offset, node.annotation.end_col_offset
        lines[node.lineno - 1] = f"{line[:start]}{_FINAL}[{line[start:end]}]{line[end:]}"
        return True
    if len(node.targets) > 1 or not isinstance(node.targets[0], ast.Name):
        return False
    lines[node.lineno - 1] = f"{name}: {_FINAL}{line[len(name) :]}"
    return True


def _write_out(node: ast.ClassDef, decorator: ast.Call, lines: list[str]) -> None:
    """Change the lines of one dataclass in `lines`."""
    name = ast.unparse(decorator.func)
    if unknown := {str(option.arg) for option in decorator.keywords} - {"frozen", "slots"}:
        raise CannotWriteOutError(f"{node.name}: {_UNSUPPORTED} the option {', '.join(unknown)}")
    frozen = any(option.arg == "frozen" and ast.unparse(option.value) == "True" for option in decorator.keywords)
    lines[decorator.lineno - 1] = f"@{name}(unsafe_hash={frozen})"
    annotated = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    if not annotated or any(isinstance(part, ast.FunctionDef) and part.name == "__init__" for part in node.body):
        return
    fields = [field for part in annotated if (field := _field(node, part))]
    body = [field.assignment for field in fields]
    if any(isinstance(part, ast.FunctionDef) and part.name == "__post_init__" for part in node.body):
        body.append("self.__post_init__()")
    parameters = ", ".join(["self", *(field.parameter for field in fields)])
    lines[_blank_line_after(node, annotated[-1], lines)] = f"    def __init__({parameters}) -> None: {'; '.join(body)}"


def _field(node: ast.ClassDef, assignment: ast.AnnAssign) -> _Field | None:
    """Return the field, or None for one that `__post_init__` sets."""
    name, annotation = ast.unparse(assignment.target), ast.unparse(assignment.annotation)
    value = assignment.value
    if annotation.startswith("ClassVar"):
        raise CannotWriteOutError(
            f"{node.name}.{name}: router/spillway_compiler/explicit.py does not support class variables yet"
        )
    if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "field"):
        return _Field(name, annotation, ast.unparse(value) if value is not None else "")
    options = {option.arg: ast.unparse(option.value) for option in value.keywords}
    if options.get("init") == "False" and not options.keys() & {"default", "default_factory"}:
        return None
    factory = options.get("default_factory", "")
    if "init" in options or (factory and "None" in annotation):
        raise CannotWriteOutError(
            f"{node.name}.{name}: router/spillway_compiler/explicit.py does not support this field() yet"
        )
    return _Field(name=name, annotation=annotation, default=options.get("default", ""), factory=factory)


def _blank_line_after(node: ast.ClassDef, last: ast.AnnAssign, lines: list[str]) -> int:
    """Return the index of the first blank line after the last field and its docstring; the formatter leaves one."""
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
