"""Two router processes over the end of a month, one of them on a machine whose clock is wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.verify import verify
from spillway_router.testing.processes import SpillwayProcess, await_ready, eventually
from spillway_router.testing.upstream import Answer, FaultUpstream

MIDNIGHT = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
SECONDS_BEFORE = 15.0
LIMIT_S = 120
COST_NANO = 50_000
CAP_NANO = 20 * COST_NANO
HOUR_S = 3600
ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 20},
}
BODY = {"model": "cloud", "messages": [{"role": "user", "content": "1234567"}], "max_tokens": 20}


@contextmanager
def router(config: Path, world_s: float, ahead_s: float) -> Iterator[SpillwayProcess]:
    """Run a router in the world that is shifted by `world_s`, with a clock that is ahead of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.money.shifted_router", f"{world_s}", f"{ahead_s}", "route", "-c", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running = SpillwayProcess(process)
    running.listen()
    try:
        yield running
    finally:
        running.end()
        assert process.stdout is not None
        process.stdout.close()


def write(folder: Path, url: str, cloud: FaultUpstream) -> Path:
    folder.mkdir()
    price = {"input_per_million": "1", "output_per_million": "2"}
    backend = {"name": "cloud", "provider": "generic", "model": "m", "base_url": cloud.url, "api_key": "k"}
    limit = {"scope": "all", "limit_usd": f"{CAP_NANO / 1e9:.9f}"}
    settings = {
        "listen": "127.0.0.1:0",
        "backends": [{**backend, "price": price}],
        "aliases": {"auto": {"chain": ["cloud"]}},
        "budgets": [{**limit, "period": "day"}, {**limit, "period": "month"}],
        "ledger": {"url": url},
    }
    (folder / "spillway.yaml").write_text(yaml.safe_dump(settings))
    return folder / "spillway.yaml"


@asynccontextmanager
async def two_routers(folder: Path, url: str, cloud: FaultUpstream, ahead_s: float) -> AsyncIterator[list[str]]:
    """Run two routers on a ledger; yield their addresses. The second starts once the first has noted its clock."""
    world_s = MIDNIGHT - SECONDS_BEFORE - time.time()
    with ExitStack() as stack:
        urls = []
        for name, ahead in (("a", 0.0), ("b", ahead_s)):
            process = stack.enter_context(router(write(folder / name, url, cloud), world_s, ahead))
            urls.append(process.url)
            await asyncio.to_thread(await_ready, process.url)
            if url.startswith("sqlite"):
                await asyncio.to_thread(eventually, partial(_clock_file, folder), ValueError)
        yield urls


def _clock_file(folder: Path) -> Path:
    (noted,) = folder.glob("*.clock-*")
    return noted


def spent_after_midnight(url: str) -> int:
    with closing(open_ledger(url, "read")) as ledger:
        balance = ledger.balances().get(("all", "day", int(MIDNIGHT * 1000)))
    return 0 if balance is None else balance.spent_nano


async def spend(urls: Sequence[str], ledger_url: str) -> None:
    """Send requests through all routers until they refuse them on the day after midnight.

    Routers refuse for a moment more than they must: a hold is larger than the charge that takes its place.
    """
    async with asyncio.timeout(LIMIT_S), httpx.AsyncClient(trust_env=False, timeout=30) as client:

        async def ask(url: str) -> int:
            return (await client.post(f"{url}/v1/chat/completions", json=BODY)).status_code

        async def day(url: str) -> str:
            return str((await client.get(f"{url}/v1/usage")).json()["day"])

        was_late = False
        while True:
            statuses = set(await asyncio.gather(*(ask(url) for url in [*urls] * 4)))
            assert statuses <= {200, 402}
            if was_late and statuses == {402} and spent_after_midnight(ledger_url) > CAP_NANO / 2:
                return
            days = {await day(url) for url in urls}
            assert days <= {"2026-10-31", "2026-11-01"}
            was_late = days == {"2026-11-01"}


@pytest.mark.parametrize(
    ("database", "ahead_s"), [("postgresql", 36 * HOUR_S), ("postgresql", -40 * 24 * HOUR_S), ("sqlite", 36 * HOUR_S)]
)
async def test_a_wrong_clock_hands_out_no_second_budget(
    tmp_path: Path, request: pytest.FixtureRequest, database: str, ahead_s: float
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}" if database == "sqlite" else request.getfixturevalue("postgres_url")
    async with FaultUpstream(Answer.json(ANSWER)) as cloud:
        async with two_routers(tmp_path, url, cloud, ahead_s) as urls:
            await spend(urls, url)
        calls = cloud.arrivals.qsize()
    with closing(open_ledger(url, "read")) as ledger:
        spent = {key[1:]: one.spent_nano for key, one in ledger.balances().items() if key[0] == "all"}
        assert verify(ledger).holds
    days, months = ({at: nano for (name, at), nano in spent.items() if name == period} for period in ("day", "month"))
    midnight_ms = int(MIDNIGHT * 1000)
    assert set(days) == {midnight_ms - 24 * HOUR_S * 1000, midnight_ms}
    assert len(months) == 2
    assert sum(days.values()) == sum(months.values()) == calls * COST_NANO
    assert max(days.values()) <= CAP_NANO
    assert days[midnight_ms] > CAP_NANO / 2
