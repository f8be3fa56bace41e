"""The newcomer's way to a Money page with a spill, without the installation: the router and its backends are here."""

from __future__ import annotations

from pathlib import Path

import pytest
from evidence.measures_newcomer import spill

from spillway_router.testing import FakeEngine
from spillway_router.testing.harness import routing, serving

PRICE = '{input_per_million: "0.15", output_per_million: "0.60"}'


async def spilled(folder: Path, waiting: int, limit_s: float) -> tuple[int, int, str, int]:
    """Ask a router whose engine has so many requests waiting; return what came of it, and the calls of the cloud."""
    engine, cloud = FakeEngine(["here"]), FakeEngine(["there"])
    engine.waiting = waiting
    async with serving(engine) as here, serving(cloud) as there:
        text = (
            f"gpu: {{price_per_hour: '1.39'}}\nslo: {{ttft_ms: 200}}\nbackends:\n"
            f"  - {{name: local, provider: vllm, local: true, model: m, base_url: '{here}/v1'}}\n"
            f"  - {{name: cloud, provider: generic, model: m, api_key: k, base_url: '{there}/v1', price: {PRICE}}}\n"
        )
        async with routing(text, folder) as router:
            seen = await spill(router.url, 4, limit_s)
            return seen.requests, seen.overflowed, seen.sentence, len(cloud.bodies)


async def test_a_full_engine_spills_and_the_money_page_says_so(tmp_path: Path) -> None:
    requests, overflowed, sentence, asked = await spilled(tmp_path, 500, 60)
    assert requests >= overflowed == asked >= 1
    assert sentence


async def test_an_engine_with_room_is_not_taken_for_a_spill(tmp_path: Path) -> None:
    """A seeded fault: the measure can fail."""
    with pytest.raises(TimeoutError):
        await spilled(tmp_path, 0, 3)
