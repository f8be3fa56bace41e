"""Overshoot trials: two routers share a ledger with tight caps; no cap may be exceeded, nor billed beyond its limit.

A pair of router processes serves many seeds. Each seed opens fake providers with prices of its own, and gives the
routers a new key, a new tier and new caps (hour, day or month; all, backend, key or tier). It sends its requests
through both routers at the same time, 1, 8, 64 or 256 at once. Some requests fail in all ways, and some clients leave.
Then the rows are followed one by one (caps.py) and compared with the provider's bill.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from evidence.money.caps import CapWatch
from evidence.money.mix import PaidBackend, random_backend, random_request
from evidence.money.parts import (
    LIMIT_S,
    MoneyRequest,
    ProviderProcess,
    fake_providers,
    send,
    start_router,
    stop_router,
    write_config,
)
from spillway_router.core.money.tariff import usd
from spillway_router.ledger.entries import entry_of
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.tables.keys import KeySpec, KeyStore

AT_ONCE = (1, 8, 64, 256)
REQUESTS = {1: 12, 8: 32, 64: 96, 256: 288}
_NANO = 10**9


@dataclass(slots=True)
class Overshoot:
    """The largest excess over a limit in nano-dollars: held and spent (`over_nano`), and billed beyond what the rows of
    estimates say that it may be (`over_bill_nano`)."""

    seeds: int = 0
    requests: int = 0
    refused: int = 0
    seeds_with_refusals: int = 0
    over_nano: int = 0
    over_bill_nano: int = 0
    above_bound: int = 0
    bills_without_hold: int = 0
    open_holds: int = 0
    spent_nano: int = 0
    unsure_nano: int = 0
    """By how much the estimates among it may be too low, as their rows say."""
    billed_nano: int = 0
    calls_per_concurrency: dict[int, int] = field(default_factory=dict)
    peak_share: float = 0.0
    """The largest share of a cap that was ever taken; if it is not close to 1, the caps were too loose."""

    @property
    def worst_nano(self) -> int:
        return max(self.over_nano, self.over_bill_nano)


def overshoot_trials(
    url: str, folder: Path, seeds: Sequence[int], say: Callable[[str], None], *, fault: bool = False
) -> Overshoot:
    """Run these seeds on one pair of routers, which share the ledger of this URL."""
    overshoot = Overshoot()
    with fake_providers() as money:
        trial = _Trial(url, folder, money, fault)
        try:
            for number, seed in enumerate(seeds):
                asyncio.run(trial.seed(seed, overshoot))
                if number % 20 == 19:
                    say(f"  {number + 1} seeds, {overshoot.requests} requests, {overshoot.refused} refused")
        finally:
            trial.close()
    return overshoot


class _Trial:
    def __init__(self, url: str, folder: Path, money: ProviderProcess, fault: bool) -> None:
        self._folder, self._url, self._money = folder, url, money
        self._ledger: Ledger = open_ledger(url)
        self._keys = KeyStore(self._ledger.keys)
        self._admin = self._key("admin", "admin")
        self._watch = CapWatch()
        self._seq = self._billed = 0
        self._configs = [folder / f"router{number}.yaml" for number in (1, 2)]
        place = random_backend(random.Random(0), "opening", money.url)
        self._write([place], [])
        self._routers = [start_router(config, ignores_caps=fault) for config in self._configs]
        self._urls = [router.url for router in self._routers]

    def close(self) -> None:
        for router in self._routers:
            stop_router(router)
        self._ledger.close()

    async def seed(self, seed: int, overshoot: Overshoot) -> None:
        rng = random.Random(seed)
        at_once = AT_ONCE[seed % len(AT_ONCE)]
        count = REQUESTS[at_once]
        names = [f"s{seed}{letter}" for letter in "abc"[: rng.randrange(2, 4)]]
        places = [random_backend(rng, name, self._money.url) for name in names]
        tier = f"tier{seed}"
        token = self._key(f"seed{seed}", "inference", tier)
        self._money.add({place.name: place.till for place in places})
        self._caps(rng, token, tier, places, count)
        self._write(places, [_budget(scope, period, nano) for (scope, period), nano in self._watch.limits.items()])
        await self._reload()
        asks = [random_request(rng, names, "auto", failures=0.15, aborts=0.2) for _ in range(count)]
        statuses = await self._send(asks, token, at_once)
        await self._quiet()
        self._follow(overshoot)
        overshoot.seeds += 1
        overshoot.requests += count
        overshoot.calls_per_concurrency[at_once] = overshoot.calls_per_concurrency.get(at_once, 0) + count
        refused = statuses.count(402)
        overshoot.refused += refused
        overshoot.seeds_with_refusals += refused > 0

    def _key(self, name: str, role: Any, tier: str = "") -> str:
        spec = KeySpec(name, role, tier)
        return self._keys.create(spec, secrets.token_bytes(6), secrets.token_bytes(32), int(time.time() * 1000)).token

    def _caps(self, rng: random.Random, token: str, tier: str, places: Sequence[PaidBackend], count: int) -> None:
        """Set new caps, each for a part of what the requests would cost without caps."""
        key_id = token.removeprefix("sk-spill-").partition("-")[0]
        mean = sum(_mean_nano(place) for place in places) / len(places)
        scopes = ["all", f"key:{key_id}", f"tier:{tier}", *(f"backend:{place.name}" for place in places)]
        self._watch.limits.clear()
        for scope in rng.sample(scopes, rng.randrange(1, len(scopes) + 1)):
            for period in rng.sample(("hour", "day", "month"), rng.randrange(1, 3)):
                room = int(mean * (2 + count * rng.uniform(0.0, 0.7)))
                self._watch.limits[scope, period] = self._watch.now(scope, period) + room

    def _write(self, places: Sequence[PaidBackend], budgets: Sequence[dict[str, str]]) -> None:
        for config in self._configs:
            write_config(
                config,
                {
                    "ledger": {"url": self._url},
                    "keys": {"required": True},
                    "backends": [dict(place.backend) for place in places],
                    "budgets": list(budgets),
                    "limits": {"answer_s": 60},
                },
            )

    async def _reload(self) -> None:
        async with httpx.AsyncClient(timeout=LIMIT_S, trust_env=False) as client:
            for url in self._urls:
                done = await client.post(
                    f"{url}/admin/reload", json={}, headers={"authorization": f"Bearer {self._admin}"}
                )
                assert done.status_code == 200, done.text

    async def _send(self, asks: Sequence[MoneyRequest], token: str, at_once: int) -> list[int]:
        gate = asyncio.Semaphore(at_once)

        async def one(number: int, asked: MoneyRequest) -> int:
            named = MoneyRequest(asked.path, asked.body, token, asked.leave_s)
            async with gate:
                while (answer := await send(self._urls[number % 2], named)).status == 401:
                    await asyncio.sleep(0.1)  # the routers read new keys once a second
            return answer.status

        # The first requests go alone, so that both routers know the key when the others arrive.
        first = [await one(number, asks[number]) for number in (0, 1)]
        return first + list(await asyncio.gather(*(one(n, asked) for n, asked in enumerate(asks[2:], 2))))

    async def _quiet(self) -> None:
        """Wait until every hold is closed and the bill stops growing, because calls of clients that left settle
        later."""
        deadline = time.monotonic() + 20
        before = -1
        while time.monotonic() < deadline:
            lines = len(self._money.bill(self._billed))
            if lines == before and not self._ledger.open_reservations(0, 2**62):
                return
            before = lines
            await asyncio.sleep(0.05)

    def _follow(self, overshoot: Overshoot) -> None:
        watch = self._watch
        for linked in self._ledger.chain(self._seq):
            self._seq = linked.seq
            entry = entry_of(linked.row)
            watch.row(entry)
            overshoot.spent_nano += entry.amount_nano
            overshoot.unsure_nano += entry.at_most_nano - entry.estimated_nano
        lines = self._money.bill(self._billed)
        self._billed += len(lines)
        watch.bill(lines)
        overshoot.billed_nano += sum(nano for _, _, nano in lines)
        overshoot.over_nano, overshoot.over_bill_nano = watch.over, watch.over_bill
        overshoot.above_bound, overshoot.bills_without_hold = watch.above_bound, watch.without_hold
        overshoot.open_holds, overshoot.peak_share = len(watch.open), round(watch.peak, 6)


def _mean_nano(place: PaidBackend) -> float:
    price = place.till["price"]
    return (200 * float(price["input"]) + 32 * float(price["output"])) * 1000 + float(price["request"]) * _NANO


def _budget(scope: str, period: str, nano: int) -> dict[str, str]:
    return {"scope": scope, "period": period, "limit_usd": usd(nano)}
