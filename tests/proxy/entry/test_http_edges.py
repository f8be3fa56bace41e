"""What clients, browsers, proxies and load balancers send beyond plain HTTP/1.1 requests."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from pathlib import Path

import httpx
import pytest
from tests.proxy.control.helpers import bearer
from tests.proxy.entry.helpers import answer_of, post, saying, talking

from spillway_router.testing import Answer
from spillway_router.testing.harness import LIMIT_S, MESSAGES, Router, pair
from spillway_router.testing.streams import delta

BODY = json.dumps({"model": "m", "messages": MESSAGES}).encode()
CORS = "cors: {origins: ['https://chat.example.com']}\n"
PAGE = {"origin": "https://chat.example.com"}
KEYS = "keys: {required: true}\n"


async def exchanged(router: Router, request: bytes) -> bytes:
    """Return everything that comes back for one request that asks for the connection's end."""
    async with talking(router) as (reader, writer):
        writer.write(request)
        async with asyncio.timeout(LIMIT_S):
            return await reader.read()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health\r\nhost: localhost\r\n\r\n",
        b"GET /health HTTP/2.0\r\nhost: localhost\r\n\r\n",
        b"GET /health HTTP/0.9\r\nhost: localhost\r\n\r\n",
        b"POST /v1/chat/completions HTTP/2.0\r\nhost: localhost\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.0\r\nhost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_a_head_of_another_version_is_refused_and_the_connection_closed(head: bytes) -> None:
    async with pair(saying("hi")) as (engine, _, router):
        answer = await exchanged(router, head)
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_request"
        assert not engine.seen


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route/explain"])
@pytest.mark.parametrize("coding", ["gzip, chunked", "identity, chunked", "chunked, chunked"])
async def test_a_transfer_coding_that_nobody_undoes_is_refused(coding: str, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n"
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    async with pair(saying("hi")) as (engine, other, router):
        whole = f"{head}transfer-encoding: Chunked\r\n\r\n".encode() + chunks
        assert (await exchanged(router, whole)).startswith(b"HTTP/1.1 200 ")
        engine.seen.clear()
        coded = f"{head}transfer-encoding: {coding}\r\n\r\n".encode() + chunks
        assert (await exchanged(router, coded)).startswith(b"HTTP/1.1 400 ")
        assert not [*engine.seen, *other.seen]


async def test_connect_is_refused_as_a_method() -> None:
    async with pair(saying("hi")) as (_, _, router):
        request = b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\nconnection: close\r\n\r\n"
        answer = await exchanged(router, request)
        assert answer.startswith(b"HTTP/1.1 405")
        assert b"allow: GET, HEAD, OPTIONS" in answer


async def send(router: Router, method: str, path: str, **headers: str) -> httpx.Response:
    """Send a request without a body; headers are named with underscores."""
    return await router.client.request(method, path, headers={n.replace("_", "-"): v for n, v in headers.items()})


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/ping", "/v1/models"])
async def test_head_is_answered_like_get_without_the_body(path: str) -> None:
    async with pair(saying("hi")) as (_, _, router):
        head, get = await send(router, "HEAD", path), await send(router, "GET", path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize("line", [b"GET /health", b"HEAD /ready", b"GET /ping", b"OPTIONS /", b"GET /"])
async def test_a_load_balancer_may_probe_with_http_1_0_and_without_a_host(line: bytes) -> None:
    async with pair(saying("hi")) as (_, _, router):
        answer = await exchanged(router, line + b" HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 20")


@pytest.mark.parametrize("line", [b"GET /health HTTP/1.1", b"GET /v1/models HTTP/1.0"])
async def test_everything_else_needs_a_host(line: bytes) -> None:
    async with pair(saying("hi")) as (_, _, router):
        answer = await exchanged(router, line + b"\r\nconnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("more", [b"", b"transfer-encoding: chunked\r\n"])
async def test_an_offer_of_http_2_is_ignored_and_the_body_is_read(more: bytes) -> None:
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" + offer
    if more:
        request = head + more + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    else:
        request = head + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    async with pair(saying("hi")) as (engine, _, router), talking(router) as (reader, writer):
        writer.write(request)
        assert (await answer_of(reader))[0] == 200
        for i in range(len(request)):  # the connection is kept, and every cut of the next request's packets is read
            if i in (len(head) - 3, len(request) - len(BODY) - 1, len(request) - len(BODY), len(request) - 2):
                writer.write(request[:i])
                await writer.drain()
                await router.until(lambda: True)
                writer.write(request[i:] + post())
                assert [(await answer_of(reader))[0] for _ in range(2)] == [200, 200]
        assert [seen.body for seen in engine.seen] == [BODY] * 9


async def test_an_offer_of_http_2_is_ignored_by_the_control_api_too() -> None:
    offer = b"connection: Upgrade\r\nupgrade: h2c\r\ncontent-type: application/json\r\n"
    head = b"POST /v1/route/explain HTTP/1.1\r\nhost: localhost\r\n" + offer
    async with pair(saying("hi")) as (_, _, router), talking(router) as (reader, writer):
        for _ in range(2):
            writer.write(head + b"content-length: %d\r\n\r\n" % len(BODY) + BODY)
            status, body = await answer_of(reader)
            assert (status, "decision" in json.loads(body)) == (200, True)


@pytest.mark.parametrize(
    "target",
    [
        b"http://router.example.com:8080/v1/chat/completions?x=1",
        b"/v1/chat/completions/",
        b"//v1/chat/completions",
        b"/v1//chat/completions",
        b"/v1/v1/chat/completions",
        b"/chat/completions",
    ],
)
async def test_an_inference_route_is_found_in_every_usual_spelling(target: bytes) -> None:
    async with pair(saying("hi")) as (_, _, router), talking(router) as (reader, writer):
        writer.write(post(target))
        assert (await answer_of(reader))[0] == 200


@pytest.mark.parametrize(
    "target", ["http://a/v1/models", "/v1/models/", "//v1/models", "/v1/v1/models", "/models", "/models/auto"]
)
async def test_a_control_route_is_found_in_every_usual_spelling(target: str) -> None:
    async with pair(saying("hi")) as (_, _, router), talking(router) as (reader, writer):
        writer.write(f"GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        assert (await answer_of(reader))[0] == 200


@pytest.mark.parametrize("path", ["/admin/reload/", "//admin/reload", "/metrics/", "/docs/"])
async def test_no_path_outside_of_the_api_has_a_second_spelling_or_a_redirect(path: str) -> None:
    async with pair(saying("hi")) as (_, _, router), talking(router) as (reader, writer):
        writer.write(f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n".encode())
        assert (await answer_of(reader))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "cure"),
    [
        ("GET", "/v1", "Name a route below it, such as /v1/models."),
        ("GET", "/usage", "Did you mean /v1/usage? The base URL of a client of OpenAI's API ends with /v1."),
        ("GET", "/openai/v1/models", "Did you mean /v1/models?"),
        ("POST", "/openai/deployments/auto/chat/completions", "Did you mean /v1/chat/completions?"),
        ("POST", "/api/v1/messages", "Did you mean /v1/messages?"),
        ("GET", "/v1/health", "Did you mean /health? GET /docs"),
        ("POST", "/api/chat", "That is a route of Ollama's API."),
        ("GET", "/api/tags", "That is a route of Ollama's API."),
        ("POST", "/v1/images/generations", "does not exist. GET /docs lists the routes."),
        ("GET", "/v1/no/such/thing", "does not exist. GET /docs lists the routes."),
    ],
)
async def test_a_path_that_is_no_route_is_told_with_its_cure(method: str, path: str, cure: str) -> None:
    async with pair(saying("hi")) as (_, _, router):
        reply = await send(router, method, path)
        assert reply.status_code == 404
        assert cure in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", {"POST", "OPTIONS"}),
        ("POST", "/v1/models", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/v1/reviews/rev_1", {"GET", "HEAD", "POST", "OPTIONS"}),
    ],
)
async def test_a_wrong_method_is_refused_with_the_right_ones(method: str, path: str, allowed: set[str]) -> None:
    async with pair(saying("hi")) as (_, _, router):
        reply, options = await send(router, method, path), await send(router, "OPTIONS", path)
        assert (reply.status_code, options.status_code) == (405, 204)
        for answer in (reply, options):
            assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/documents/extract"])
async def test_a_page_of_a_configured_origin_may_ask(path: str) -> None:
    async with pair(saying("hi"), more=CORS + KEYS) as (_, _, router):
        wanted = {"access_control_request_method": "POST", "access_control_request_headers": "authorization,x-a"}
        allowed = await send(router, "OPTIONS", path, **PAGE, **wanted)
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-origin"] == PAGE["origin"]
        assert allowed.headers["access-control-allow-headers"] == "authorization,x-a"
        assert "access-control-allow-credentials" not in allowed.headers
        other = await send(router, "OPTIONS", path, origin="https://evil.example.com", **wanted)
        assert not [name for name in other.headers if name.startswith("access-control")]


async def test_a_page_may_read_answers_and_errors_but_needs_a_key_like_everybody() -> None:
    async with pair(saying("hi"), Answer.stream(delta({}, "stop")), more=CORS) as (_, _, router):
        for reply in (
            await router.chat(None, **PAGE),
            await router.chat({"model": 7}, **PAGE),
            await router.client.get("/v1/models", headers=PAGE),
            await router.client.get("/v1/chat/completions", headers=PAGE),
            await router.client.get("/nowhere", headers=PAGE),
        ):
            assert reply.headers["access-control-allow-origin"] == PAGE["origin"]
            assert "x-request-id" in reply.headers["access-control-expose-headers"]
        assert "access-control-allow-origin" not in (await router.chat(None, origin="https://evil.example.com")).headers
    async with pair(saying("hi"), more=CORS + KEYS) as (_, _, router):
        assert (await router.chat(None, **PAGE)).status_code == 401


async def test_without_the_setting_no_origin_is_allowed() -> None:
    async with pair(saying("hi")) as (_, _, router):
        for reply in (
            await router.chat(None, **PAGE),
            await send(router, "OPTIONS", "/v1/chat/completions", access_control_request_method="POST", **PAGE),
        ):
            assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_ends_its_sending_gets_its_answer(stream: bool) -> None:
    gate = asyncio.Event()
    text = delta({"content": "alpha"}) + delta({}, "stop") + b"data: [DONE]\n\n"
    answer = Answer.stream(text) if stream else saying("alpha")
    slow = Answer(answer.body, headers=answer.headers, gate=gate)
    async with pair(slow) as (engine, _, router), talking(router) as (reader, writer):
        writer.write(post(fields={"stream": stream}))
        await engine.arrival()
        writer.write_eof()
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        gate.set()
        async with asyncio.timeout(LIMIT_S):
            received = await reader.read()
        assert received.startswith(b"HTTP/1.1 200")
        assert b"alpha" in received


async def test_a_client_of_the_control_api_that_ends_its_sending_gets_its_answer() -> None:
    async with pair(saying("hi")) as (_, _, router), talking(router) as (reader, writer):
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n")
        writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            assert b"HTTP/1.1 200" in await reader.read()


async def test_a_byte_order_mark_before_the_body_is_left_out() -> None:
    async with pair(saying("hi")) as (engine, _, router):
        assert (await router.post(b"\xef\xbb\xbf" + BODY)).status_code == 200
        assert engine.seen[0].body == BODY
        assert (await router.post(b"\xef\xbb\xbf" + BODY, "/v1/route/explain")).status_code == 200


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        pytest.param("gzip", gzip.compress(BODY), id="gzip"),
        pytest.param("gzip", gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), id="gzip in two members"),
        pytest.param("GZIP", gzip.compress(b"\xef\xbb\xbf" + BODY), id="gzip with a byte order mark"),
        pytest.param("deflate", zlib.compress(BODY), id="deflate"),
        pytest.param("identity", BODY, id="identity"),
    ],
)
async def test_a_compressed_body_is_decoded(coding: str, body: bytes) -> None:
    async with pair(saying("hi")) as (engine, _, router):
        assert (await router.post(body, content_encoding=coding)).status_code == 200
        assert engine.seen[0].body == BODY
        assert (await router.post(body, "/v1/route/explain", content_encoding=coding)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route/explain"])
@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        pytest.param("zstd", b"\x28\xb5\x2f\xfd", 415, id="zstd"),
        pytest.param("gzip, gzip", gzip.compress(gzip.compress(BODY)), 415, id="twice"),
        pytest.param("gzip", BODY, 400, id="not compressed"),
        pytest.param("gzip", gzip.compress(BODY)[:-9], 400, id="cut short"),
        pytest.param("gzip", gzip.compress(b"") * 5000, 400, id="many members"),
        pytest.param("gzip", gzip.compress(b" " * 3_000_000), 413, id="larger than the limit"),
    ],
)
async def test_a_body_that_cannot_be_decoded_is_refused(path: str, coding: str, body: bytes, status: int) -> None:
    async with pair(saying("hi"), more="limits: {body_mb: 2}\n") as (engine, _, router):
        reply = await router.post(body, path, content_encoding=coding)
        assert reply.status_code == status, reply.text
        if status == 415:
            assert "gzip" in reply.json()["error"]["message"]
        assert not engine.seen
        assert (await router.chat()).status_code == 200


async def test_the_key_may_come_in_the_header_of_any_client(tmp_path: Path) -> None:
    async with pair(saying("hi"), more=KEYS, folder=tmp_path) as (_, _, router):
        key = bearer(router, "inference")["authorization"].removeprefix("Bearer ")
        for headers in (
            {"authorization": f"Bearer {key}"},
            {"authorization": f"Bearer {key}", "x_api_key": ""},
            {"x_api_key": key, "authorization": "Bearer of the load balancer"},
            {"api_key": key},
        ):
            assert (await router.chat(None, **headers)).status_code == 200
        assert (await router.chat(None, x_api_key="", api_key="")).status_code == 401


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": "a", "max_tokens": 0, "echo": True, "logprobs": 1}),
        ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 5.0}),
        ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": "16", "n": 1.0}),
    ],
)
async def test_numbers_are_read_as_the_engine_reads_them(path: str, fields: dict[str, object]) -> None:
    async with pair(saying("hi")) as (engine, _, router):
        body = json.dumps({"model": "m", **fields}).encode()
        assert (await router.post(body, path)).status_code == 200
        assert engine.seen[0].body == body


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a", "max_tokens": 0},
        {"prompt": "a", "max_tokens": 0.5, "echo": True},
        {"prompt": "a", "max_tokens": "9" * 5000},
        {"prompt": "a", "max_tokens": 1e300},
        {"prompt": "a", "max_tokens": "-1"},
        {"prompt": "a", "n": "x"},
    ],
)
async def test_other_numbers_are_refused(fields: dict[str, object]) -> None:
    async with pair(saying("hi")) as (engine, _, router):
        assert (await router.post({"model": "m", **fields}, "/v1/completions")).status_code == 400
        assert not engine.seen
