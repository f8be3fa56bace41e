"""Failed logins are counted, logged without the key, and slowed; nobody else is."""

from __future__ import annotations

import logging
from hashlib import sha256

import pytest
from tests.proxy.control.helpers import bearer, get
from tests.proxy.entry.helpers import saying

from spillway_router.core.routing.model import Refusal
from spillway_router.proxy.request.failed_logins import MOST_ADDRESSES, MOST_LINES, FailedLogin, FailedLogins
from spillway_router.proxy.request.peers import address_group
from spillway_router.testing.harness import Router, error_of, pair

REFUSED = Refusal(401, "invalid_api_key", "The API key is not valid or was revoked.")
WRONG = "sk-spill-0123456789ab-" + "0" * 64
SLOW = "keys: {required: true, failed_logins_per_minute: 3}\n"


def failure(host: str = "192.0.2.7", token: str = WRONG) -> FailedLogin:
    return FailedLogin("invalid", token, host, REFUSED)


def statuses(logins: FailedLogins, hosts: list[str], now_s: float = 1000.0, per_minute: int = 2) -> list[int]:
    return [logins.answer(failure(host), now_s, per_minute).status for host in hosts]


def test_an_address_that_fails_too_often_gets_a_429_until_its_permits_grow_back() -> None:
    logins = FailedLogins()
    assert statuses(logins, ["192.0.2.7"] * 4) == [401, 401, 429, 429]
    slowed = logins.answer(failure(), 1000.0, 2)
    assert (slowed.code, slowed.final, slowed.retry_after_s) == ("rate_limited", True, pytest.approx(30.0))
    assert "not valid" in slowed.message
    assert "wait 30 s" in slowed.message
    assert statuses(logins, ["192.0.2.7"] * 2, 1031.0) == [401, 429]
    assert statuses(logins, ["192.0.2.8"]) == [401]
    assert (logins.counts["invalid"], logins.slowed) == (8, 4)


def test_a_clock_that_goes_back_and_no_limit_slow_nobody_wrongly() -> None:
    logins = FailedLogins()
    assert statuses(logins, ["192.0.2.7"], 1000.0) + statuses(logins, ["192.0.2.7"], 0.0) == [401, 401]
    assert statuses(logins, ["192.0.2.7"] * 50, per_minute=0) == [401] * 50


def test_the_table_of_addresses_is_bounded_and_forgets_the_one_that_failed_longest_ago() -> None:
    logins = FailedLogins()
    statuses(logins, ["first", "192.0.2.7", "192.0.2.7"])  # "first" is no address: a Unix socket
    statuses(logins, [f"10.0.{n >> 8}.{n & 255}" for n in range(MOST_ADDRESSES - 2)])
    assert logins.addresses() == MOST_ADDRESSES
    assert statuses(logins, ["192.0.2.7"]) == [429]
    statuses(logins, [f"10.1.{n >> 8}.{n & 255}" for n in range(MOST_ADDRESSES + 5)])
    assert logins.addresses() == MOST_ADDRESSES
    assert statuses(logins, ["192.0.2.7"]) == [401]


def test_an_ipv6_client_has_one_count_for_its_whole_network() -> None:
    assert address_group("2001:db8::1") == address_group("2001:db8::2:3") == "2001:db8::/64"
    assert address_group("::ffff:192.0.2.7") == address_group("192.0.2.7") == "192.0.2.7"
    assert (address_group("::1"), address_group("")) == ("::1", "")


def test_log_lines_are_bounded_and_name_no_key(caplog: pytest.LogCaptureFixture) -> None:
    logins = FailedLogins()
    with caplog.at_level(logging.WARNING, "spillway"):
        for _ in range(500):
            logins.answer(failure(), 1000.0, 0)
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == MOST_LINES
        digest = sha256(WRONG.encode()).hexdigest()
        assert lines[0] == f"failed login from 192.0.2.7: invalid key, key with SHA-256 {digest[:8]}..."
        assert not any("0123456789ab" in line or digest[:9] in line for line in lines)
        logins.answer(failure(), 1001.0, 0)
    assert caplog.records[-1].getMessage().endswith("; 490 more were not logged")


async def counted(router: Router, series: str) -> float:
    page = (await get(router, "/metrics", router.admin)).text
    return next(float(line.split()[-1]) for line in page.splitlines() if line.startswith(series))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/metrics", "/admin/reload"])
async def test_every_door_slows_wrong_keys_and_lets_a_valid_one_of_the_same_address_pass(path: str) -> None:
    wrong = {"authorization": f"Bearer {WRONG}"}
    async with pair(saying("hi"), more=SLOW) as (_, _, router):
        assert router.admin  # keys are read again once a second, so it is there before the first request

        async def ask(headers: dict[str, str]) -> int:
            if path in ("/v1/models", "/metrics"):
                return (await get(router, path, headers)).status_code
            return (await router.post({"messages": [{"role": "user", "content": "hi"}]}, path, **headers)).status_code

        assert [await ask(wrong) for _ in range(5)] == [401, 401, 401, 429, 429]
        assert await ask(router.admin) in (200, 400)  # there is no file to load again
        assert await ask({}) == 429
        assert await counted(router, 'spillway_failed_logins_total{reason="invalid"}') == 5
        assert await counted(router, 'spillway_failed_logins_total{reason="missing"}') == 1
        assert await counted(router, "spillway_slowed_logins_total") == 3


async def test_a_slowed_login_says_when_to_try_again_in_the_shape_of_its_endpoint() -> None:
    async with pair(saying("hi"), more=SLOW) as (_, _, router):
        for path in ("/v1/messages", "/v1/chat/completions") * 2:
            reply = await router.post({"messages": [{"role": "user", "content": "hi"}]}, path, x_api_key=WRONG)
        reply = await router.post({"messages": []}, "/v1/messages", x_api_key=WRONG)
        assert reply.status_code == 429
        assert 1 <= int(reply.headers["retry-after"]) <= 20
        assert reply.headers["x-should-retry"] == "false"
        assert "not valid" in error_of(reply)["message"]


async def test_probes_without_a_key_are_no_failed_logins_but_a_wrong_key_is_one() -> None:
    async with pair(saying("hi"), more=SLOW) as (_, _, router):
        for path in ("/ready", "/health", "/ping", "/"):
            await get(router, path)
        assert sum(router.runtime.failed_logins.counts.values()) == 0
        viewer = bearer(router, "viewer")
        shown = await get(router, "/ready", {"authorization": f"Bearer {WRONG}"})
        assert shown.json() == {"ready": True}
        assert router.runtime.failed_logins.counts["invalid"] == 1
        assert "backends" in (await get(router, "/ready", viewer)).json()


async def test_without_required_keys_foreign_and_administering_requests_count() -> None:
    async with pair(saying("hi")) as (_, _, router):
        assert (await get(router, "/v1/models", {"via": "1.1 caddy"})).status_code == 401
        assert (await router.post({}, "/admin/reload")).status_code == 401
        assert (await get(router, "/v1/models", {"authorization": "Bearer sk-of-somebody-else"})).status_code == 200
        counts = router.runtime.failed_logins.counts
        assert (counts["foreign"], counts["missing"], counts["invalid"]) == (1, 1, 0)
