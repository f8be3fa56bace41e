"""Private content never reaches a cloud backend, on any path."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing import Answer, FakeEngine, FaultUpstream, ManualClock
from spillway_router.testing.harness import MESSAGES, cloud, error_of, local, pair, routing, serving, settings
from spillway_router.testing.streams import chat, delta

WHOLE = Answer.json({"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]})
KEYWORDS = "privacy: {keywords: [Password, Straße, 'a\"b']}\n"


def saying(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def saying_parts(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]}


def with_members(**members: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi", **members}]}


def with_part(**members: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", **members}]}]}


MARKS: dict[str, tuple[Mapping[str, Any], Mapping[str, str]]] = {
    "header": ({}, {"x_spillway_privacy": "local-only"}),
    "header in capitals": ({}, {"x_spillway_privacy": "Local-Only"}),
    "malformed header": ({}, {"x_spillway_privacy": "yes please"}),
    "empty header": ({}, {"x_spillway_privacy": ""}),
    "metadata": ({"metadata": {"privacy": "local-only"}}, {}),
    "malformed metadata": ({"metadata": {"privacy": 1}}, {}),
    "null metadata": ({"metadata": {"privacy": None}}, {}),
    "metadata against an open header": ({"metadata": {"privacy": "private"}}, {"x_spillway_privacy": "any"}),
    "keyword": (saying("my password is x"), {}),
    "keyword in capitals": (saying("MY PASSWORD"), {}),
    "keyword inside a word": (saying("old_passwords"), {}),
    "keyword against an open header": (saying("password"), {"x_spillway_privacy": "any"}),
    "keyword in a part": (saying("x") | {"tools": [{"function": {"name": "password"}}]}, {}),
    "keyword in an image's text": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "PassWord"}]}]},
        {},
    ),
    "folded letters": (saying("STRASSE"), {}),
    "keyword in a tool result of Python": (saying(json.dumps({"note": "die Straße"})), {}),
    "keyword split over parts": (saying_parts("my pass", "word is x"), {}),
    "keyword split over messages": ({"messages": [*saying("my pass")["messages"], *saying("word")["messages"]]}, {}),
    "card": (saying("4111-1111-1111-1111"), {}),
    "card as a number": (saying("x") | {"metadata": {"n": 4111111111111111}}, {}),
    "key": (saying("sk-proj-" + "aB3d" * 10), {}),
    "e-mail address against an open header": (saying("jane@example.org"), {"x_spillway_privacy": "any"}),
    "metadata in capitals": ({"metadata": {"Privacy": "local-only"}}, {}),
    "misspelt metadata": ({"metadata": {"privcy": "local-only"}}, {}),
    "private metadata": ({"metadata": {"private": True}}, {}),
    "metadata that are no object": ({"metadata": ["privacy"]}, {}),
    "mark at the top of the body": ({"privacy": "local-only"}, {}),
    "mark in a body that was meant for an SDK": ({"extra_body": {"metadata": {"privacy": "local-only"}}}, {}),
    "header in a body that was meant for an SDK": ({"extra_headers": {"x-spillway-privacy": "local-only"}}, {}),
    "metadata further down": ({"metadata": {"spillway": {"privacy": "local-only"}}}, {}),
    "metadata in a list": ({"metadata": {"options": [{"privacy": "local-only"}]}}, {}),
    "metadata as JSON in a text": ({"metadata": {"spillway": '{"privacy": "local-only"}'}}, {}),
    "metadata of a proxy": ({"litellm_metadata": {"privacy": "local-only"}}, {}),
    "metadata in another width": ({"metadata": {"ｐｒｉｖａｃｙ": "local-only"}}, {}),
    "German metadata": ({"metadata": {"privat": True}}, {}),
    "headers in the metadata": ({"metadata": {"headers": {"x-spillway-privacy": "local-only"}}}, {}),
    "headers as pairs": ({"headers": [["x-spillway-privacy", "local-only"]]}, {}),
    "headers as JSON in a text": ({"extra_headers": '{"x-spillway-privacy": "local-only"}'}, {}),
    "headers of a client": ({"default_headers": {"X-Spillway-Privacy": "local-only"}}, {}),
    "an object of ours": ({"spillway": {"privacy": "local-only"}}, {}),
    "keyword with a quote": (saying('x a"b y'), {}),
    "metadata of a message": (with_members(metadata={"privacy": "local-only"}), {}),
    "metadata of a message in a list": (with_members(metadata=[["privacy", "local-only"]]), {}),
    "a message's own mark": (with_members(privacy="local-only"), {}),
    "a message's own mark, misspelt": (with_members(privcy=True), {}),
    "options of a message": (with_members(providerOptions={"spillway": {"privacy": "local-only"}}), {}),
    "metadata of a part": (with_part(metadata={"privacy": "local-only"}), {}),
    "a part's own mark": (with_part(private=True), {}),
    "tags": ({"tags": ["a", "privacy:local-only"]}, {}),
    "tags of the metadata": ({"metadata": {"tags": ["private", "law"]}}, {}),
    "tags in one text": ({"metadata": {"tags": "a; local-only"}}, {}),
    "tags as JSON in a text": ({"metadata": {"tags": '["a", "privacy=private"]'}}, {}),
    "tags of a message": (with_members(tags=["visibility:private"]), {}),
    "tags as objects": ({"labels": [{"key": "privacy", "value": "local-only"}]}, {}),
    "tags as names and values": ({"labels": {"privacy": "local-only"}}, {}),
    "too many tags": ({"tags": ["a"] * 10_001}, {}),
    "too many tags in one text": ({"tags": "a," * 10_001}, {}),
    "a tag of too many pieces": ({"tags": ["a:" * 10_001]}, {}),
    "tags of a proxy": ({"litellm_metadata": {"tags": ["local-only"]}}, {}),
    "options": ({"options": {"privacy": "local-only"}}, {}),
}

OPEN: list[dict[str, Any]] = [
    {"metadata": {"tags": ["private law", "privacy:any", "privacy-policy", {"key": "privacy", "value": "public"}]}},
    {"messages": [{"role": "user", "content": "hi", "metadata": {"privacy": "any", "source": "crm"}, "tags": ["x"]}]},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"privacy": {}}}}}]},
    {"metadata": {"run": {"privacy": "any"}}},
    {"metadata": {"note": "{no JSON", "list": "[1, 2]", "privacy": "public"}},
    {"spillway": {"note": "x"}, "headers": [["x-app", "local-only"]]},
]


@pytest.mark.parametrize("fields", OPEN, ids=str)
async def test_what_is_no_mark_may_leave(fields: dict[str, Any]) -> None:
    async with FaultUpstream(WHOLE) as other, routing(settings(cloud(other))) as router:
        assert (await router.chat(fields)).status_code == 200
        assert len(other.seen) == 1


HINTS_ELSEWHERE: dict[str, tuple[str, dict[str, str]]] = {
    "query": ("?x-spillway-privacy=local-only", {}),
    "query with escapes": ("?x%2dspillway%2Dprivacy=local-only", {}),
    "query with underscores": ("?a=b&X_Spillway_Privacy=local-only", {}),
    "query without a prefix": ("?privacy=local-only", {}),
    "query with another word": ("?a=b&private", {}),
    "query with members": ("?metadata%5Bprivacy%5D=local-only", {}),
    "query with JSON": ('?metadata={"privacy":"local-only"}', {}),
    "query with a tag": ("?tags=a,private", {}),
    "header with a tag": ("", {"x_litellm_tags": "a,local-only"}),
    "header with metadata": ("", {"x_portkey_metadata": '{"privacy": "local-only"}'}),
    "header of another product": ("", {"helicone_property_privacy": "local-only"}),
    "shorter header": ("", {"x_spill_privacy": "local-only"}),
    "header without a prefix": ("", {"privacy": "local-only"}),
    "header of another prefix": ("", {"x_privacy": "local-only"}),
    "header behind a proxy's prefix": ("", {"x_litellm_spillway_privacy": "local-only"}),
}


@pytest.mark.parametrize("where", HINTS_ELSEWHERE)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/documents/extract", "/v1/messages/count_tokens"])
async def test_a_hint_where_nothing_reads_it_is_refused(where: str, path: str) -> None:
    query, headers = HINTS_ELSEWHERE[where]
    body = {"text": "hello"} if path.endswith("extract") else {"model": "auto", "messages": MESSAGES}
    async with FaultUpstream(WHOLE) as other, routing(settings(cloud(other))) as router:
        reply = await router.post(body, path + query, **headers)
        assert reply.status_code == 400
        assert "header" in error_of(reply)["message"].lower()
        assert not other.seen


DOWN: dict[str, Answer] = {
    "overflow": Answer.json({"error": {"code": 503}}, 503),
    "failover": Answer.json({"error": {"code": 500}}, 500),
    "reset": Answer(silent=True, end="rst"),
    "abort": Answer.json({"choices": [{"finish_reason": "abort"}]}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", DOWN)
@pytest.mark.parametrize("mark", MARKS)
async def test_private_content_stays(mark: str, path: str, stream: bool) -> None:
    fields, headers = MARKS[mark]
    async with pair(DOWN[path], WHOLE, more=KEYWORDS, clock=ManualClock()) as (engine, other, router):
        async with asyncio.timeout(60.0):
            asked = 0  # until the breaker is open, and after that; an engine that looks dead for a moment is not asked
            while asked < 6 or not engine.seen:
                asked += 1
                reply = await router.chat({**fields, "stream": stream}, **headers)
                assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")
                assert reply.headers["x-should-retry"] == "false"
                assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert not other.seen
        # The same failure lets open content through: the test would see a leak.
        assert (await router.chat({}, x_spillway_privacy="any")).status_code == 200
        assert len(other.seen) == 1


WAYS: dict[str, tuple[Mapping[str, Any], Mapping[str, str]]] = {
    "alias": ({"model": "auto"}, {}),
    "pinned": ({"model": "cloud/cloud-m"}, {}),
    "pinned by name": ({"model": "cloud"}, {}),
    "the cloud's model": ({"model": "cloud-m"}, {}),
    "fastest": ({"model": "auto:fastest"}, {}),
    "cheapest": ({"model": "auto:cheapest"}, {}),
    "models": ({"model": "local", "models": ["cloud/cloud-m", "cloud"]}, {}),
    "provider order": ({"provider": {"order": ["cloud"]}}, {}),
    "provider only": ({"provider": {"only": ["cloud"]}}, {}),
    "route": ({}, {"x_spillway_route": "cloud"}),
    "impatient": ({}, {"x_spillway_slo_ttft_ms": "1"}),
    "confidence": ({}, {"x_spillway_min_confidence": "1"}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("up", [True, False])
async def test_no_way_of_asking_sends_it_out(way: str, up: bool) -> None:
    fields, headers = WAYS[way]
    scored = {"token": "hi", "logprob": -9.0}
    unsure = {
        "choices": [
            {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop", "logprobs": {"content": [scored]}}
        ]
    }
    answer = Answer.json(unsure) if up else Answer.json({"error": {}}, 500)
    async with pair(answer, WHOLE, more="confidence: {threshold: 0.9, escalate_to: [cloud]}\n") as (
        _,
        other,
        router,
    ):
        reply = await router.chat(fields, x_spillway_privacy="local-only", **headers)
        if reply.status_code == 200:
            assert reply.headers["x-spillway-backend"] == "local"
        elif reply.status_code == 503:
            assert error_of(reply)["code"] == "local_only_unavailable"
        else:
            assert not up
        assert not other.seen


async def test_a_private_answer_that_is_unsure_is_not_escalated() -> None:
    engine = FakeEngine(["a", "b"], [-5.0, -5.0])
    async with (
        serving(engine) as url,
        FaultUpstream(WHOLE) as other,
        routing(
            settings(local(url + "/v1"), cloud(other), more="confidence: {threshold: 0.9, escalate_to: [cloud]}\n")
        ) as router,
    ):
        reply = await router.chat(x_spillway_privacy="local-only")
        assert reply.json()["choices"][0]["message"]["content"] == "ab"
        assert float(reply.headers["x-spillway-confidence"]) < 0.1
        assert not other.seen


@pytest.mark.parametrize("text", ['"pass\\u0077ord"', '"\\u0050\\u0041SSWORD"', '"stra\\u00dfe"'])
async def test_keywords_are_found_behind_unicode_escapes(text: str) -> None:
    async with pair(DOWN["overflow"], WHOLE, more=KEYWORDS) as (_, other, router):
        body = b'{"model":"auto","messages":[{"role":"user","content":' + text.encode() + b"}]}"
        assert (await router.post(body)).status_code == 503
        assert not other.seen


async def test_two_privacy_headers_add_up() -> None:
    async with pair(DOWN["overflow"], WHOLE) as (_, other, router):
        for marks in (("local-only", "any"), ("any", "local-only")):
            headers = [("x-spillway-privacy", mark) for mark in marks]
            body = {"model": "auto", "messages": MESSAGES}
            reply = await router.client.post("/v1/chat/completions", json=body, headers=headers)
            assert reply.status_code == 503
        assert not other.seen


async def test_the_default_and_the_key_bind() -> None:
    async with pair(DOWN["overflow"], WHOLE, more="privacy: {default: local-only}\n") as (_, other, router):
        assert (await router.chat()).status_code == 503
        assert (await router.chat(x_spillway_privacy="any")).status_code == 503
        assert not other.seen


async def test_a_private_key_binds_all_its_requests(tmp_path: Path) -> None:
    async with pair(DOWN["overflow"], WHOLE, folder=tmp_path) as (_, other, router):
        spec = KeySpec("ward", privacy="local-only", may_route=True)
        key = KeyStore(router.ledger.keys).create(spec, secrets.token_bytes(6), secrets.token_bytes(32), 0)
        for headers in ({}, {"x_spillway_privacy": "any"}, {"x_spillway_route": "cloud"}):
            reply = await router.chat(authorization=f"Bearer {key.token}", **headers)
            assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")
        assert not other.seen


async def test_a_broken_private_stream_is_not_finished_elsewhere() -> None:
    begun = Answer.stream(delta({"content": "alpha"}), end="fin")
    async with pair(begun, Answer.stream(chat("beta").body)) as (_, other, router):
        reply = await router.chat({"stream": True}, x_spillway_privacy="local-only")
        assert b"upstream_interrupted" in reply.content
        assert not other.seen


async def test_many_private_requests_at_once_all_stay() -> None:
    """A full backlog predicts a wait beyond the promise; private requests wait nevertheless, as long ones take long."""
    gate = asyncio.Event()
    async with pair(WHOLE.after(gate), WHOLE) as (_, other, router):
        body = saying("x" * 60_000)
        tasks = [asyncio.create_task(router.chat(body, x_spillway_privacy="local-only")) for _ in range(4)]
        board, queues = router.runtime.board, router.runtime.services.local_queues
        await router.until(lambda: board.in_flight()["local"] + queues.count == len(tasks))
        opened = await router.chat(body)
        assert opened.headers["x-spillway-decision"] == "overflow"
        gate.set()
        assert {r.headers["x-spillway-backend"] for r in await asyncio.gather(*tasks)} == {"local"}
        assert len(other.seen) == 1


MISSPELT = {
    "x-spillway-privcy": "x-spillway-privacy",
    "x-spillway-private": "x-spillway-privacy",
    "x-spillway-privacy-mode": "x-spillway-privacy",
    "x_spillway_privacy": "x-spillway-privacy",
    "x-spilway-privacy": "x-spillway-privacy",
    "x-spillwayprivacy": "x-spillway-privacy",
    "spillway-privacy": "x-spillway-privacy",
    "x-spillway-min-confidense": "x-spillway-min-confidence",
    "x-spillway-max-cost": "x-spillway-max-cost-usd",
    "x-spillway-routes": "x-spillway-route",
    "x-spillway-foo": "",
}


@pytest.mark.parametrize("name", MISSPELT)
async def test_a_misspelt_hint_is_refused_and_the_right_one_named(name: str) -> None:
    async with pair(DOWN["overflow"], WHOLE) as (engine, other, router):
        body = {"model": "auto", "messages": MESSAGES}
        for path in ("/v1/chat/completions", "/v1/route/explain", "/v1/documents/extract"):
            content = body if "documents" not in path else {"text": "x"}
            reply = await router.client.post(path, json=content, headers={name: "local-only"})
            error = error_of(reply)
            assert (reply.status_code, error["code"], error["param"]) == (400, "invalid_request", name)
            assert MISSPELT[name] in error["message"]
        assert not engine.seen
        assert not other.seen


HEADERS_OF_OTHERS = [
    *("x-session-id", "x-request-id", "x-stainless-lang", "x-spring-way", "x-slipway", "x-stage"),
    *("x-litellm-tags", "x-portkey-metadata", "access-control-request-private-network"),
]


@pytest.mark.parametrize("name", HEADERS_OF_OTHERS)
async def test_headers_of_others_are_no_hints(name: str) -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        body = {"model": "auto", "messages": MESSAGES}
        path = "/v1/chat/completions?api-version=2024-06-01&tags=x"
        assert (await router.client.post(path, json=body, headers={name: "x"})).status_code == 200


async def test_white_space_around_a_session_id_makes_no_other_session() -> None:
    async with pair(DOWN["overflow"], WHOLE) as (_, other, router):
        assert (await router.chat(x_session_id="s1", x_spillway_privacy="local-only")).status_code == 503
        address = router.client.base_url
        body = json.dumps({"model": "auto", "messages": MESSAGES}).encode()
        for same in (b"s1 ", b"  s1", b"s1\t"):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"connection: close\r\ncontent-length: %d\r\nx-session-id: %b\r\n\r\n%b" % (len(body), same, body)
            )
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            writer.close()
        assert not other.seen


async def test_explain_and_the_record_name_the_kind_and_never_the_text() -> None:
    more = "privacy: {keywords: [geheimwort], word_lists: [en]}\n"
    async with pair(WHOLE, WHOLE, more=more) as (_, _, router):
        body = {"model": "auto", **saying("GEHEIMWORT, date of birth, 4111 1111 1111 1111")}
        explained = (await router.client.post("/v1/route/explain", json=body)).text
        reply = await router.chat(body)
        record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).text
        for text in (explained, record):
            assert json.loads(text)["facts"]["privacy_reasons"] == ["card", "keyword", "words:en"]
            assert "geheimwort" not in text.lower()
            assert "4111" not in text
        assert "privacy" in reply.headers["x-spillway-reason"].split(",")


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
UNREADABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "picture": ("chat/completions", {"messages": [{"role": "user", "content": [PICTURE]}]}),
    "recording": (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA"}}]}]},
    ),
    "file": (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f1"}}]}]},
    ),
    "unknown part": ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}),
    "picture in a tool result": (
        "messages",
        {
            "max_tokens": 9,
            "messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]}],
        },
    ),
    "token ids": ("completions", {"prompt": [1, 2, 3]}),
    "several prompts of token ids": ("completions", {"prompt": [[1, 2], [3]]}),
    "embedding of token ids": ("embeddings", {"input": [[1, 2]]}),
    "stored response": ("responses", {"input": "x", "previous_response_id": "r1"}),
    "item by its id": ("responses", {"input": [{"type": "item_reference", "id": "i"}]}),
}


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_content_that_cannot_be_read_stays_if_so_configured(kind: str) -> None:
    path, fields = UNREADABLE[kind]
    for setting, stays in (("local-only", True), ("any", False)):
        async with pair(WHOLE, WHOLE, more=f"privacy: {{unreadable: {setting}}}\n") as (_, _, router):
            reply = await router.client.post("/v1/route/explain", json={"model": "auto", **fields})
            assert ("unreadable" in reply.json()["facts"]["privacy_reasons"]) == stays, (path, reply.text)


TEXTS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
    {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {}}]}]},
    {"prompt": ["a", "b"]},
    {"input": "x"},
    {"input": [{"type": "function_call_output", "output": "x"}, {"role": "user", "content": "x"}]},
]


@pytest.mark.parametrize("fields", TEXTS)
async def test_text_is_readable(fields: dict[str, Any]) -> None:
    async with pair(WHOLE, WHOLE, more="privacy: {unreadable: local-only}\n") as (_, _, router):
        reply = await router.client.post("/v1/route/explain", json={"model": "auto", **fields})
        assert reply.json()["facts"]["privacy_reasons"] == []


@pytest.mark.parametrize("size", [20_000, 100_000, 300_000, 3_000_000])
@pytest.mark.parametrize("private", ["Password", "4111 1111 1111 1111", "jane@example.org"])
async def test_private_content_in_a_long_body_stays(private: str, size: int) -> None:
    text = "It is an ordinary line, größer als üblich.\n" * (size // 44)
    async with pair(DOWN["overflow"], WHOLE, more=KEYWORDS) as (_, other, router):
        for at in (0, size // 2, size):
            reply = await router.chat(saying(f"{text[:at]} {private} {text[at:]}"))
            assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")
        assert not other.seen
        assert (await router.chat(saying(text))).status_code == 200
