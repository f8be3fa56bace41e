"""What is wrong with the value of a setting, in words of our own with a fix, from what pydantic finds.

A value is repeated only where it looks like a number, a name of a backend, or nothing at all: others may be secrets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from functools import cache
from typing import Any, Final

from spillway_router.config.settings import Settings
from spillway_router.config.yaml_faults import shown_name

Path = tuple[str | int, ...]

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""The names of backends and other things that the configuration names."""
_NUMBER: Final = re.compile(r"(?P<sign>[$€£]?)\s*(?P<digits>[-+]?\d[\d.,]{0,20})\s*(?P<unit>[A-Za-z%$€£]{0,8})")
_UNIT_MS: Final = {"ms": 1, "s": 1000, "sec": 1000, "seconds": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000}
_NAME_START: Final = re.compile(r"^[^A-Za-z0-9]+")
_NOT_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")
_NUMBERS: Final = frozenset({"decimal", "float", "int", "finite_number"})
_MOST_LISTED: Final = 12
"""The settings of a group are listed if they are not more than these."""
_LISTS: Final = frozenset({"tuple_type", "list_type", "set_type", "frozen_set_type"})
_MAPPINGS: Final = frozenset({"model_type", "dict_type", "mapping_type", "model_attributes_type"})


def close_name(name: str, names: Iterable[str]) -> str:
    """Return the one of `names` that somebody may have meant who wrote `name`, or ""."""
    return next(iter(get_close_matches(name, list(names), n=1, cutoff=0.6)), "")


def setting_fault(error: Mapping[str, Any]) -> str:
    """Return what is wrong and how to mend it, for one of the errors of pydantic's ValidationError."""
    kind, path, value, context = error["type"], tuple(error["loc"]), error.get("input"), error.get("ctx") or {}
    name = _last_name(path)
    if kind == "extra_forbidden":
        return _unknown(str(path[-1]), path[:-1])
    if kind == "missing":
        return "is missing; add it"
    if kind.partition("_")[0] in _NUMBERS or kind == "finite_number":
        return _no_number(kind, name, value)
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return _out_of_bounds(kind, value, context)
    if kind == "literal_error":
        return _no_choice(value, str(context["expected"]))
    if kind in _LISTS:
        return f"must be a list: put what stands there into brackets, as in {name}: [ONE, TWO]"
    if kind in _MAPPINGS:
        return _no_mapping(path, name, value)
    if kind == "string_type":
        return _no_text(name, value)
    if kind == "string_pattern_mismatch":
        return _odd_text(name, value, str(context["pattern"]))
    if kind.startswith("bool"):
        return f"must be true or false, as in {name}: true"
    if kind in ("string_too_short", "string_too_long", "too_short", "too_long"):
        return _wrong_length(kind, context)
    if kind.startswith("date"):
        return f'must be a day, as in {name}: "2026-11-20"'
    return str(error["msg"]).removeprefix("Value error, ")


def _last_name(path: Path) -> str:
    return next((shown_name(part) for part in reversed(path) if isinstance(part, str)), "setting")


def _unknown(name: str, parent: Path) -> str:
    names = _settings_at(parent)
    meant = close_name(name, names)
    if meant and shown_name(name) == name:
        return f"unknown setting; did you mean {meant}?"
    of = f" of {_last_name(parent)}" if parent else ""
    listed = f" The settings{of} are {', '.join(names)}." if names and len(names) <= _MOST_LISTED else ""
    return (
        f"unknown setting; check the spelling or remove it.{listed}"
        if listed
        else ("unknown setting; check the spelling or remove it")
    )


@cache
def _schema() -> Mapping[str, Any]:
    return Settings.model_json_schema()


def _settings_at(path: Path) -> tuple[str, ...]:
    """Return the names of the settings that may stand at a path, in the order of the schema; () if they are any."""
    nodes: list[Mapping[str, Any]] = [_schema()]
    for part in path:
        nodes = [inner for node in nodes for inner in _inside(node, part)]
    return tuple(dict.fromkeys(name for node in nodes for name in node.get("properties", {})))


def _inside(node: Mapping[str, Any], part: str | int) -> list[Mapping[str, Any]]:
    """Return the alternatives for what stands at one part of a path, with references resolved."""
    if isinstance(part, int):
        inner = node.get("items")
    else:
        extra = node.get("additionalProperties")
        inner = node.get("properties", {}).get(part) or (extra if isinstance(extra, dict) else None)
    return [] if inner is None else _alternatives(inner)


def _alternatives(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "$ref" in node:
        return _alternatives(_schema()["$defs"][str(node["$ref"]).rpartition("/")[2]])
    if "anyOf" in node:
        return [one for inner in node["anyOf"] for one in _alternatives(inner)]
    return [node]


def _no_number(kind: str, name: str, value: Any) -> str:
    """Say how to write a number that has a unit, a currency or a comma."""
    whole = kind.startswith("int")
    example = "3" if whole else '"1.39"' if kind.startswith("decimal") else "2.5"
    written = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if whole and isinstance(value, float) and math.isfinite(value):
        return f"must be a whole number, as in {name}: {int(value)}"
    if written is None:
        return f"must be a {'whole ' * whole}number, as in {name}: {example}"
    number = _plain_number(written["digits"])
    if number is None:
        return f"must be a number with a point and no other signs, as in {name}: {example}"
    unit = written["unit"].lower()
    if written["sign"] or unit in ("$", "€", "£", "usd", "eur"):
        return f'must be a number without a currency: write {name}: "{number}". Amounts are US dollars'
    if unit == "%":
        share = Decimal(number) / 100
        return f"must be a number without %: write {name}: {share.normalize():f} if it is a share"
    if unit:
        return _with_unit(name, number, unit)
    quotes = '"' if kind.startswith("decimal") else ""
    return f"must be written with a point: {name}: {quotes}{number}{quotes}"


def _plain_number(digits: str) -> str | None:
    """Return digits with a decimal comma or separators of thousands as YAML wants them; None if they are no number."""
    head, mark, tail = digits.rpartition(",")
    if mark and "." not in tail and len(tail) != 3:
        text = head.replace(".", "").replace(",", "") + "." + tail
    else:
        text = digits.replace(",", "")
    try:
        return str(Decimal(text))
    except InvalidOperation:
        return None


def _with_unit(name: str, number: str, unit: str) -> str:
    """Say which number to write instead of one with a unit of time, where the setting's name ends in its unit."""
    own = name.rpartition("_")[2]
    if unit in _UNIT_MS and own in _UNIT_MS:
        meant = Decimal(number) * _UNIT_MS[unit] / _UNIT_MS[own]
        return f"is a number of {own}, without its unit: write {name}: {meant.normalize():f}"
    return f"must be a number without its unit: write {name}: {number}"


def _out_of_bounds(kind: str, value: Any, context: Mapping[str, Any]) -> str:
    bound = next(iter(context.values()))
    words = {
        "greater_than": "above",
        "greater_than_equal": "at least",
        "less_than": "below",
        "less_than_equal": "at most",
    }[kind]
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = None
    if number is not None and not number.is_finite():
        number = None
    if kind.startswith("less") and bound == 1 and number is not None and 1 < number <= 100:
        return f"is a share and must be at most 1: write {number / 100:f} for {number:f}%"
    if kind.startswith("greater") and bound == 0 and number is not None and number < 0:
        return f"is negative and must be {words} 0: write {-number:f}, or remove it"
    return f"must be {words} {bound}; change it"


def _no_choice(value: Any, expected: str) -> str:
    choices = re.findall(r"'([^']*)'", expected) or [expected]
    meant = close_name(value, choices) if isinstance(value, str) else ""
    return f"use one of {', '.join(choices)}" + (f"; did you mean {meant}?" if meant else "")


def _no_mapping(path: Path, name: str, value: Any) -> str:
    names = _settings_at(path)
    if names[:1] == ("chain",) and path[:1] == ("aliases",):
        chain = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        named = [one for one in chain if isinstance(one, str) and not _NOT_NAME.search(one) and len(one) <= 64]
        return f"needs the word chain before its backends: write {name}: {{chain: [{', '.join(named) or 'NAME'}]}}"
    if names:
        return f"must be a mapping of settings, as in {name}: {{{names[0]}: VALUE}}; its settings are {_few(names)}"
    return f"must be a mapping, as in {name}: {{NAME: VALUE}}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


def _no_text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        words = "no, off and false" if not value else "yes, on and true"
        return f'must be text, and YAML reads {words} without quotes as a yes or no: put quotes around it, {name}: "no"'
    if isinstance(value, int | float):
        return f'must be text, and without quotes it is a number: put quotes around it, {name}: "…"'
    return f'must be text, as in {name}: "…"'


def _odd_text(name: str, value: Any, pattern: str) -> str:
    if name == "name" and isinstance(value, str):
        proposed = _NOT_NAME.sub("-", _NAME_START.sub("", value))[:64]
        shown = f": write {proposed}" if proposed and len(value) <= 64 else ""
        return f"may have letters, digits, '.', '_' and '-', begins with a letter or digit, and has at most 64{shown}"
    return f"must match {pattern}; change it"


def _wrong_length(kind: str, context: Mapping[str, Any]) -> str:
    least, most = context.get("min_length"), context.get("max_length")
    unit = "characters" if kind.startswith("string") else "entries"
    if least == 1:
        return "is empty; write something, or remove it"
    if least is not None:
        return f"must have at least {least} {unit}; add to it"
    return f"must have at most {most} {unit}; shorten it"
