"""Find flaws in an answer without asking a model. The flaws, by name:

empty           there is no answer
json            the request asks for a schema, but the answer is not JSON
schema          the answer is JSON, but does not match the schema
not_in_source   a number of a JSON answer is nowhere in the prompt
rule            a value breaks a rule of the configuration

The schema check knows the keywords that structured output uses (type, properties, required, additionalProperties,
enum, const, items, anyOf, oneOf, allOf, bounds and lengths, local $ref) and ignores all others. It is our own because
it runs on the event loop, on schemas that clients send, and so it must count its steps: the jsonschema library needs
milliseconds to prepare a schema, and it applies `pattern`, which a client could make exponential. The engine's grammar
enforces patterns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spillway_router.core.confidence.json_values import Value

FATAL = frozenset({"empty", "json", "schema", "rule"})
"""Flaws that make an answer wrong whatever its tokens say."""
DEEPEST = 64
MOST_STEPS = 10_000
"""Steps of one check against a schema: parts of the schema met by a value, and names or constants compared with it."""
MOST_SEARCHED = 20_000_000
"""Characters of the source that are searched for one answer."""

_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


@dataclass(frozen=True, slots=True)
class ValueRule:
    """A rule of the configuration for one field, by JSON pointer: a regular expression that the whole value must match,
    bounds of a number, or that the value must be in the source. A null or missing value breaks no rule."""

    pointer: str
    pattern: str | None = None
    least: float | None = None
    most: float | None = None
    in_source: bool = False


def matches_schema(value: Any, schema: Any) -> bool:
    """Return whether a parsed JSON value matches `schema`. A check of more than MOST_STEPS steps says nothing against
    the value."""
    check = _SchemaCheck(schema)
    return check.matches(value, schema, 0) or check.steps > MOST_STEPS


class _SchemaCheck:
    """One check of a value against a schema, which counts its steps.

    References let a small schema ask for exponentially many steps, and an enum or a list of required names is compared
    with each value.
    """

    __slots__ = ("_root", "steps")

    def __init__(self, root: Any) -> None:
        self._root = root
        """The schema that local references point into."""
        self.steps = 0

    def matches(self, value: Any, schema: Any, depth: int) -> bool:
        """Return whether `value` matches the part `schema`; False in haste once there were too many steps."""
        if schema is True or not isinstance(schema, Mapping) or depth > DEEPEST:
            return schema is not False
        self.steps += 1 + _length(schema.get("enum")) + _length(schema.get("required"))
        if self.steps > MOST_STEPS:
            return False
        if "$ref" in schema:
            target = _referenced(schema["$ref"], self._root)
            if target is not None and not self.matches(value, target, depth + 1):
                return False
        return (
            _fits_kind(value, schema.get("type"))
            and _fits_constants(value, schema)
            and _fits_bounds(value, schema)
            and self._fits_branches(value, schema, depth + 1)
            and (not isinstance(value, dict) or self._fits_members(value, schema, depth + 1))
            and (not isinstance(value, list) or self._fits_items(value, schema, depth + 1))
        )

    def _fits_branches(self, value: Any, schema: Mapping[str, Any], depth: int) -> bool:
        some, one, every = schema.get("anyOf"), schema.get("oneOf"), schema.get("allOf")
        if isinstance(some, list) and not any(self.matches(value, s, depth) for s in some):
            return False
        if isinstance(one, list) and sum(self.matches(value, s, depth) for s in one) != 1:
            return False
        return not isinstance(every, list) or all(self.matches(value, s, depth) for s in every)

    def _fits_members(self, value: dict[str, Any], schema: Mapping[str, Any], depth: int) -> bool:
        required = schema.get("required")
        if isinstance(required, list) and not all(name in value for name in required if isinstance(name, str)):
            return False
        properties = schema.get("properties")
        named: Mapping[str, Any] = properties if isinstance(properties, Mapping) else {}
        rest = schema.get("additionalProperties", True) if "patternProperties" not in schema else True
        return all(self.matches(member, named.get(name, rest), depth) for name, member in value.items())

    def _fits_items(self, value: list[Any], schema: Mapping[str, Any], depth: int) -> bool:
        if "prefixItems" in schema or "items" not in schema:
            return True
        return all(self.matches(item, schema["items"], depth) for item in value)


def _length(names: Any) -> int:
    return len(names) if isinstance(names, list) else 0


def _referenced(reference: Any, root: Mapping[str, Any]) -> Any:
    """Return what a local reference (`#/$defs/name`) points to; None if it points elsewhere or nowhere."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    node: Any = root
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, Mapping) or name not in node:
            return None
        node = node[name]
    return node


def _fits_kind(value: Any, kind: Any) -> bool:
    kinds = [kind] if isinstance(kind, str) else kind
    return not isinstance(kinds, list) or any(not isinstance(name, str) or _is(value, name) for name in kinds)


def _is(value: Any, kind: Any) -> bool:
    if kind == "integer":
        return not isinstance(value, bool) and isinstance(value, int | float) and value == value // 1
    if kind == "number" and isinstance(value, bool):
        return False
    return kind not in _KINDS or isinstance(value, _KINDS[kind])


def _fits_constants(value: Any, schema: Mapping[str, Any]) -> bool:
    if "const" in schema and not _same(value, schema["const"]):
        return False
    allowed = schema.get("enum")
    return not isinstance(allowed, list) or any(_same(value, one) for one in allowed)


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _fits_bounds(value: Any, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (
            value >= _bound(schema, "minimum", value)
            and value <= _bound(schema, "maximum", value)
            and not value <= _bound(schema, "exclusiveMinimum", value - 1)
            and not value >= _bound(schema, "exclusiveMaximum", value + 1)
        )
    if isinstance(value, str | list | dict):
        unit = "Length" if isinstance(value, str) else "Items" if isinstance(value, list) else "Properties"
        size = len(value)
        return _bound(schema, f"min{unit}", size) <= size <= _bound(schema, f"max{unit}", size)
    return True


def _bound(schema: Mapping[str, Any], name: str, absent: float) -> float:
    bound = schema.get(name)
    return bound if isinstance(bound, int | float) and not isinstance(bound, bool) else absent


class PromptSource:
    """The text of a prompt, to look values up in. Once MOST_SEARCHED characters were searched, it knows of no text."""

    __slots__ = ("_numbers", "_prompt", "_searched", "_text")

    def __init__(self, text: str) -> None:
        self._prompt = text  # prepared on first use, since most answers have no values to look up
        self._text: str | None = None
        self._numbers: frozenset[str] = frozenset()
        self._searched = 0

    def contains(self, value: str | float | int | bool | None) -> bool | None:
        """Return whether a number or a text is in the prompt; None for values that need not be (null, booleans, "").

        A number counts in any notation: 23,4 in the prompt contains 23.40.
        """
        if value is None or isinstance(value, bool) or value == "":
            return None
        if self._text is None:
            self._text = " ".join(self._prompt.split()).casefold()
            self._numbers = frozenset(_plain(n.replace(",", ".")) for n in re.findall(r"\d+(?:[.,]\d+)*", self._text))
        if isinstance(value, str):
            self._searched += len(self._text)
            if self._searched > max(MOST_SEARCHED, len(self._text)):
                return None
            return " ".join(value.split()).casefold() in self._text
        return _plain(repr(abs(value))) in self._numbers


def _plain(number: str) -> str:
    """Return the number without leading and trailing zeros, so that 23.40 equals 23.4 and 007 equals 7."""
    whole, _, fraction = number.partition(".")
    fraction = fraction.rstrip("0")
    whole = whole.lstrip("0") or "0"
    return f"{whole}.{fraction}" if fraction else whole


def broken_rules(rules: Sequence[ValueRule], values: Sequence[Value], source: PromptSource) -> list[str]:
    """Return the pointers of the values that break a rule."""
    by_pointer = {value.pointer: value.value for value in values}
    return [rule.pointer for rule in rules if not _satisfies(rule, by_pointer.get(rule.pointer), source)]


def _satisfies(rule: ValueRule, value: str | float | int | bool | None, source: PromptSource) -> bool:
    if value is None:
        return True
    if rule.pattern is not None and re.fullmatch(rule.pattern, str(value)) is None:
        return False
    if rule.least is not None or rule.most is not None:
        if isinstance(value, bool | str):
            return False
        if value < (rule.least if rule.least is not None else value):
            return False
        if value > (rule.most if rule.most is not None else value):
            return False
    return not rule.in_source or source.contains(value) is not False
