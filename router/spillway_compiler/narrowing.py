"""Find places in the compiled modules where mypyc would believe in a type that is no longer true.

mypy narrows the type of an attribute after a test and keeps it until the attribute is assigned in the same function.
That is wrong when the function waits or calls what assigns the attribute. Interpreted, nothing happens; mypyc casts to
the narrowed type and raises a TypeError (`None object expected; got str`), in the middle of a request.

    while self.flaw is None:              # narrowed to None from here on
        await response.stream_to(...)     # assigns self.flaw
        return self.flaw or ...           # the compiled code demands None here

The cure is a local: `flaw = self.flaw` after the wait. Reported are attributes whose annotation is a union, which the
region of a test reads again after an `await`, or after a call of a function that assigns an attribute of that name.
Reported too is a name that two `except` clauses of one function bind: mypyc gives it the type of the first.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_NOT_ENTERED = (*_FUNCTIONS, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One place; `line` is where the outdated type is used."""

    module: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What all modules together say of attributes, by name."""

    unions: frozenset[str]
    """Those with an annotation that is a union."""
    assigned: frozenset[str]
    """Those that a function other than a constructor assigns."""
    assigners: Mapping[str, frozenset[str]]
    """Function name -> attributes that a function of this name assigns, itself or through functions it calls."""


def findings(sources: Mapping[str, str]) -> list[Finding]:
    """Return the places in these modules (name -> source), in order."""
    trees = {name: ast.parse(source) for name, source in sources.items()}
    attributes = _attributes(trees.values())
    places = set()
    for module, tree in trees.items():
        for function in ast.walk(tree):
            if isinstance(function, _FUNCTIONS):
                walk = _Walk(module, attributes)
                walk.statements(function.body, {})
                places |= walk.found | set(_names_bound_twice(module, function))
    return sorted(places)


def _attributes(trees: Iterable[ast.Module]) -> Attributes:
    unions: set[str] = set()
    assigned: set[str] = set()
    direct: dict[str, set[str]] = {}
    calls: dict[str, set[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and _is_union(node.annotation):
                target = node.target
                unions.add(target.attr if isinstance(target, ast.Attribute) else ast.unparse(target))
            if isinstance(node, _FUNCTIONS):
                stores = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and not _is_read(n)}
                if node.name != "__init__":
                    assigned |= stores
                    direct.setdefault(node.name, set()).update(stores)
                    calls.setdefault(node.name, set()).update(
                        _called(n) for n in ast.walk(node) if isinstance(n, ast.Call)
                    )
    return Attributes(frozenset(unions), frozenset(assigned), _closed(direct, calls))


def _closed(direct: Mapping[str, set[str]], calls: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    """Return the attributes that each function assigns, with those of the functions that it calls."""
    result = {name: set(stores) for name, stores in direct.items()}
    changed = True
    while changed:
        changed = False
        for name, called in calls.items():
            more = set().union(*(result.get(other, ()) for other in called))
            if not more <= result[name]:
                result[name] |= more
                changed = True
    return {name: frozenset(stores) for name, stores in result.items()}


def _is_union(annotation: ast.expr) -> bool:
    return any(isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) for node in ast.walk(annotation)) and (
        isinstance(annotation, ast.BinOp)
    )


def _is_read(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Load)


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)


_State = dict[str, str]
"""Attribute expression that a test narrowed -> what happened since; empty: nothing yet."""


class _Walk:
    """Follows one function in the order of its statements."""

    def __init__(self, module: str, attributes: Attributes) -> None:
        self._module = module
        self._attributes = attributes
        self.found: set[Finding] = set()

    def statements(self, body: Iterable[ast.stmt], state: _State) -> _State:
        """Follow statements from this state; return the state after them."""
        for statement in body:
            state = self._statement(statement, state)
        return state

    def _statement(self, node: ast.stmt, state: _State) -> _State:
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            return state
        if isinstance(node, ast.If):
            state = self._expression(node.test, state)
            narrowed = self._narrowed(node.test, state)
            after = [self.statements(node.body, narrowed), self.statements(node.orelse, narrowed)]
            ends = [_ends(node.body), _ends(node.orelse)]
            kept = [s for s, end in zip(after, ends, strict=True) if not end]
            # A branch that ends leaves the other one's narrowing in force; two that go on join to the type before.
            return (kept[0] if any(ends) else _joined(state, after)) if kept else {}
        if isinstance(node, ast.While):
            state = self._expression(node.test, state)
            self.statements(node.body, self._narrowed(node.test, state))
            return self._after_waits(node, state)
        if isinstance(node, ast.For | ast.AsyncFor):
            state = self._expression(node.iter, state)
            return _joined(state, [self.statements(node.body, dict(state))])
        if isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                state = self._expression(item.context_expr, state)
            if isinstance(node, ast.AsyncWith):
                state = self._waited(state)
            return self.statements(node.body, state)
        if isinstance(node, ast.Try):
            before = dict(state)
            state = self.statements(node.body, state)
            for handler in node.handlers:
                self.statements(handler.body, dict(before))
            return self.statements([*node.orelse, *node.finalbody], state)
        if isinstance(node, ast.Assert):
            state = self._expression(node.test, state)
            return self._narrowed(node.test, state)
        return self._simple(node, state)

    def _simple(self, node: ast.stmt, state: _State) -> _State:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for value in ast.iter_child_nodes(node):
            if isinstance(value, ast.expr) and value not in targets:
                state = self._expression(value, state)
        stored = {ast.unparse(n) for t in targets for n in ast.walk(t) if isinstance(n, ast.Attribute | ast.Name)}
        return {key: why for key, why in state.items() if not _depends(key, stored)}

    def _expression(self, node: ast.AST, state: _State) -> _State:
        """Follow an expression in the order of evaluation: report outdated reads, note waits and calls."""
        if isinstance(node, ast.Lambda):
            return state
        if isinstance(node, ast.BoolOp):
            before = dict(state)
            for value in node.values:
                state = self._expression(value, state)
                state = self._narrowed(value, state)
            return {key: state.get(key, why) for key, why in before.items()}
        if isinstance(node, ast.IfExp):
            state = self._expression(node.test, state)
            narrowed = self._narrowed(node.test, state)
            return _joined(state, [self._expression(node.body, narrowed), self._expression(node.orelse, narrowed)])
        for child in ast.iter_child_nodes(node):
            state = self._expression(child, state)
        if isinstance(node, ast.Attribute) and _is_read(node) and (why := state.get(ast.unparse(node))):
            self.found.add(Finding(self._module, node.lineno, f"{ast.unparse(node)} was tested before {why}"))
        if isinstance(node, ast.Await):
            return self._waited(state)
        if isinstance(node, ast.Call):
            return self._called(node, state)
        return state

    def _waited(self, state: _State) -> _State:
        return {
            key: why or ("an await" if _attribute(key) in self._attributes.assigned else "")
            for key, why in state.items()
        }

    def _called(self, call: ast.Call, state: _State) -> _State:
        name = _called(call)
        assigns = self._attributes.assigners.get(name, frozenset())
        return {key: why or (f"a call of {name}" if _attribute(key) in assigns else "") for key, why in state.items()}

    def _after_waits(self, node: ast.While, state: _State) -> _State:
        return self._waited(state) if any(isinstance(n, ast.Await) for n in ast.walk(node)) else state

    def _narrowed(self, test: ast.expr, state: _State) -> _State:
        """Return the state in which a test's attributes count as freshly tested."""
        fresh = {ast.unparse(node): "" for node in _tested(test) if node.attr in self._attributes.unions}
        return {**state, **fresh}


def _tested(test: ast.expr) -> Iterator[ast.Attribute]:
    """Yield the attributes that a test narrows."""
    if isinstance(test, ast.Attribute):
        yield test
    elif isinstance(test, ast.UnaryOp):
        yield from _tested(test.operand)
    elif isinstance(test, ast.BoolOp):
        for value in test.values:
            yield from _tested(value)
    elif isinstance(test, ast.Compare):
        for side in (test.left, *test.comparators):
            yield from _tested(side)
    elif isinstance(test, ast.Call) and _called(test) in ("isinstance", "type"):
        yield from _tested(test.args[0])


def _joined(before: _State, after: Iterable[_State]) -> _State:
    """Return the state where branches meet: what was narrowed before, and what happened in any branch."""
    return {
        key: why or next((state[key] for state in after if state.get(key)), "")
        for key, why in before.items()
        if all(key in state for state in after)
    }


def _depends(key: str, stored: set[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in stored)


def _attribute(key: str) -> str:
    return key.rpartition(".")[2]


def _ends(body: list[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function without those of functions inside it."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, _NOT_ENTERED):
            yield from _own(child)


def _names_bound_twice(module: str, function: ast.AST) -> Iterator[Finding]:
    types: dict[str, str] = {}
    for node in _own(function):
        if isinstance(node, ast.ExceptHandler) and node.name and node.type is not None:
            caught = ast.unparse(node.type)
            if types.setdefault(node.name, caught) != caught:
                yield Finding(
                    module, node.lineno, f"{node.name} is bound to {types[node.name]} above, to {caught} here"
                )
