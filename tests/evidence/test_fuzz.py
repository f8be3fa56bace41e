"""The fuzzer in short runs: it finds nothing in the router and finds seeded faults, and what it found stays mended."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from evidence.fuzz.readers import Reader, attempt, crashes, readers, small_ledger
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


@pytest.fixture(scope="module")
def file_readers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reader, ...]:
    return readers(small_ledger(tmp_path_factory.mktemp("seed")))


def test_damaged_files_and_pages_are_refused_and_crash_nothing(
    file_readers: tuple[Reader, ...], tmp_path: Path
) -> None:
    for reader in file_readers:
        for data in reader.seeds:
            assert attempt(reader, data, tmp_path) is None
    assert crashes(file_readers, seed=11, most=30, folder=tmp_path) == []


def test_a_reader_that_crashes_is_found_out(tmp_path: Path) -> None:
    careless = Reader(
        "careless", (b'{"model": "m"}',), lambda data, _: json.loads(data)["model"].lower(), (ValueError,)
    )
    kinds = {crash.error.partition(":")[0] for crash in crashes((careless,), 1, 300, tmp_path)}
    assert "KeyError" in kinds


NESTED = b"[" * 100_000
DEEP = b"[" * 3_000
"""Past Python's limit of recursion. PyYAML takes seconds for NESTED, as its time grows with the square."""


@pytest.mark.parametrize(
    ("reader", "data"),
    [
        ("configuration", b"gpu: {price_per_hour: " + b"9" * 5000 + b"}"),
        ("configuration", b"a: 2026-99-99"),
        ("configuration", DEEP),
        ("configuration", b"alerts: {secret: !!bool x}"),
        ("configuration", b"alerts: {secret: !!timestamp x}"),
        ("configuration", b"alerts: {secret: !!int ''}"),
        ("parser", b"name: !!bool x"),
        ("parser", b"name: 2026-99-99"),
        ("parser", DEEP),
        ("checkpoint", b'{"num_attention_heads": 0, "num_hidden_layers": 1, "hidden_size": 1}'),
        ("checkpoint", b'{"num_attention_heads": 1e999, "num_hidden_layers": 1, "hidden_size": 1}'),
        ("checkpoint", b'{"text_config": [], "architectures": [null]}'),
        ("checkpoint", b'{"num_attention_heads": 1, "num_hidden_layers": 1, "hidden_size": 1, "architectures": null}'),
        ("checkpoint", NESTED),
        ("model source", b"FROM ./" + b"x" * 5000),
        ("model source", b"FROM ./Modelfile"),
        ("model source", b"FROM ./a\0b"),
        ("model source", b"{" + NESTED),
        ("prices", b'{"openai/gpt-4o": {"input_cost_per_token": 1e99999999999999999999, "output_cost_per_token": 1}}'),
        ("prices", b'{"openai/gpt-4o": {"input_cost_per_token": 1e999999, "output_cost_per_token": 1}}'),
        ("activity", b"vllm:num_requests_running +Inf\nvllm:num_requests_waiting 1e308\n"),
        (
            "metrics",
            b"vllm:num_requests_running 1e308\nvllm:num_requests_waiting NaN\nvllm:kv_cache_usage_perc 1e308\n",
        ),
        ("ledger", b""),
        ("ledger", b"SQLite format 3\0" + b"\xff" * 4096),
    ],
)
def test_an_input_that_crashed_a_reader_once_is_refused(
    file_readers: tuple[Reader, ...], reader: str, data: bytes, tmp_path: Path
) -> None:
    (chosen,) = (one for one in file_readers if one.name == reader)
    assert attempt(chosen, data, tmp_path) is None


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
