"""A caller names a provider and brings a key: which backend is asked, who pays, and that the key never shows."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from spillway_router.providers.catalogue import load_catalogue
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import MESSAGES, Router, error_of, local, routing, settings
from spillway_router.testing.streams import delta

KEY = "sk-canary-0123456789"
HEADERS = {"x_spillway_provider": "groq", "x_spillway_provider_key": KEY}
MODEL = {"model": "openai/gpt-oss-20b"}
WHOLE = Answer.json(
    {
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
)


@asynccontextmanager
async def own(
    answer: Answer, folder: Path, more: str = ""
) -> AsyncIterator[tuple[FaultUpstream, FaultUpstream, Router]]:
    """Run an engine, a fake Groq on this machine, and a router that has no key for it."""
    providers = load_catalogue()
    async with FaultUpstream(WHOLE) as engine, FaultUpstream(answer) as groq:
        catalogue = {**providers, "groq": replace(providers["groq"], base_url=groq.url)}
        async with routing(settings(local(engine), more=more), folder, catalogue=catalogue) as router:
            yield engine, groq, router


async def test_the_callers_account_answers_and_costs_us_nothing(tmp_path: Path) -> None:
    async with own(WHOLE, tmp_path) as (engine, groq, router):
        reply = await router.chat(MODEL, **HEADERS)
        assert (reply.status_code, reply.headers["x-spillway-decision"]) == (200, "byok")
        assert reply.headers["x-spillway-backend"] == "own-groq"
        assert reply.headers["x-spillway-cost-usd"] == "0.000000"
        assert groq.seen[0].headers["authorization"] == f"Bearer {KEY}"
        assert groq.seen[0].json == {**MODEL, "messages": MESSAGES}
        assert not [name for name in groq.seen[0].headers if name.startswith("x-spillway")]
        assert not engine.seen
        (row,) = router.rows(reply)
        assert (row.kind, row.decision, row.provider, row.amount_nano) == ("charged", "byok", "groq", 0)
        assert (row.prompt_tokens, row.completion_tokens, row.local) == (5, 2, False)


@pytest.mark.parametrize(
    ("stall_s", "limits"), [(0.3, ""), (3600.0, "limits: {stall_s: 0.3}")], ids=["catalogue", "configuration"]
)
async def test_a_stream_of_ones_own_may_be_silent_as_long_as_the_provider_usually_is(
    stall_s: float, limits: str, tmp_path: Path
) -> None:
    providers = load_catalogue()
    hung = Answer.stream(delta({"content": "alpha"}), end="hang")
    async with FaultUpstream(WHOLE) as engine, FaultUpstream(hung) as groq:
        entry = replace(providers["groq"], base_url=groq.url, stall_s=stall_s)
        catalogue = {**providers, "groq": entry}
        async with routing(settings(local(engine), more=limits), tmp_path, catalogue=catalogue) as router:
            reply = await router.chat({**MODEL, "stream": True}, **HEADERS)
            assert b"upstream_interrupted" in reply.content


async def test_a_stream_of_ones_own_is_relayed_as_any_other(tmp_path: Path) -> None:
    stream = Answer.stream(delta({"content": "alpha"}) + delta({}, "stop") + b"data: [DONE]\n\n")
    async with own(stream, tmp_path) as (_, groq, router):
        reply = await router.chat({**MODEL, "stream": True}, **HEADERS)
        assert reply.content.endswith(b"data: [DONE]\n\n")
        assert b"alpha" in reply.content
        assert len(groq.seen) == 1


async def test_the_key_is_in_no_log_record_or_ledger_even_if_the_provider_repeats_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refusing = Answer.json({"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}, 500)
    with caplog.at_level(logging.DEBUG):
        async with own(refusing, tmp_path) as (_, _, router):
            reply = await router.chat(MODEL, **HEADERS)
            assert reply.status_code == 502
            record = await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")
            assert record.status_code == 200
            stored = "".join(str(e) for e in router.ledger.entries_between(0, 2**62))
            seen = [record.text, stored, caplog.text, (await router.client.get("/metrics")).text]
            assert not [text for text in seen if KEY in text]
            assert "***" in reply.text


async def test_private_content_does_not_leave_with_a_key_of_ones_own_either(tmp_path: Path) -> None:
    async with own(WHOLE, tmp_path, "privacy: {keywords: [ssn]}\n") as (_, groq, router):
        for fields, more in ((MODEL, {"x_spillway_privacy": "local-only"}), ({**MODEL, "user": "ssn"}, {})):
            reply = await router.chat(fields, **HEADERS, **more)
            assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")
        assert not groq.seen


@pytest.mark.parametrize(
    ("model", "headers"),
    [
        ("auto", HEADERS),
        ("m", {"x_spillway_provider": "groq"}),
        ("m", {"x_spillway_provider_key": KEY}),
        ("m", {**HEADERS, "x_spillway_provider": "vllm"}),
        ("m", {**HEADERS, "x_spillway_provider": "http://169.254.169.254/"}),
        ("m", {**HEADERS, "x_spillway_provider_key": "two words"}),
    ],
)
async def test_what_cannot_be_meant_is_a_400_that_does_not_repeat_the_key(
    tmp_path: Path, model: str, headers: dict[str, str]
) -> None:
    async with own(WHOLE, tmp_path) as (engine, groq, router):
        reply = await router.chat({"model": model}, **headers)
        assert reply.status_code == 400
        assert KEY not in str(error_of(reply))
        assert not engine.seen
        assert not groq.seen
