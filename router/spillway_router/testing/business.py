"""A made-up business: some weeks of requests of three API keys, with quiet weekends, peaks, and a rented GPU."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from random import Random

from spillway_router.ledger.calendar import DAY_MS, start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.ids import first_id
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord, Write
from spillway_router.ledger.tables.keys import KeySpec, KeyStore

PRICE_NANO_PER_HOUR = 1_390_000_000
CHEAP_USD_PER_MILLION = (0.075, 0.30)
STRONG_USD_PER_MILLION = (2.0, 8.0)
BACKENDS = """
  - {name: local, provider: vllm, local: true, model: demo, base_url: "http://127.0.0.1:9/v1"}
  - {name: groq, provider: generic, model: gpt-oss-20b, api_key: k, base_url: "http://127.0.0.1:9/v1",
     price: {input_per_million: "0.075", output_per_million: "0.30"}}
  - {name: openai, provider: generic, model: gpt-4.1, api_key: k, base_url: "http://127.0.0.1:9/v1",
     price: {input_per_million: "2", output_per_million: "8"}}
"""
"""The backends of the business, for a configuration."""
USERS = ("billing-service", "support-bot", "data-team")
_SHARES = (0.6, 0.28, 0.12)


def make_keys(ledger: Ledger, rng: Random) -> list[str]:
    """Create the keys of the business; return their ids."""
    store = KeyStore(ledger.keys)
    new_keys = [store.create(KeySpec(name), rng.randbytes(6), rng.randbytes(32), 0) for name in USERS]
    return [new.record.id for new in new_keys]


def fill(
    ledger: Ledger,
    first: date,
    days: int,
    rng: Random,
    *,
    per_day: int,
    size: int = 1,
    price_nano_per_hour: int = PRICE_NANO_PER_HOUR,
) -> int:
    """Fill some days with about `per_day` requests each, whose tokens are `size` times usual ones, on a GPU at this
    price; return the number of requests."""
    keys = make_keys(ledger, rng)
    ledger.rentals.add(
        RentalRecord(
            id="rent_business",
            gpu="a100-80",
            count=1,
            price_nano_per_hour=price_nano_per_hour,
            kind="reserved",
            started_ms=start_of(first),
            stopped_ms=start_of(first + timedelta(days=days)),
            source="cli",
        )
    )
    rows = [row for number in range(days) for row in _day(first + timedelta(days=number), keys, rng, per_day, size)]
    for at in range(0, len(rows), 1000):
        ledger.commit([Write((row,)) for row in rows[at : at + 1000]])
    while ledger.sum_up(10_000):
        pass
    return len(rows)


def _day(day: date, keys: list[str], rng: Random, per_day: int, size: int) -> Iterator[Entry]:
    weekday = (1.1, 0.85, 1.25, 0.95, 1.05, 0.22, 0.28)[day.weekday()]
    requests = round(per_day * weekday * rng.uniform(0.75, 1.45))
    start_ms = start_of(day)
    for number in range(requests):
        decision = rng.choices(("local", "overflow", "escalated", "fallback"), (0.84, 0.1, 0.055, 0.005))[0]
        local = decision == "local"
        backend = {"local": "local", "escalated": "openai"}.get(decision, "groq")
        model = {"local": "demo", "openai": "gpt-4.1", "groq": "gpt-oss-20b"}[backend]
        prompt, completion = rng.randint(500, 1500) * size, rng.randint(100, 400) * size
        prices = STRONG_USD_PER_MILLION if backend == "openai" else CHEAP_USD_PER_MILLION
        yield Entry(
            kind="charged",
            request_id=f"{first_id(start_ms + DAY_MS * number // requests)}{number:017x}",
            attempt_no=1,
            ts=start_ms + DAY_MS * number // requests,
            backend=backend,
            provider="vllm" if local else "generic",
            model=model,
            decision=decision,
            local=local,
            key_id=rng.choices(keys, _SHARES)[0],
            status="ok",
            prompt_tokens=prompt,
            completion_tokens=completion,
            gpu_us=(prompt * 80 + completion * 1500) if local else 0,
            amount_nano=0 if local else round((prompt * prices[0] + completion * prices[1]) * 1000),
            tariff_ref="" if local else "config@2026-10-01",
            document=number % 4 == 0,
        )
