"""Every usage shape through a router: the upstream answers with it, and the ledger's row is compared with the table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evidence.money.usage_shapes import FEES, FIELDS, MODEL, PATHS, PRICES, Expected, UsageCase
from spillway_router.ledger.entries import Entry
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.providers.usage import PLAIN
from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import Router, routing


@dataclass(frozen=True, slots=True)
class WrongRow:
    """A case whose row is not what the table says, and how."""

    case: UsageCase
    differences: tuple[str, ...]

    def __str__(self) -> str:
        way = "stream" if self.case.stream else "whole"
        return f"{self.case.path} {way}, {self.case.provider}, {self.case.name}: {'; '.join(self.differences)}"


async def usage_trial(folder: Path, cases: Sequence[UsageCase], *, fault: bool = False) -> list[WrongRow]:
    """Send one request per case, one after the other; return those whose row is wrong.

    `fault`: the router's catalogue says nothing about dialects.
    """
    wrong = []
    async with FaultUpstream() as upstream, routing(_settings(upstream.url, cases), folder) as router:
        if fault:
            for route in router.runtime.services.config().backend_routes.values():
                route.provider.entry = replace(route.provider.entry, usage=PLAIN)
        for case in cases:
            upstream.answer = case.answer
            differences = await _differences(router, case)
            if differences:
                wrong.append(WrongRow(case, tuple(differences)))
    return wrong


def _settings(url: str, cases: Sequence[UsageCase]) -> str:
    lines = ["backends:"]
    prices = {f"{name}_per_million": usd for name, usd in PRICES.items()}
    for name in dict.fromkeys(case.provider for case in cases):
        backend: dict[str, Any] = {"name": name, "provider": name, "base_url": url, "model": MODEL}
        if load_catalogue()[name].local:
            backend |= {"local": True}
        else:
            backend |= {"api_key": "k", "price": {**prices, "fees": dict(FEES)}, "max_output_tokens": 131_072}
        lines.append(f"  - {json.dumps(backend)}")
    return "\n".join([*lines, ""])


async def _differences(router: Router, case: UsageCase) -> list[str]:
    """Return how the row of one request differs from what is expected."""
    body = {"model": case.provider, **FIELDS[case.path], **({"stream": True} if case.stream else {})}
    reply = await router.post(body, PATHS[case.path])
    await router.until(lambda: bool(router.rows(reply)))
    router.forget_failures()
    rows = router.ledger.entries_of(reply.headers["x-request-id"])
    closing = router.rows(reply)
    if len(closing) != 1:
        return [f"{len(closing)} closing rows, status {reply.status_code}"]
    held_nano = sum(row.reserved_nano for row in rows if row.kind == "reserved")
    return list(_unlike(closing[0], held_nano, case.expected))


def _unlike(row: Entry, held_nano: int, expected: Expected) -> list[str]:
    if expected.estimated:
        return _unlike_estimate(row, held_nano, expected)
    values = {
        "prompt": (row.prompt_tokens, expected.prompt),
        "completion": (row.completion_tokens, expected.completion),
        "cached": (row.cached_tokens, expected.cached),
        "reasoning": (row.reasoning_tokens, expected.reasoning),
        "model": (row.model, expected.model),
        "status": (row.status, expected.status),
        "nano-dollars": (row.amount_nano, _charge_nano(row, held_nano, expected)),
    }
    return [f"{name} {is_} instead of {should}" for name, (is_, should) in values.items() if is_ != should]


def _unlike_estimate(row: Entry, held_nano: int, expected: Expected) -> list[str]:
    wrong = []
    if row.status != expected.status or row.at_most_nano != held_nano or row.estimated_nano != row.amount_nano:
        wrong.append(f"status {row.status}, at most {row.at_most_nano} of {held_nano} nano-dollars")
    if not max(1, expected.charge_nano) <= row.amount_nano <= held_nano:
        wrong.append(f"{row.amount_nano} nano-dollars, told were {expected.charge_nano}, held {held_nano}")
    if row.prompt_tokens < expected.prompt or row.completion_tokens < expected.completion:
        wrong.append(f"{row.prompt_tokens} and {row.completion_tokens} tokens are fewer than were told")
    return wrong


def _charge_nano(row: Entry, held_nano: int, expected: Expected) -> int:
    if row.local:
        return 0
    return held_nano if expected.status == "unknown" and not expected.above_hold else expected.charge_nano
