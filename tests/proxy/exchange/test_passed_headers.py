"""Headers that pass through the router: those of each protocol's allow-list, and no others."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from spillway_router.config import load
from spillway_router.config.assemble import assembly_of
from spillway_router.config.load import ConfigError, Loaded
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.testing import Answer, FaultUpstream, streams
from spillway_router.testing.harness import PRICE, cloud, local, pair, routing, settings

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SENT = {
    "anthropic_beta": "context-management-2025-06-27,interleaved-thinking-2025-05-14",
    "anthropic_version": "2026-10-21",
    "openai_organization": "org-1",
    "openai_project": "proj-1",
    "openai_beta": "assistants=v2",
    "traceparent": TRACE,
    "tracestate": "a=b",
    "cookie": "session=1",
    "x_forwarded_for": "10.0.0.1",
    "baggage": "user=1",
    "x_anything": "else",
}
OPENAI = {"openai-beta", "traceparent", "tracestate"}
ACCOUNT = {"openai-organization": "org-1", "openai-project": "proj-1"}
MESSAGES = {"anthropic-beta", "anthropic-version", "traceparent", "tracestate"}
ALWAYS = {"host", "accept-encoding", "user-agent", "content-type", "content-length", "authorization"}
ALWAYS_MESSAGES = ALWAYS - {"authorization"} | {"x-api-key"}


@pytest.mark.parametrize("shape", streams.SHAPES)
async def test_the_backend_gets_the_headers_of_its_protocol(shape: str) -> None:
    stream = streams.SHAPES[shape]("alpha")
    async with FaultUpstream(Answer.stream(stream.body)) as upstream, routing(settings(cloud(upstream))) as router:
        reply = await router.post(
            {"model": "auto", "stream": True, **stream.fields}, stream.path, **SENT, **router.admin
        )
        assert reply.status_code == 200
        got = upstream.seen[0].headers
        expected = MESSAGES if shape == "messages" else OPENAI
        assert set(got) - ALWAYS - {"x-client-request-id"} == expected
        assert all(got[name] == SENT[name.replace("-", "_")] for name in expected)


async def test_no_client_takes_a_cloud_from_everybody_by_the_name_of_its_account() -> None:
    """OpenAI answers 401 to an organization that is not its key's, and a 401 takes a backend out of the rotation."""
    async with (
        FaultUpstream(Answer.stream(streams.chat("alpha").body)) as upstream,
        routing(settings(cloud(upstream))) as router,
    ):
        reply = await router.chat({"stream": True}, openai_organization="org-1", openai_project="proj-1")
        assert reply.status_code == 200
        assert not upstream.seen[0].headers.keys() & ACCOUNT.keys()


async def test_the_account_goes_with_the_callers_own_key(tmp_path: Path) -> None:
    async with FaultUpstream(Answer.json({"choices": [CHOICE], "usage": {}})) as upstream:
        providers = load_catalogue()
        catalogue = {**providers, "openai": replace(providers["openai"], base_url=upstream.url)}
        async with routing(settings(local(upstream)), tmp_path, catalogue=catalogue) as router:
            headers = {"x_spillway_provider": "openai", "x_spillway_provider_key": "sk-own"}
            account = {name.replace("-", "_"): value for name, value in ACCOUNT.items()}
            reply = await router.chat({"model": "openai/gpt-4o-mini"}, **headers, **account)
            assert reply.status_code == 200, reply.text
            got = upstream.seen[0].headers
            assert {name: got.get(name) for name in ACCOUNT} == ACCOUNT


@pytest.mark.parametrize("name", ["openai_beta", "tracestate"])
async def test_private_text_in_a_header_that_passes_stays_here(name: str) -> None:
    more = "privacy: {keywords: [password]}\n"
    async with (
        FaultUpstream(Answer.stream(streams.chat("alpha").body)) as upstream,
        routing(settings(cloud(upstream), more=more)) as router,
    ):
        reply = await router.chat(**{name: "a=the-password-is-1234"})
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "local_only_unavailable"
        assert not upstream.seen
        assert (await router.chat({"stream": True}, **{name: "a=nothing"})).status_code == 200


async def test_a_trace_that_is_none_stays_here() -> None:
    async with (
        FaultUpstream(Answer.stream(streams.chat("alpha").body)) as upstream,
        routing(settings(cloud(upstream))) as router,
    ):
        await router.chat({"stream": True}, traceparent="the text of a prompt")
        assert "traceparent" not in upstream.seen[0].headers


def anthropic(upstream: FaultUpstream, more: str = "") -> str:
    return f"{{name: a, provider: anthropic, model: m, api_key: k, base_url: '{upstream.url}', price: {PRICE}{more}}}"


@pytest.mark.parametrize(
    ("configured", "sent", "expected"),
    [
        ("", {}, "2023-06-01"),
        ("", {"anthropic_version": "2026-10-21"}, "2026-10-21"),
        (", headers: {Anthropic-Version: '2026-01-01'}", {}, "2026-01-01"),
        (", headers: {Anthropic-Version: '2026-01-01'}", {"anthropic_version": "2026-10-21"}, "2026-01-01"),
    ],
)
async def test_one_version_goes_out(configured: str, sent: dict[str, str], expected: str) -> None:
    stream = streams.messages("alpha")
    async with FaultUpstream(Answer.stream(stream.body)) as upstream:
        async with routing(settings(anthropic(upstream, configured))) as router:
            for _ in range(2):
                await router.post({"model": "auto", "stream": True, **stream.fields}, stream.path, **sent)
        assert [arrival.headers["anthropic-version"] for arrival in upstream.seen] == [expected, expected]
        assert {arrival.headers["x-api-key"] for arrival in upstream.seen} == {"k"}


@pytest.mark.parametrize(
    ("sent", "expected"),
    [("fast-mode-2026-02-01", None), ("a-1, fast-mode-2026-02-01,b-2", "a-1,b-2"), ("\u00e9", None), ("", None)],
)
async def test_betas_that_change_the_price_and_strange_values_stay_here(sent: str, expected: str | None) -> None:
    stream = streams.messages("alpha")
    async with FaultUpstream(Answer.stream(stream.body)) as upstream, routing(settings(cloud(upstream))) as router:
        body: Any = {"model": "auto", "stream": True, **stream.fields}
        headers = {b"content-type": b"application/json", b"anthropic-beta": sent.encode("latin-1")}
        assert (await router.client.post(stream.path, json=body, headers=headers)).status_code == 200
        assert upstream.seen[0].headers.get("anthropic-beta") == expected


ANSWERED = (
    ("x-ratelimit-remaining-requests", "99"),
    ("anthropic-ratelimit-tokens-remaining", "5"),
    ("openai-processing-ms", "12"),
    ("request-id", "req_up"),
    ("x-request-id", "up-1"),
    ("set-cookie", "a=b"),
    ("authorization", "Bearer x"),
    ("openai-organization", "ours"),
    ("x-should-retry", "true"),
)
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "alpha"}, "finish_reason": "stop"}
RETURNED = {
    "x-ratelimit-remaining-requests": "99",
    "anthropic-ratelimit-tokens-remaining": "5",
    "openai-processing-ms": "12",
    "x-spillway-upstream-request-id": "up-1",
}


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_client_gets_limits_and_ids_of_a_cloud(streamed: bool) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    whole = Answer.json({"choices": [CHOICE], "usage": usage}, 200, dict(ANSWERED))
    begun = Answer.stream(streams.chat("alpha").body)
    answer = Answer(begun.body, headers=(*begun.headers, *ANSWERED), chunked=True) if streamed else whole
    async with FaultUpstream(answer) as upstream, routing(settings(cloud(upstream))) as router:
        reply = await router.chat({"stream": streamed})
        assert reply.status_code == 200
        assert {name: reply.headers[name] for name in RETURNED} == RETURNED
        assert not reply.headers.keys() & {"set-cookie", "authorization", "openai-organization", "x-should-retry"}
        assert reply.headers["x-request-id"].startswith("req_")
        assert "request-id" not in reply.headers


async def test_headers_of_a_local_engine_stay_here() -> None:
    answer = Answer.json({"choices": [CHOICE], "usage": {}}, 200, dict(ANSWERED))
    async with pair(answer) as (_, _, router):
        reply = await router.chat()
        assert reply.status_code == 200
        assert not reply.headers.keys() & RETURNED.keys()


async def test_a_backends_own_headers() -> None:
    stream = streams.chat("alpha")
    async with FaultUpstream(Answer.stream(stream.body)) as upstream:
        line = local(upstream)[:-1] + ", headers: {CF-Access-Client-Secret: '${ACCESS}', traceparent: mine}}"
        async with routing(settings(line), environment={"ACCESS": "open-sesame"}) as router:
            assert (await router.chat({"stream": True}, traceparent=TRACE)).status_code == 200
            got = upstream.seen[0].headers
            assert (got["cf-access-client-secret"], got["traceparent"]) == ("open-sesame", "mine")
            upstream.answer = Answer.json({"error": {"message": "open-sesame is wrong", "code": "x"}}, 422)
            assert "open-sesame" not in (await router.chat()).text
            assert "open-sesame" not in repr(router.runtime.services.config())


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ("{Host: x}", "Host is set by Spillway"),
        ("{authorization: Bearer secret-value}", "set the key as api_key"),
        ("{'a b': secret-value}", "is no name of a header"),
        ('{a: "secret-value\\r\\nb: c"}', "printable ASCII"),
        ("{a: secret-value, A: secret-value}", "stands there twice"),
        ("{a: '${NOT_SET}'}", "export NOT_SET"),
    ],
)
def test_unusable_headers_are_a_problem_of_the_configuration(headers: str, problem: str) -> None:
    text = f"backends: [{{name: e, provider: vllm, local: true, model: m, headers: {headers}}}]\n"
    with pytest.raises(ConfigError, match=problem) as raised:
        assembly_of(Loaded(load.parse(text, {}), None, text, {}), date(2026, 11, 20))
    assert "secret-value" not in str(raised.value)
