"""A picture counts as a picture, whatever the length of its base64, and teaches nothing about text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import cloud, local, routing, settings

WHOLE = Answer.json(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1523, "completion_tokens": 5},
    }
)


def base64(kilobytes: int) -> str:
    """Return the base64 of a picture of this size."""
    return "iVBORw0KGgoA" * (kilobytes * 1024 // 9)


def shown(kilobytes: int, path: str) -> dict[str, Any]:
    """Return a body with a picture in the form of the endpoint."""
    url = f"data:image/png;base64,{base64(kilobytes)}"
    if path == "/v1/responses":
        content: list[Any] = [{"type": "input_image", "image_url": url}]
        return {"input": [{"role": "user", "content": content}], "max_output_tokens": 9}
    if path == "/v1/messages":
        source = {"type": "base64", "media_type": "image/png", "data": base64(kilobytes)}
        content = [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": source}]}]
    else:
        content = [{"type": "image_url", "image_url": {"url": url}}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 9}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_the_hold_of_a_picture_does_not_grow_with_its_bytes(path: str, tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as upstream, routing(settings(cloud(upstream)), tmp_path) as router:
        holds = []
        for kilobytes in (0, 100, 1000):
            reply = await router.post({"model": "auto", **shown(kilobytes, path)}, path)
            entries = router.ledger.entries_of(reply.headers["x-request-id"])
            holds += [e.reserved_nano for e in entries if e.kind == "reserved"]
        assert len(holds) == 3
        assert max(holds) - min(holds) < 100 * 1000  # a few bytes of framing, at 1 USD per million tokens
        assert min(holds) > 50_000 * 1000


async def test_a_known_model_holds_what_it_may_bill(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as upstream:
        line = cloud(upstream).replace("provider: generic", "provider: openai").replace("cloud-m", "gpt-4o")
        async with routing(settings(line), tmp_path) as router:
            reply = await router.post({"model": "auto", **shown(100, "/v1/chat/completions")})
            (held,) = (e for e in router.ledger.entries_of(reply.headers["x-request-id"]) if e.kind == "reserved")
            assert 1_445 * 1000 < held.reserved_nano < 2_000 * 1000


async def test_a_text_in_the_place_of_a_picture_counts_as_text(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as upstream, routing(settings(cloud(upstream)), tmp_path) as router:
        content = [{"type": "image_url", "image_url": {"url": "ignore this, and read: " * 5000}}]
        body = {"model": "auto", "messages": [{"role": "user", "content": content}]}
        facts = (await router.post(body, "/v1/route/explain")).json()["facts"]
        assert facts["prompt_bytes"] > 23 * 5000


async def test_a_small_local_engine_takes_a_screenshot_and_learns_nothing_from_it(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, FaultUpstream(WHOLE) as other:
        line = local(engine).replace("model: m", "model: m, context_tokens: 8192")
        async with routing(settings(line, cloud(other)), tmp_path) as router:
            text = {"model": "auto", "messages": [{"role": "user", "content": "The quick brown fox. " * 500}]}

            async def expected() -> int:
                explained = (await router.post(text, "/v1/route/explain")).json()
                return int(explained["candidates"][0]["prompt_tokens"])

            before = await expected()
            for _ in range(3):
                reply = await router.post({"model": "auto", **shown(300, "/v1/chat/completions")})
                assert reply.headers["x-spillway-backend"] == "local"
            assert await expected() == before
            assert not other.seen


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": base64(300), "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64," + base64(300)}},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + base64(300)}},
    ],
)
async def test_other_media_are_no_text_either(part: dict[str, Any], tmp_path: Path) -> None:
    """300 kB of base64 counted as 100,000 tokens, which no engine of 32,768 tokens took."""
    async with FaultUpstream(WHOLE) as engine, FaultUpstream(WHOLE) as other:
        line = local(engine).replace("model: m", "model: m, context_tokens: 65536")
        async with routing(settings(line, cloud(other)), tmp_path) as router:
            before = router.runtime.board.current(0).backends["local"].tokens_per_byte
            body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": [part]}]}
            explained = (await router.post(body, "/v1/route/explain")).json()
            assert explained["facts"]["prompt_bytes"] < 400
            assert explained["candidates"][0]["prompt_tokens"] < 40_000
            assert (await router.post(body)).headers["x-spillway-backend"] == "local"
            assert router.runtime.board.current(0).backends["local"].tokens_per_byte == before
            # Nobody documents what they cost at this cloud, so its whole context is held for them.
            (paid,) = (c for c in explained["candidates"] if c["backend"] == "cloud")
            assert float(paid["cost_bound_usd"]) > 0.9


async def test_a_small_picture_holds_less_than_a_large_one(tmp_path: Path) -> None:
    header = "iVBORw0KGgoAAAANSUhEUg"  # of a PNG, up to its width
    async with FaultUpstream(WHOLE) as upstream:
        line = cloud(upstream).replace("provider: generic", "provider: anthropic").replace("cloud-m", "claude-x")
        async with routing(settings(line), tmp_path) as router:
            bounds = []
            for size in ("AAAAYAAAAGA", "AAEAAAABAAA"):
                url = f"data:image/png;base64,{header}{size}IAgAAAAAAAAA"
                content = [{"type": "image_url", "image_url": {"url": url}}]
                body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": content}]}
                explained = (await router.post(body, "/v1/route/explain")).json()
                bounds.append(float(explained["candidates"][0]["cost_bound_usd"]))
            assert bounds[0] < 0.002 < 0.008 < bounds[1]
