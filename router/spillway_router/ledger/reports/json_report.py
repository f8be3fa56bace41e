"""The report for programs: JSON with exact integer nano-dollars, and the same amounts as decimal text in USD."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

import orjson

from spillway_router.core.money.attribution import BreakEven
from spillway_router.core.money.tariff import usd
from spillway_router.ledger.reports.model import Report


def report_json(report: Report) -> str:
    """Return the report as JSON text, in which every `*_nano` (integer) has a `*_usd` (decimal text) next to it."""
    values = report_values(report)
    try:  # a report by key may have 10,000 groups, which the standard library writes ten times as slowly
        return orjson.dumps(values, option=orjson.OPT_INDENT_2).decode()
    except TypeError:  # an integer above 64 bits, or a lone surrogate
        return json.dumps(values, indent=2)


def report_values(report: Report) -> dict[str, Any]:
    """Return the report as JSON values."""
    values: dict[str, Any] = with_usd(report)
    return values


def report_of_values(values: Any) -> Report:
    """Return the report whose JSON values these are, such as a router sends them. Raises ValueError."""
    from pydantic import TypeAdapter  # only reports of other routers need it

    try:
        alternatives = [{**each, "break_even": BreakEven(**each["break_even"])} for each in values["alternatives"]]
    except (LookupError, TypeError) as error:
        raise ValueError(f"no alternatives of a report: {error}") from None
    # The compiled BreakEven doesn't say of what type its fields are, so that pydantic can't make one.
    return TypeAdapter(Report).validate_python({**values, "alternatives": alternatives})


def with_usd(value: Any) -> Any:
    """Return the JSON values of a dataclass, or of what holds some, in which every `*_nano` has its `*_usd` next to
    it."""
    if isinstance(value, (list, tuple)):
        return [with_usd(each) for each in value]
    members: Iterable[tuple[str, Any]]
    if isinstance(value, dict):
        members = value.items()
    elif is_dataclass(value) and not isinstance(value, type):
        members = [(name, getattr(value, name)) for name in _names(type(value))]
    else:
        return value
    values: dict[str, Any] = {}
    for key, each in members:
        values[key] = each if each is None or type(each) in _SCALARS else with_usd(each)
        if key.endswith("_nano"):
            values[key.removesuffix("_nano") + "_usd"] = None if each is None else usd(each)
    return values


_SCALARS = (int, str, float, bool)


@lru_cache(maxsize=128)
def _names(kind: type) -> tuple[str, ...]:
    return tuple([field.name for field in fields(kind)])
