"""Every field, part, tool and shape of request (field_cases.py) through two routers that share a ledger, 64 at once.

The providers behind them bill what their documentation says (documented.py). Caps for all, a backend, and every key are
so tight that some of them are reached. Then the rows are followed one by one (caps.py) and compared with the bill.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evidence.money.caps import CapWatch
from evidence.money.documented_provider import backends
from evidence.money.field_cases import CASES, FieldCase
from evidence.money.parts import LIMIT_S, ProviderProcess, start_router, stop_router, write_config
from spillway_router.ledger.entries import entry_of
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.ledger.verify import verify
from spillway_router.testing.processes import ROOT, STOP_LIMIT_S

AT_ONCE = 64
KEYS = 8
TIGHT_KEYS = 3
"""Keys whose own cap is reached early."""
NANO = 10**9
BUDGETS: Sequence[tuple[str, str, int]] = (
    ("all", "day", 2_000_000 * NANO),
    ("all", "hour", 2_000_000 * NANO),
    ("each key", "day", 300_000 * NANO),
    ("backend:tog", "hour", 40 * NANO),
)
"""Scope, period and limit. That of `backend:tog` is reached."""
TIGHT_LIMIT_NANO = 60 * NANO


@dataclass(slots=True)
class FieldTrial:
    """The result. `overspent_nano` is the largest excess over a cap: of what was held and spent, or of the bill."""

    requests: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    billed_calls: int = 0
    billed_usd: float = 0.0
    cases_billed: int = 0
    above_hold: int = 0
    overspent_nano: int = 0
    charged_unlike_billed: int = 0
    bills_without_hold: int = 0
    open_holds: int = 0
    verify_faults: int = 0
    unexpected: dict[str, int] = field(default_factory=dict)
    """Cases whose status was another than expected, with their number."""
    peak_share: float = 0.0
    per_s: int = 0


@contextmanager
def documented_providers(seed: int) -> Iterator[ProviderProcess]:
    """Run the process of the providers, and end it afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "evidence.money.documented_provider", str(seed)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        provider = ProviderProcess(process.stdout.readline().strip())
        try:
            yield provider
        finally:
            provider.close()
    finally:
        process.terminate()
        process.wait(STOP_LIMIT_S)
        process.stdout.close()


def field_trial(
    folder: Path, requests: int, seed: int, say: Callable[[str], None], *, fault: bool = False
) -> FieldTrial:
    """Send so many requests, drawn from the table. `fault`: the routers believe that no model has a long context, so
    that their holds are too low."""
    trial, url = FieldTrial(requests=requests), f"sqlite:///{folder / 'ledger.db'}"
    ledger = open_ledger(url)
    watch = CapWatch()
    try:
        tokens = _keys(ledger)
        with documented_providers(seed) as provider:
            rows = [{**row, **({"context_tokens": 100} if fault else {})} for row in backends(provider.url)]
            configs = [folder / f"router{number}.yaml" for number in (1, 2)]
            for config in configs:
                write_config(config, _settings(url, rows, tokens))
            routers = [start_router(config) for config in configs]
            try:
                started = time.monotonic()
                asyncio.run(_Sender([router.url for router in routers], list(tokens), trial, seed).send(requests))
                trial.per_s = int(requests / (time.monotonic() - started))
                say(f"  {trial.per_s} requests/s, {trial.statuses}")
            finally:
                for router in routers:
                    stop_router(router)
            for scope, period, nano in BUDGETS:
                watch.limits[scope, period] = nano
            for number, key_id in enumerate(tokens.values()):
                watch.limits[f"key:{key_id}", "day"] = TIGHT_LIMIT_NANO if number < TIGHT_KEYS else BUDGETS[2][2]
            _compare(ledger, watch, provider.bill(), trial)
        trial.verify_faults = verify(ledger).fault_count
    finally:
        ledger.close()
    return trial


def _keys(ledger: Ledger) -> dict[str, str]:
    """Create the keys; return id by token."""
    store = KeyStore(ledger.keys)
    now_ms = int(time.time() * 1000)
    created = [
        store.create(KeySpec(f"k{number}", "inference", ""), secrets.token_bytes(6), secrets.token_bytes(32), now_ms)
        for number in range(KEYS)
    ]
    return {key.token: key.record.id for key in created}


def _settings(url: str, rows: Sequence[dict[str, Any]], tokens: dict[str, str]) -> dict[str, Any]:
    own = [(f"key:{key_id}", "day", TIGHT_LIMIT_NANO) for key_id in list(tokens.values())[:TIGHT_KEYS]]
    caps = (*BUDGETS, *own)
    return {
        "ledger": {"url": url},
        "keys": {"required": True},
        "backends": list(rows),
        "budgets": [{"scope": scope, "period": period, "limit_usd": str(nano // NANO)} for scope, period, nano in caps],
    }


class _Sender:
    def __init__(self, urls: Sequence[str], tokens: Sequence[str], trial: FieldTrial, seed: int) -> None:
        self._urls, self._tokens, self._trial = urls, tokens, trial
        self._rng = random.Random(seed)
        self._left = 0

    async def send(self, requests: int) -> None:
        """Send the requests over AT_ONCE connections, half of them to each router."""
        self._left = requests
        await asyncio.gather(*(self._connection(self._urls[number % len(self._urls)]) for number in range(AT_ONCE)))

    async def _connection(self, url: str) -> None:
        place = urlsplit(url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            while self._left > 0:
                self._left -= 1
                number, token = self._rng.randrange(len(CASES)), self._rng.choice(self._tokens)
                case = CASES[number]
                writer.write(_request(number, token))
                async with asyncio.timeout(LIMIT_S):
                    status = await _status(reader)
                self._note(case, status)
        finally:
            writer.transport.abort()

    def _note(self, case: FieldCase, status: int) -> None:
        statuses = self._trial.statuses
        statuses[str(status)] = statuses.get(str(status), 0) + 1
        expected = (400,) if case.refused else (200, 402)
        if status not in expected:
            name = f"{case.backend} {case.path} {case.name}: {status}"
            self._trial.unexpected[name] = self._trial.unexpected.get(name, 0) + 1


@cache
def _request(number: int, token: str) -> bytes:
    """Return a case of the table as an HTTP request."""
    case = CASES[number]
    body = json.dumps({"model": case.backend, **case.body}).encode()
    head = (
        f"POST {case.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _status(reader: asyncio.StreamReader) -> int:
    """Read one answer; return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
    await reader.readexactly(int(length.partition(":")[2]))
    return int(head[9:12])


def _compare(ledger: Ledger, watch: CapWatch, lines: Sequence[tuple[str, str, int]], trial: FieldTrial) -> None:
    charges: dict[str, int] = {}
    holds: dict[str, int] = {}
    for linked in ledger.chain():
        entry = entry_of(linked.row)
        watch.row(entry)
        call = f"{entry.request_id}.{entry.attempt_no}"
        if entry.kind == "reserved":
            holds[call] = entry.reserved_nano
        else:
            charges[call] = charges.get(call, 0) + entry.amount_nano
    watch.bill(lines)
    trial.billed_calls, trial.billed_usd = len(lines), sum(nano for _, _, nano in lines) / NANO
    trial.above_hold = sum(nano > holds.get(call, 0) for _, call, nano in lines) + watch.above_bound
    trial.charged_unlike_billed = sum(charges.get(call) != nano for _, call, nano in lines)
    trial.overspent_nano = max(watch.over, watch.over_bill, 0)
    trial.bills_without_hold, trial.open_holds = watch.without_hold, len(watch.open)
    trial.peak_share = round(watch.peak, 6)
    trial.cases_billed = len({case.name for case in CASES if not case.refused})
