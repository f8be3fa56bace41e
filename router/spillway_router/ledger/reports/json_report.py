"""The report for programs: JSON with exact integer nano-dollars, and the same amounts as decimal text in USD."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from spillway_router.core.money.tariff import usd
from spillway_router.ledger.reports.model import Report


def report_json(report: Report) -> str:
    """Return the report as JSON text, in which every `*_nano` (integer) has a `*_usd` (decimal text) next to it."""
    return json.dumps(report_values(report), indent=2)


def report_values(report: Report) -> dict[str, Any]:
    """Return the report as JSON values."""
    values: dict[str, Any] = with_usd(asdict(report))
    return values


def with_usd(value: Any) -> Any:
    """Return JSON values in which every `*_nano` has its `*_usd` next to it."""
    if isinstance(value, dict):
        values: dict[str, Any] = {}
        for key, each in value.items():
            values[key] = with_usd(each)
            if key.endswith("_nano"):
                values[key.removesuffix("_nano") + "_usd"] = None if each is None else usd(each)
        return values
    if isinstance(value, (list, tuple)):
        return [with_usd(each) for each in value]
    return value
