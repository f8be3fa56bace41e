"""Bad requests get the right 4xx in the OpenAI shape, reach no upstream, and do not disturb the next request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from spillway_router.proxy.control.requests import FORM_BYTES
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import LIMIT_S, MESSAGES, Router, error_of, pair

WHOLE = Answer.json({"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]})
GOOD: dict[str, Any] = {"model": "auto", "messages": MESSAGES}


async def assert_alive(router: Router, engine: FaultUpstream) -> None:
    """Check that nothing has reached the engine, and that a good request does."""
    assert not engine.seen
    assert (await router.chat()).status_code == 200
    assert len(engine.seen) == 1


def deep(levels: int) -> bytes:
    return b'{"model":"auto","messages":[{"role":"user","content":"x"}],"x":' + b"[" * levels + b"]" * levels + b"}"


RAW: dict[str, bytes] = {
    "empty": b"",
    "blank": b"  \r\n",
    "truncated": json.dumps(GOOD).encode()[:-1],
    "truncated string": b'{"model": "auto',
    "two values": b"{}{}",
    "array": b"[]",
    "array of requests": b"[" + json.dumps(GOOD).encode() + b"]",
    "string": b'"hello"',
    "number": b"7",
    "null": b"null",
    "text": b"model=auto&prompt=x",
    "no quotes": b"{model: 'auto'}",
    "comment": b'{"model":"auto"} // x',
    "trailing comma": b'{"model":"auto",}',
    "NaN": b'{"model":"auto","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
    "Infinity": b'{"model":"auto","messages":[{"role":"user","content":"x"}],"temperature":-Infinity}',
    "too large a number": b'{"model":"auto","messages":[{"role":"user","content":"x"}],"seed":' + b"9" * 5000 + b"}",
    "too large an exponent": b'{"model":"auto","messages":[{"role":"user","content":"x"}],"seed":1e999}',
    "invalid UTF-8": b'{"model":"auto","messages":[{"role":"user","content":"\xff\xfe"}]}',
    "overlong UTF-8": b'{"model":"auto","messages":[{"role":"user","content":"\xc0\xaf"}]}',
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "lone surrogate": b'{"model":"auto","messages":[{"role":"user","content":"\\ud800"}]}',
    "lone low surrogate": b'{"model":"auto","messages":[{"role":"user","content":"\\udc00x"}]}',
    "surrogate as bytes": b'{"model":"auto","messages":[{"role":"user","content":"\xed\xa0\x80"}]}',
    "control character": b'{"model":"auto","messages":[{"role":"user","content":"a\nb"}]}',
    "bad escape": b'{"model":"auto","messages":[{"role":"user","content":"\\x41"}]}',
    "too deep": deep(201),
    "far too deep": deep(200_000),
    "deep objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "key twice": b'{"model":"auto","model":"cloud","messages":[{"role":"user","content":"x"}]}',
    "key twice, escaped": b'{"model":"auto","mod\\u0065l":"cloud","messages":[{"role":"user","content":"x"}]}',
    "key twice, below": b'{"model":"auto","messages":[{"role":"user","content":"x","content":"y"}]}',
    "key twice, beside a decoy": b'{"model":"auto","messages":[{"role":"user","content":"\\":\\\\"}],"a":1,"a":2}',
}


@pytest.mark.parametrize("name", RAW)
async def test_a_body_that_is_no_request(name: str) -> None:
    async with pair(WHOLE) as (engine, _, router):
        for path in ("/v1/chat/completions", "/v1/messages", "/v1/route/explain"):
            reply = await router.post(RAW[name], path)
            assert reply.status_code == 400, reply.text
            error = error_of(reply)
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")
            assert len(error["message"]) < 500
            assert reply.headers["x-should-retry"] == "false"
        await assert_alive(router, engine)


CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
)
WRONG: list[tuple[str, dict[str, Any], str]] = [
    *((CHAT, {"model": v}, "model") for v in (1, "", [], {}, True, "x" * 257)),
    *((CHAT, {"messages": v}, "messages") for v in (None, "hi", {}, [], 1, True)),
    *((CHAT, {"messages": [v]}, "messages[0]") for v in (None, "hi", [], 1)),
    *((CHAT, {"messages": [{"role": v}]}, "messages[0].role") for v in (None, 1, [], {})),
    *((CHAT, {"messages": [{"role": "user", "content": v}]}, "messages[0].content") for v in (1, {}, True)),
    *((CHAT, {"stream": v}, "stream") for v in ("true", 2, 0.5, [], {})),
    *((CHAT, {"stream_options": v}, "stream_options") for v in ("x", 1, [], True)),
    *((CHAT, {"max_tokens": v}, "max_tokens") for v in ("five", 0, -1, 1.5, True, [], 10**7, 10**30)),
    *((CHAT, {"max_completion_tokens": v}, "max_completion_tokens") for v in ("five", 0, True)),
    *((CHAT, {"n": v}, "n") for v in ("one", 0, -1, 1.5, True, 129, 10**30)),
    *((CHAT, {"models": v}, "models") for v in ("auto", {}, [1], 1)),
    *((CHAT, {"provider": v}, "provider") for v in ("groq", [], 1)),
    *((CHAT, {"provider": {"order": v}}, "provider.order") for v in ("groq", [1], {})),
    *((CHAT, {"provider": {"only": v}}, "provider.only") for v in ("groq", [None])),
    *((CHAT, {"provider": {"ignore": v}}, "provider.ignore") for v in (1, [[]])),
    *((CHAT, {"provider": {"allow_fallbacks": v}}, "provider.allow_fallbacks") for v in ("no", 0, [])),
    *((CHAT, {"provider": {"data_collection": v}}, "provider.data_collection") for v in ("DENY", 0, [])),
    *((CHAT, {"provider": {"sort": v}}, "provider.sort") for v in ("best", 1, [], {})),
    *((CHAT, {"provider": {"max_price": v}}, "provider") for v in ("x", [1])),
    *(
        (CHAT, {"provider": {"max_price": {"prompt": v}}}, "provider.max_price.prompt")
        for v in ("x", [], "nan", -1, True)
    ),
    *((COMPLETIONS, {"prompt": v}, "prompt") for v in (None, 1, {}, True)),
    *((EMBEDDINGS, {"input": v}, "input") for v in (None, 1, {})),
    *((RESPONSES, {"input": v}, "input") for v in (None, 1, {})),
    (RESPONSES, {"input": "x", "max_output_tokens": "nine"}, "max_output_tokens"),
]


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"stream": 0}),
    (CHAT, {"n": 1.0}),
    (COMPLETIONS, {"prompt": "x", "best_of": 0}),
    (RESPONSES, {"prompt": {"id": "p"}}),
    (RESPONSES, {"previous_response_id": "r"}),
    (RESPONSES, {"conversation": "c"}),
]


@pytest.mark.parametrize(("path", "fields"), ACCEPTED)
async def test_what_engines_accept_is_passed_on_unchanged(path: str, fields: dict[str, Any]) -> None:
    async with pair(WHOLE) as (engine, _, router):
        body = {**(GOOD if path == CHAT else {"model": "auto"}), **fields}
        reply = await router.post(body, path)
        assert reply.status_code == 200, reply.text
        sent = json.loads(engine.seen[-1].body)
        assert {name: sent[name] for name in fields} == fields


async def test_a_schema_of_forty_nested_objects_is_accepted() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        schema = {"type": "object", "properties": {"a": schema}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    async with pair(WHOLE) as (engine, _, router):
        assert (await router.post({**GOOD, "response_format": form})).status_code == 200
        assert json.loads(engine.seen[-1].body)["response_format"] == form


async def test_wrong_types_are_told_with_the_field() -> None:
    async with pair(WHOLE) as (engine, _, router):
        for path, fields, param in WRONG:
            body = {**(GOOD if path == CHAT else {"model": "auto"}), **fields}
            reply = await router.post(body, path)
            assert reply.status_code == 400, (fields, reply.text)
            assert error_of(reply)["param"] == param, fields
            assert param.rpartition(".")[2] in error_of(reply)["message"], fields
        await assert_alive(router, engine)


async def test_a_null_model_means_auto_as_engines_read_it() -> None:
    async with pair(WHOLE) as (engine, _, router):
        reply = await router.post({**GOOD, "model": None}, CHAT)
        assert (reply.status_code, reply.headers["x-spillway-decision"]) == (200, "local")
        assert json.loads(engine.seen[0].body)["model"] == "m"


HINTS = [
    *(("x-spillway-min-confidence", v) for v in ("x", "", "-0.1", "1.1", "nan", "inf")),
    *(("x-spillway-slo-ttft-ms", v) for v in ("fast", "0", "-5", "nan", "1e12", "1_000")),
    *(("x-spillway-max-cost-usd", v) for v in ("free", "-1", "nan", "", "1_0")),
    *(("x-spillway-route", v) for v in ("moon", "", "local,cloud")),
    *(("x-spillway-usage-cost", v) for v in ("yes", "", "1")),
    ("x-session-id", "x" * 257),
]


async def test_a_malformed_hint_is_a_400_and_a_malformed_privacy_hint_means_private() -> None:
    async with pair(WHOLE, WHOLE) as (engine, other, router):
        for name, value in HINTS:
            reply = await router.chat(**{name: value})
            assert reply.status_code == 400, (name, value)
            assert error_of(reply)["param"] == name
        await assert_alive(router, engine)
        reply = await router.chat({"model": "cloud"}, x_spillway_privacy="perhaps")
        assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")
        assert not other.seen


TYPES = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json", "text/json"]


@pytest.mark.parametrize("kind", TYPES)
async def test_a_body_of_another_type_is_refused(kind: str) -> None:
    async with pair(WHOLE) as (engine, _, router):
        reply = await router.chat(content_type=kind)
        assert (reply.status_code, error_of(reply)["code"]) == (415, "invalid_request")
        assert "application/json" in error_of(reply)["message"]
        await assert_alive(router, engine)
        for good in ("Application/JSON; charset=utf-8", "application/vnd.api+json"):
            assert (await router.chat(content_type=good)).status_code == 200


@pytest.mark.parametrize("sized", [True, False])
async def test_a_body_of_fifty_megabytes_is_a_413(sized: bool) -> None:
    size = 50 * 1024 * 1024
    big = b'{"model":"auto","messages":[{"role":"user","content":"' + b"x" * size + b'"}]}'

    async def pieces() -> AsyncIterator[bytes]:
        for i in range(0, len(big), 1 << 20):
            yield big[i : i + (1 << 20)]

    async with pair(WHOLE) as (engine, _, router):
        headers = {"content-type": "application/json"}
        content = big if sized else pieces()
        reply = await router.client.post("/v1/chat/completions", content=content, headers=headers)
        assert (reply.status_code, error_of(reply)["code"]) == (413, "request_too_large")
        assert "limits.body_mb" in error_of(reply)["message"]
        await assert_alive(router, engine)


async def test_a_rating_is_no_document() -> None:
    async with pair(WHOLE) as (engine, _, router):
        reply = await router.post({"request_id": "x", "rating": 1, "reason": "x" * FORM_BYTES}, "/v1/feedback")
        assert (reply.status_code, error_of(reply)["code"]) == (413, "request_too_large")
        assert str(FORM_BYTES) in error_of(reply)["message"]
        await assert_alive(router, engine)


async def test_a_large_body_within_the_limit_arrives_unchanged() -> None:
    body = json.dumps({**GOOD, "model": "m", "user": "x" * 5_000_000}).encode()
    async with pair(WHOLE) as (engine, _, router):
        assert (await router.post(body)).status_code == 200
        assert engine.seen[0].body == body


@pytest.mark.parametrize("sent", [b"", b"{"], ids=["nothing", "half"])
async def test_a_body_that_never_comes_is_a_408(sent: bytes) -> None:
    async with pair(WHOLE, more="limits: {body_s: 0.05}\n") as (engine, _, router):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        answer = await raw(router, head + b"content-length: 100\r\n\r\n" + sent)
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert b"within 0.05 s" in answer
        await assert_alive(router, engine)


async def raw(router: Router, request: bytes) -> bytes:
    """Send bytes to the router, and return all that it answers until it closes the connection."""
    host, _, port = router.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        async with asyncio.timeout(LIMIT_S):
            return await reader.read()
    finally:
        writer.close()


HOSTS = {"missing": b"", "twice": b"host: a\r\nhost: b\r\n", "invalid": b"host: a b/../\r\n"}


@pytest.mark.parametrize("name", HOSTS)
async def test_a_request_without_one_valid_host_is_refused(name: str) -> None:
    async with pair(WHOLE) as (engine, _, router):
        body = json.dumps(GOOD).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\ncontent-type: application/json\r\n"
        head += HOSTS[name] + b"content-length: %d\r\n\r\n" % len(body)
        assert b" 400 " in (await raw(router, head + body)).split(b"\r\n")[0]
        await assert_alive(router, engine)


async def test_two_framings_of_one_body_are_refused() -> None:
    async with pair(WHOLE) as (engine, _, router):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 4\r\n"
        head += b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        assert b" 400 " in (await raw(router, head)).split(b"\r\n")[0]
        await assert_alive(router, engine)


async def test_other_methods_and_paths_are_told_apart() -> None:
    async with pair(WHOLE) as (engine, _, router):
        reply = await router.client.get("/v1/chat/completions")
        assert (reply.status_code, reply.headers["allow"]) == (405, "POST, OPTIONS")
        assert error_of(reply)["type"] == "invalid_request_error"
        for path in ("/v1/nothing", "/invocations", "/tokenize"):
            reply = await router.post(GOOD, path)
            assert reply.status_code in (404, 405), path
            assert error_of(reply)
        await assert_alive(router, engine)


async def test_fields_for_the_router_do_not_reach_backends_that_do_not_know_them() -> None:
    async with pair(WHOLE) as (engine, _, router):
        fields = {"models": ["cloud"], "provider": {"order": ["local"]}, "made_up": {"kept": 1.50}}
        assert (await router.chat(fields)).status_code == 200
        sent = engine.seen[0].json
        assert sent == {"model": "m", "messages": MESSAGES, "made_up": {"kept": 1.5}}
        assert b"1.5}" in engine.seen[0].body
