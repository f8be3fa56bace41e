"""The cost counters of /metrics against the ledger's rows, for mixed traffic whose clients may leave."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from evidence.money.mix import random_backend, random_request
from evidence.money.parts import fake_providers, send
from evidence.money.raw_books import rows_of
from prometheus_client.parser import text_string_to_metric_families

from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing.harness import Router, routing

REQUESTS, AT_ONCE, SEED = 200, 20, 20261201
PLACES = {"a": "openai", "b": "generic", "c": "groq"}
"""Backends and their providers: the first stops when a client leaves, the others go on."""
BY = {
    "backend": ("spillway_cost_usd", "backend"),
    "model": ("spillway_model_cost_usd", "model"),
    "key_id": ("spillway_key_cost_usd", "key"),
}
"""A column of the ledger, and the counter with its label that has the same sums."""
RULES = "budgets: [{scope: all, period: month, limit_usd: '100000'}]\nlimits: {answer_s: 60}\n"

CHARGES = "SELECT * FROM entries WHERE kind IN ('charged', 'adjusted') AND NOT local"


async def test_the_cost_counters_are_the_rows_by_backend_model_and_key(tmp_path: Path) -> None:
    rng, file = random.Random(SEED), tmp_path / "ledger.db"
    keys = [new_key(file, name) for name in ("first", "second")]
    with fake_providers() as money:
        places = [random_backend(rng, name, money.url, provider) for name, provider in PLACES.items()]
        money.add({place.name: place.till for place in places})
        text = yaml.safe_dump({"backends": [dict(place.backend) for place in places]})
        async with routing(text + RULES, tmp_path) as router:
            await traffic(router, rng, keys)
            await router.until(lambda: not router.ledger.open_reservations(0, 2**62))
            # A request is counted a moment after its last row is stored.
            with suppress(TimeoutError):
                await router.until(
                    lambda: counters(page_of(router), *BY["backend"]) == summed(rows_of(file, CHARGES), "backend")
                )
            page = page_of(router)
            drained = sum(count for (_, result), count in router.runtime.drains.results.items() if result == "usage")
    rows = rows_of(file, CHARGES)
    assert drained
    assert {column: counters(page, *BY[column]) for column in BY} == {column: summed(rows, column) for column in BY}


def page_of(router: Router) -> str:
    return router.runtime.metrics.render()[1].decode()


async def traffic(router: Router, rng: random.Random, keys: list[str]) -> None:
    """Send the requests with either key; some fail once they are billed, and some clients leave."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        asked = random_request(rng, list(PLACES), "auto", failures=0.04, aborts=0.3, kinds=("cut",))
        name = list(PLACES)[number % len(PLACES)]
        leave_s = None if asked.leave_s is None else rng.uniform(0.05, 0.5)
        body = {**asked.body, "model": f"{name}/{name}-m"}
        asked = replace(asked, token=keys[number % len(keys)], body=body, leave_s=leave_s)
        async with gate:
            await send(router.url, asked)

    await asyncio.gather(*(one(number) for number in range(REQUESTS)))


def new_key(file: Path, name: str) -> str:
    ledger = open_ledger(f"sqlite:///{file}")
    try:
        spec, now_ms = KeySpec(name, "inference", ""), int(time.time() * 1000)
        return KeyStore(ledger.keys).create(spec, secrets.token_bytes(6), secrets.token_bytes(32), now_ms).token
    finally:
        ledger.close()


def summed(rows: list[dict[str, Any]], column: str) -> Counter[str]:
    sums: Counter[str] = Counter()
    for row in rows:
        sums[row[column]] += row["amount_nano"]
    return +sums


def counters(page: str, name: str, label: str) -> Counter[str]:
    """Return the nano-dollars of a counter by one of its labels."""
    sums: Counter[str] = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples if family.name == name else ():
            if sample.name == f"{name}_total":
                sums[sample.labels[label]] += round(Decimal(str(sample.value)) * 10**9)
    return +sums
