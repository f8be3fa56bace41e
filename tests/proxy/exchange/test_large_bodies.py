"""A large body arrives upstream as the client wrote it, whichever edit it needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import cloud, routing, settings

WHOLE = Answer.json(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
)
PICTURE = "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgAA" * 60_000
QUESTIONS = {
    "a picture": [
        {"type": "text", "text": "d\u00e9cris \U0001f642"},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ],
    "text like keys": '"model":"x",\\' * 90_000,
    "a long text": "中文 text " * 90_000,
}


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("ascii_only", [True, False])
async def test_only_the_named_fields_of_a_large_body_change(name: str, ascii_only: bool, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": QUESTIONS[name]}]
    body = {"top_k": 4, "messages": messages, "stream_options": None, "model": "auto", "max_tokens": 5}
    raw = json.dumps(body, ensure_ascii=ascii_only).encode()
    async with (
        FaultUpstream(WHOLE) as upstream,
        routing(settings(cloud(upstream).replace("generic", "openai")), tmp_path) as router,
    ):
        reply = await router.post(raw)
        assert reply.status_code == 200
        assert upstream.seen[-1].body == raw.replace(b'"top_k": 4, ', b" ").replace(b'"auto"', b'"cloud-m"')


async def test_a_keyword_deep_in_a_large_body_keeps_it_local(tmp_path: Path) -> None:
    more = "privacy: {keywords: [geheim]}\n"
    async with FaultUpstream(WHOLE) as upstream, routing(settings(cloud(upstream), more=more), tmp_path) as router:
        text = "some text " * 60_000
        for content in (text + "GEHEIM", text + "GEHEIM " + text):
            refused = await router.post({"model": "auto", "messages": [{"role": "user", "content": content}]})
            assert refused.status_code == 503
            assert not upstream.seen


async def test_a_large_body_with_a_flaw_is_refused_before_it_costs(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as upstream, routing(settings(cloud(upstream)), tmp_path) as router:
        raw = b'{"model":"auto","messages":[{"role":"user","content":"%b"}],"model":"b"}' % (b"x" * 300_000)
        for body, message in ((raw, "Duplicate key 'model'"), (raw[:-1], "not valid JSON")):
            reply = await router.post(body)
            assert reply.status_code == 400
            assert message in reply.json()["error"]["message"]
        assert not upstream.seen


async def test_of_a_large_error_only_the_beginning_is_read(tmp_path: Path) -> None:
    error = Answer.json({"error": {"message": "y" * 2_000_000, "code": "x"}}, status=500)
    async with FaultUpstream(error) as upstream, routing(settings(cloud(upstream)), tmp_path) as router:
        reply = await router.chat()
        assert reply.status_code == 502
        assert len(reply.content) < 1000
