"""Who sees which page: sessions by cookie, keys in headers, and programs on this machine."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from tests.proxy.control.helpers import WHOLE, bearer

from spillway_router.dashboard.desk import own_address
from spillway_router.dashboard.sessions import LIFE_S, MOST_OF_A_KEY, MOST_SESSIONS, Sessions
from spillway_router.ledger.records import KeyRecord
from spillway_router.ledger.tables.keys import KeyRing, KeySpec, mint
from spillway_router.testing.harness import Router, local, routing, settings
from spillway_router.testing.upstream import FaultUpstream

HTML = {"accept": "text/html,application/xhtml+xml"}
REQUIRED = "keys: {required: true}\n"


def token_of(headers: dict[str, str]) -> str:
    return headers["authorization"].removeprefix("Bearer ")


async def sign_in(router: Router, token: str, target: str = "/money", **headers: str) -> httpx.Response:
    return await router.client.post("/sign-in", data={"key": token, "next": target}, headers={**HTML, **headers})


async def test_a_browser_signs_in_once_and_its_cookie_is_not_the_key(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine), more=REQUIRED), tmp_path) as router:
        away = await router.client.get("/money?window=7d", headers=HTML)
        assert (away.status_code, away.headers["location"]) == (303, "/sign-in?next=/money%3Fwindow%3D7d")
        token = token_of(bearer(router, "viewer"))
        entered = await sign_in(router, token)
        assert (entered.status_code, entered.headers["location"]) == (303, "/money")
        cookie = entered.headers["set-cookie"]
        assert {"HttpOnly", "Path=/", "SameSite=strict", f"Max-Age={LIFE_S}"} <= set(cookie.split("; "))
        assert token not in cookie
        assert token.rpartition("-")[2] not in cookie
        page = await router.client.get("/money", headers=HTML)
        assert page.status_code == 200
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert "(viewer)" in page.text
        assert (await router.client.get("/money.json")).json()["by_day"]["requests"] == 0


async def test_signing_in_again_ends_the_session_before(tmp_path: Path) -> None:
    async with routing(settings(local("http://127.0.0.1:9/v1"), more=REQUIRED), tmp_path) as router:
        viewer, other = bearer(router, "viewer"), bearer(router, "inference")
        await sign_in(router, token_of(viewer))
        first = router.client.cookies["spillway_session"]
        await sign_in(router, token_of(other))
        assert router.client.cookies["spillway_session"] != first
        router.client.cookies.clear()
        old = await router.client.get("/money", headers={**HTML, "cookie": f"spillway_session={first}"})
        assert old.status_code == 303


async def test_a_wrong_key_is_told_and_counted(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine), more=REQUIRED), tmp_path) as router:
        refused = await sign_in(router, "sk-spill-0123456789ab-" + 64 * "0")
        assert refused.status_code == 401
        assert "not valid or was revoked" in refused.text
        assert "set-cookie" not in refused.headers
        assert (await sign_in(router, "")).status_code == 400


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
async def test_a_form_of_another_site_is_refused(headers: dict[str, str], tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine), more=REQUIRED), tmp_path) as router:
        refused = await sign_in(router, token_of(bearer(router, "viewer")), **headers)
        assert refused.status_code == 403
        assert "another site" in refused.text


async def test_a_proxy_that_changes_host_is_named_and_can_be_configured(tmp_path: Path) -> None:
    outside = {"origin": "https://llm.example.com", "sec-fetch-site": "same-origin"}
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine), more=REQUIRED), tmp_path) as router:
        viewer = token_of(bearer(router, "viewer"))
        refused = await sign_in(router, viewer, **outside)
        assert refused.status_code == 403
        assert "dashboard.origins" in refused.text
        router.path.write_text(f"{router.path.read_text()}dashboard: {{origins: ['https://llm.example.com']}}\n")
        assert (await router.reload()).status_code == 200
        assert (await sign_in(router, viewer, **outside)).status_code == 303
        foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
        assert (await sign_in(router, viewer, **foreign)).status_code == 403
        assert (await sign_in(router, viewer, **{**outside, "sec-fetch-site": "cross-site"})).status_code == 403


async def test_a_key_that_is_tried_in_any_header_of_a_browser_is_a_failed_login(tmp_path: Path) -> None:
    text = settings(local("http://127.0.0.1:9/v1"), more="keys: {required: true, failed_logins_per_minute: 2}\n")
    wrong = "sk-spill-0123456789ab-" + 64 * "0"
    async with routing(text, tmp_path) as router:
        replies = [
            await router.client.get("/money", headers={**HTML, name: value})
            for name, value in (("x-api-key", wrong), ("api-key", wrong), ("authorization", f"Bearer {wrong}"))
        ]
        assert [reply.status_code for reply in replies] == [303, 303, 429]
        assert router.runtime.services.config().auth.failures.counts["invalid"] == 3
        slowed = await sign_in(router, wrong)
        assert slowed.status_code == 429
        assert int(replies[2].headers["retry-after"]) > 0
        assert int(slowed.headers["retry-after"]) > 0
        assert (
            await router.client.get("/money", headers=HTML)
        ).status_code == 303  # a browser without a key tried none
        assert router.runtime.services.config().auth.failures.counts["missing"] == 0


async def test_forms_and_addresses_that_make_no_sense_are_refused_and_no_errors(tmp_path: Path) -> None:
    async with routing(settings(local("http://127.0.0.1:9/v1"), more=REQUIRED), tmp_path) as router:
        page = await router.client.get("/sign-in", params={"next": "//["}, headers=HTML)
        assert (page.status_code, 'name="next" value="/"' in page.text) == (200, True)
        assert (await sign_in(router, "x", origin="http://[")).status_code == 403
        many = await router.client.post("/sign-in", data={f"f{number}": "" for number in range(1001)})
        assert (many.status_code, many.json()["error"]["message"]) == (400, "A form has at most 1000 fields.")


async def test_what_a_viewer_may_see_is_kept_by_no_cache(tmp_path: Path) -> None:
    async with routing(settings(local("http://127.0.0.1:9/v1"), more=REQUIRED), tmp_path) as router:
        await sign_in(router, token_of(bearer(router, "admin")))
        for path in ("/", "/now.json", "/now", "/money.json", "/money.csv", "/requests.json", "/keys", "/setup"):
            reply = await router.client.get(path, headers=HTML if path == "/" else {})
            assert (path, reply.status_code, reply.headers.get("cache-control")) == (path, 200, "no-store")


async def test_signing_out_needs_the_token_of_the_form_and_ends_the_session(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine), more=REQUIRED), tmp_path) as router:
        await sign_in(router, token_of(bearer(router, "viewer")))
        assert (await router.client.post("/sign-out", data={"csrf": "x"})).status_code == 403
        page = (await router.client.get("/money", headers=HTML)).text
        field = re.search(r'name="csrf" value="([^"]+)"', page)
        assert field is not None
        cookie = router.client.cookies["spillway_session"]
        assert (await router.client.post("/sign-out", data={"csrf": field.group(1)})).status_code == 303
        again = await router.client.get("/money", headers={**HTML, "cookie": f"spillway_session={cookie}"})
        assert again.status_code == 303


async def test_a_revoked_key_ends_its_sessions(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine), more=REQUIRED), tmp_path) as router:
        headers, admin = bearer(router, "viewer"), router.admin
        await sign_in(router, token_of(headers))
        assert (await router.client.get("/money", headers=HTML)).status_code == 200
        key_id = token_of(headers).split("-")[2]
        assert (await router.client.request("DELETE", f"/admin/keys/{key_id}", headers=admin)).status_code == 200
        assert (await router.client.get("/money", headers=HTML)).status_code == 303


async def test_an_inference_key_does_not_see_the_money_of_others(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine), more=REQUIRED), tmp_path) as router:
        await sign_in(router, token_of(bearer(router, "inference")))
        page = await router.client.get("/money", headers=HTML)
        assert page.status_code == 403
        assert "viewer" in page.text


async def test_a_program_on_this_machine_needs_no_key_where_none_is_required(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine)), tmp_path) as router:
        home = await router.client.get("/", headers=HTML)
        assert home.status_code == 200
        assert "No request yet. Send the first one:" in home.text
        assert (await router.client.get("/")).json()["name"] == "spillway"
        proxied = await router.client.get("/", headers={**HTML, "x-forwarded-for": "203.0.113.9"})
        assert proxied.status_code == 303


def test_a_session_ends_by_time_by_a_new_secret_and_when_there_are_too_many() -> None:
    key = mint(KeySpec("ann", role="viewer"), bytes(6), bytes(32), 0).record
    keys: dict[str, KeyRecord | None] = {key.id: key}
    sessions = Sessions(lambda key_id, _: keys.get(key_id), iter(map(str, range(10_000))).__next__)
    session = sessions.begin(key, 0.0)
    assert sessions.get(session.id, LIFE_S - 1.0) is not None
    assert sessions.get(session.id, LIFE_S + 0.0) is None
    again = sessions.begin(key, 0.0)
    keys[key.id] = mint(KeySpec("ann", role="viewer"), bytes(6), b"1" * 32, 0).record
    assert sessions.get(again.id, 1.0) is None
    other = mint(KeySpec("bob"), b"2" * 6, bytes(32), 0).record
    keys[other.id] = other
    kept = sessions.begin(other, 0.0)
    for _ in range(1200):
        sessions.begin(key, 0.0)
    assert len(sessions) == MOST_OF_A_KEY + 1
    assert sessions.get(kept.id, 1.0) is not None  # no key ends the sessions of another one
    many = [mint(KeySpec("n"), number.to_bytes(6, "big"), bytes(32), 0).record for number in range(100, 1200)]
    for one in many:
        sessions.begin(one, 0.0)
    assert len(sessions) == MOST_SESSIONS


@pytest.mark.parametrize(
    ("text", "target"),
    [("/money?a=1", "/money?a=1"), ("//evil.example", "/"), ("https://evil.example", "/"), ("/\\evil", "/"), ("", "/")],
)
def test_a_sign_in_leads_on_to_this_router_only(text: str, target: str) -> None:
    assert own_address(text) == target


def test_a_key_that_has_expired_is_not_valid() -> None:
    ring = KeyRing((mint(KeySpec("ann", expires=5000), bytes(6), bytes(32), 0).record,))
    assert ring.valid("000000000000", lambda: 4.0) is not None
    assert ring.valid("000000000000", lambda: 5.0) is None
    assert ring.names() == {"000000000000": "ann"}
