"""Without a key only programs on the same machine are answered, and none of them administers the router."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tests.proxy.control.helpers import WHOLE, bearer, get
from tests.proxy.entry.helpers import saying

from spillway_router.testing.harness import Router, error_of, pair

TOKEN = "scrape-0123456789abcdef"
KEYED = "keys: {required: true}\n"
OWN_NAMES = [
    "localhost",
    "LOCALHOST:8080",
    "127.0.0.1",
    "127.0.0.1:8080",
    "127.9.8.7",
    "[::1]",
    "[::1]:80",
    "[0:0:0:0:0:0:0:1]",
]
FOREIGN_NAMES = [
    "attacker.example",
    "attacker.example:8080",
    "localhost.attacker.example",
    "127.0.0.1.nip.io",
    "api.company.com",
    "10.0.0.1",
    "192.168.1.7:8080",
    "169.254.169.254",
    "0.0.0.0",
    "[::]",
    "[2001:db8::1]",
    "[::ffff:10.0.0.1]",
    "2130706433",
    "0x7f.1",
    "127.1",
    "xlocalhost",
    "localhost.",
]
PROXY_HEADERS = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-client-cert",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-original-host",
    "x-envoy-external-address",
    "cf-connecting-ip",
    "cf-ray",
    "cf-visitor",
    "cdn-loop",
    "true-client-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "x-azure-clientip",
    "x-vercel-id",
    "tailscale-user-login",
]
FOREIGN_PAGES = [
    {"origin": "http://attacker.example:8080"},
    {"origin": "https://attacker.example"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://localhost.attacker.example"},
    {"origin": "http://localhost@attacker.example"},
    {"origin": "http://127.0.0.1.nip.io"},
    {"origin": "file://"},
    {"origin": "chrome-extension://abcdefgh"},
    {"referer": "http://attacker.example/page"},
    {"referer": "http://attacker.example/?http://localhost/"},
    {"referer": "http://attacker.example\\@localhost/"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "Cross-Site"},
]
OWN_PAGES = [
    {"origin": "http://localhost:3000"},
    {"origin": "http://127.0.0.1:8080", "referer": "http://127.0.0.1:8080/docs", "sec-fetch-site": "same-origin"},
    {"origin": "http://[::1]:8080", "sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
]
BODY = {"messages": [{"role": "user", "content": "hi"}]}
PATHS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/route/explain"),
    ("POST", "/v1/documents/extract"),
    ("POST", "/v1/feedback"),
    ("GET", "/v1/models"),
    ("GET", "/v1/usage"),
    ("GET", "/v1/requests/req_x"),
    ("GET", "/v1/reviews"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("POST", "/admin/reload"),
]


async def ask(router: Router, path: tuple[str, str], headers: dict[str, str]) -> httpx.Response:
    method, target = path
    return await router.client.request(method, target, json=BODY if method == "POST" else None, headers=headers)


@pytest.mark.parametrize("name", OWN_NAMES)
async def test_a_program_on_this_machine_needs_no_key(name: str) -> None:
    async with pair(saying("hi")) as (_, _, router):
        for path in (PATHS[0], ("GET", "/v1/models"), ("GET", "/v1/usage"), ("GET", "/metrics"), ("GET", "/docs")):
            assert (await ask(router, path, {"host": name})).status_code == 200, path


async def test_a_foreign_host_needs_a_key_everywhere() -> None:
    async with pair(saying("hi")) as (engine, other, router):
        for name in FOREIGN_NAMES:
            for path in PATHS:
                reply = await ask(router, path, {"host": name})
                assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key"), (name, path)
                assert "keys: {required: true}" in error_of(reply)["message"]
        assert not engine.seen
        assert not other.seen
        reply = await ask(router, PATHS[0], {"host": "api.company.com", **bearer(router, "inference")})
        assert reply.status_code == 200


async def test_what_a_proxy_passed_on_needs_a_key() -> None:
    async with pair(saying("hi"), more="keys: {failed_logins_per_minute: 0}\n") as (engine, _, router):
        for name in PROXY_HEADERS:
            for path in PATHS:
                assert (await ask(router, path, {name: "203.0.113.5"})).status_code == 401, (name, path)
        assert not engine.seen


async def test_what_a_page_of_another_site_sends_needs_a_key() -> None:
    async with pair(saying("hi")) as (engine, _, router):
        for page in FOREIGN_PAGES:
            for path in PATHS:
                assert (await ask(router, path, page)).status_code == 401, (page, path)
        assert not engine.seen
        for page in OWN_PAGES:
            assert (await ask(router, PATHS[0], page)).status_code == 200, page


async def test_a_configured_page_needs_no_key_and_every_page_is_not_configured_by_a_star() -> None:
    page = {
        "origin": "https://chat.example.com",
        "referer": "https://chat.example.com/",
        "sec-fetch-site": "cross-site",
    }
    async with pair(saying("hi"), more="cors: {origins: ['https://chat.example.com']}\n") as (_, _, router):
        assert (await ask(router, PATHS[0], page)).status_code == 200
        assert (await ask(router, ("GET", "/v1/models"), page)).status_code == 200
    async with pair(saying("hi"), more="cors: {origins: ['*']}\n") as (_, _, router):
        assert (await ask(router, PATHS[0], page)).status_code == 401
        assert (await ask(router, PATHS[0], page | bearer(router, "inference"))).status_code == 200


async def test_nobody_administers_without_a_key() -> None:
    async with pair(saying("hi")) as (_, _, router):
        for method, path in (
            ("POST", "/admin/reload"),
            ("GET", "/v1/reviews"),
            ("GET", "/v1/reviews/rev_x"),
            ("POST", "/v1/reviews/rev_x"),
        ):
            reply = await ask(router, (method, path), {})
            assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key"), path
            assert "spillway keys create NAME --role admin" in error_of(reply)["message"]
        some_text = {"authorization": "Bearer anything"}  # OpenAI's clients insist on a key, so any text is none
        assert (await ask(router, ("POST", "/admin/reload"), some_text)).status_code == 401
        assert (await ask(router, PATHS[0], some_text)).status_code == 200


async def test_an_admin_key_administers_where_no_key_is_needed(tmp_path: Path) -> None:
    async with pair(saying("hi"), folder=tmp_path) as (_, _, router):
        assert (await router.reload()).status_code == 200
        assert (await get(router, "/v1/reviews", router.admin)).status_code == 200


async def test_without_a_key_nobody_reads_what_keys_asked() -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        reply = await router.chat(**bearer(router, "inference"))
        path = f"/v1/requests/{reply.headers['x-request-id']}"
        assert (await get(router, path)).status_code == 404
        own = await router.chat()
        assert (await get(router, f"/v1/requests/{own.headers['x-request-id']}")).status_code == 200


async def test_where_keys_are_required_only_probes_are_open() -> None:
    async with pair(WHOLE, more=KEYED + f"metrics: {{token: {TOKEN}}}\n") as (_, _, router):
        inference = bearer(router, "inference")
        viewer = bearer(router, "viewer")
        for path in ("/metrics", "/openapi.json", "/docs"):
            assert (await get(router, path)).status_code == 401, path
        ready = await get(router, "/ready")
        assert (ready.status_code, ready.json()) == (200, {"ready": True})
        wrong = await get(router, "/ready", {"authorization": "Bearer sk-spill-x"})
        assert wrong.json() == {"ready": True}
        assert (await get(router, "/health")).status_code == 200
        assert "local" in (await get(router, "/ready", inference)).json()["backends"]
        assert (await get(router, "/docs", inference)).status_code == 200
        assert (await get(router, "/metrics", inference)).status_code == 403
        assert (await get(router, "/metrics", viewer)).status_code == 200
        scraper = {"authorization": f"Bearer {TOKEN}"}
        assert (await get(router, "/metrics", scraper)).status_code == 200
        assert (await get(router, "/metrics", {"authorization": f"Bearer {TOKEN}x"})).status_code == 401
        for path in ("/v1/usage", "/v1/models", "/v1/reviews"):  # the token opens nothing else
            assert (await get(router, path, scraper)).status_code == 401, path


async def test_answers_carry_the_headers_that_protect_pages() -> None:
    async with pair(saying("hi")) as (_, _, router):
        for path in ("/", "/docs", "/openapi.json", "/v1/models", "/nowhere", "/v1/usage", "/metrics"):
            headers = (await get(router, path)).headers
            assert "frame-ancestors 'none'" in headers["content-security-policy"], path
            assert "default-src 'none'" in headers["content-security-policy"], path
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"


async def test_the_docs_load_nothing_from_elsewhere() -> None:
    async with pair(saying("hi")) as (_, _, router):
        page = (await get(router, "/docs")).text
        for mark in ("src=", "http://", "https://", "<script", "@import", "url("):
            assert mark not in page, mark
        assert "/v1/chat/completions" in page
        assert "/v1/reviews/{review_id}" in page
