"""The fuzzer in short runs: it finds nothing in the router and finds seeded faults, and what it found stays mended."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from evidence.fuzz.requests import Keys, made_up
from evidence.fuzz.site import configuration
from evidence.fuzz.trial import Place, fuzz
from evidence.fuzz.upstream import TaggingUpstream

from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing.harness import LIMIT_S, routing

REQUESTS = 1500
FOUND = Path(__file__).with_name("fuzzed")


@asynccontextmanager
async def fuzzed_place(*, keys_required: bool = True) -> AsyncIterator[Place]:
    async with TaggingUpstream() as local, TaggingUpstream() as cloud:
        text = configuration(0, local.url, cloud.url, Path("nowhere"))
        text = "\n".join(line for line in text.splitlines() if not line.startswith(("ledger:", "listen:")))
        if not keys_required:
            text = text.replace("required: true", "required: false")
        async with routing(text) as router:
            spec = KeySpec("fuzz", role="inference")
            store = KeyStore(router.ledger.keys)
            key = store.create(spec, secrets.token_bytes(6), secrets.token_bytes(32), 0)
            url = urlsplit(router.url)
            assert url.hostname is not None
            assert url.port is not None
            keys = Keys(key.token.encode())
            yield Place(host=url.hostname, port=url.port, keys=keys, local=local.tags, cloud=cloud.tags)


@pytest.mark.limit_s(120)
async def test_made_up_requests_get_no_5xx_and_pass_neither_keys_nor_privacy() -> None:
    async with fuzzed_place() as place:
        trial = await fuzz(place, seed=7, most=REQUESTS)
        assert (trial.requests, dict(trial.counts)) == (REQUESTS, {}), [f.raw for f in trial.findings]
        assert place.local
        assert place.cloud


async def test_a_router_that_asks_for_no_key_is_found_out() -> None:
    async with fuzzed_place(keys_required=False) as place:
        trial = await fuzz(place, seed=7, most=200)
        assert trial.counts["a request without a key reached a backend"] > 0
        assert trial.counts["a stranger got 200"] > 0


async def test_a_private_request_at_a_cloud_is_found_out() -> None:
    async with fuzzed_place() as place:
        trial = await fuzz(replace(place, local=place.cloud, cloud=place.local), seed=7, most=200)
        assert trial.counts["a private request reached a cloud"] > 0


def test_a_seed_gives_the_same_requests() -> None:
    keys = Keys(b"sk-spill-0123456789ab-" + b"0" * 64)
    first, second = ([made_up(rng, keys) for _ in range(50)] for rng in (_rng(), _rng()))
    assert first == second
    assert {request.kind for request in first} == {"stranger", "visitor", "private", "known"}


def _rng() -> random.Random:
    return random.Random(3)


@pytest.mark.parametrize("name", sorted(path.name for path in FOUND.iterdir()))
async def test_what_was_found_stays_mended(name: str) -> None:
    async with fuzzed_place() as place:
        raw = (FOUND / name).read_bytes().replace(b"Bearer KEY", b"Bearer " + place.keys.inference)
        reader, writer = await asyncio.open_connection(place.host, place.port)
        writer.write(raw)
        async with asyncio.timeout(LIMIT_S):
            status = await reader.readline()
        writer.close()
        assert status.split()[1] < b"500", status
