"""Keys, setup and reviews: what an administrator changes in a browser, and that nobody else does."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from evidence.dashboard.scene import Scene, business

from spillway_router.dashboard.admin_pages import changed_values
from spillway_router.testing.harness import Router

HTML = {"accept": "text/html"}
REQUIRED = "keys: {required: true}\n"
REVIEW = f"/reviews/rev_{0:028x}"


async def signed_in(scene: Scene) -> str:
    """Sign in with the administrator's key; return the token that forms carry."""
    client = scene.router.client
    assert (await client.post("/sign-in", data={"key": scene.key, "next": "/keys"}, headers=HTML)).status_code == 303
    field = re.search(r'name="csrf" value="([^"]+)"', (await client.get("/keys", headers=HTML)).text)
    assert field is not None
    return field.group(1)


async def post(router: Router, path: str, **fields: str) -> str:
    return (await router.client.post(path, data=fields, headers=HTML)).text


async def test_a_key_is_made_shown_once_rotated_and_revoked(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=2, more=REQUIRED) as scene:
        csrf = await signed_in(scene)
        page = await post(scene.router, "/keys", csrf=csrf, name="robot", role="inference", budget="5/day")
        token = re.search(r"sk-spill-([0-9a-f]+)-[0-9a-f]{64}", page)
        assert token is not None
        assert token.group(0) not in (await scene.router.client.get("/keys", headers=HTML)).text
        record = scene.router.runtime._keys.get(token.group(1))
        assert record is not None
        assert (record.name, record.role, record.budget_nano) == ("robot", "inference", 5_000_000_000)
        rotated = await post(scene.router, f"/keys/{record.id}/rotate", csrf=csrf)
        assert rotated.count("sk-spill-") == 1
        await post(scene.router, f"/keys/{record.id}/revoke", csrf=csrf)
        gone = scene.router.runtime._keys.get(record.id)
        assert gone is not None
        assert gone.revoked is not None
        assert "per hour, day or month" in await post(scene.router, "/keys", csrf=csrf, name="x", budget="5/fortnight")


async def test_a_form_without_its_token_and_a_key_in_a_header_change_nothing(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=2, more=REQUIRED) as scene:
        before = len(scene.router.runtime._keys.list())
        for path in ("/keys", "/setup", REVIEW):
            bearer = {**HTML, "authorization": f"Bearer {scene.key}"}
            assert (await scene.router.client.post(path, data={"name": "x"}, headers=bearer)).status_code == 403
        await signed_in(scene)
        assert "This form has expired" in await post(scene.router, "/keys", csrf="wrong", name="x")
        assert len(scene.router.runtime._keys.list()) == before


async def test_the_setup_hides_secrets_shows_what_a_reload_would_change_and_reloads(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=2, more=REQUIRED) as scene:
        csrf = await signed_in(scene)
        path = scene.router.path
        path.write_text(path.read_text().replace("api_key: k,", "api_key: a-long-secret,") + "slo: {ttft_ms: 1234}\n")
        page = (await scene.router.client.get("/setup", headers=HTML)).text
        assert "The file differs from what is in force." in page
        assert "<ins>+  ttft_ms: 1234" in page
        assert "a-long-secret" not in page
        assert "was reloaded" in await post(scene.router, "/setup", csrf=csrf)
        assert scene.router.runtime.config.assembly.policy.slo.ttft_s == 1.234
        path.write_text("slo: {ttft_ms: soon}\n")
        broken = await post(scene.router, "/setup", csrf=csrf)
        assert "The file has mistakes" in broken
        assert scene.router.runtime.config.assembly.policy.slo.ttft_s == 1.234


async def test_the_setup_shows_the_last_lines_of_the_log_and_keys_when_they_were_used(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=2, more=REQUIRED) as scene:
        await signed_in(scene)
        logging.getLogger("spillway").warning("the backup <b>failed</b>\nand this")
        page = (await scene.router.client.get("/setup", headers=HTML)).text
        assert "WARNING spillway the backup &lt;b&gt;failed&lt;/b&gt;" in page
        rows = (await scene.router.client.get("/keys.json")).json()["keys"]
        used = {row["name"]: (row["answers"], row["last_used"]) for row in rows}
        assert all((answers == "0") is (last == "not this month") for answers, last in used.values())
        days = [last for _, last in used.values() if last != "not this month"]
        assert days
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", day) for day in days)
    logging.getLogger("spillway").warning("after the end")
    assert "after the end" not in "".join(scene.router.runtime._recent_log.lines)


async def test_a_review_is_corrected_and_the_next_one_opens(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=2, more=REQUIRED) as scene:
        csrf = await signed_in(scene)
        assert "<mark" in (await scene.router.client.get(REVIEW, headers=HTML)).text
        fields = {"csrf": csrf, "action": "correct", "value:AL": "23.5", "value:id": "4711", "value:K1": "43.25"}
        reply = await scene.router.client.post(REVIEW, data=fields, headers=HTML)
        assert (reply.status_code, reply.headers["location"][:13]) == (303, "/reviews/rev_")
        record = scene.router.ledger.reviews.get(REVIEW.removeprefix("/reviews/"))
        assert record is not None
        assert (record.state, record.outcome) == ("corrected", '{"id":"4711","AL":23.5,"K1":43.25}')


def test_only_fields_that_differ_are_changed() -> None:
    values = {"id": "4711", "AL": 23.4, "note": None}
    form = {"value:id": "4711", "value:AL": "23.5", "value:note": "none seen"}
    assert changed_values(values, form) == {"AL": 23.5, "note": "none seen"}


async def test_what_the_pages_show_is_also_json_without_a_secret(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=2, more=REQUIRED) as scene:
        await signed_in(scene)
        client, secret = scene.router.client, scene.key.rpartition("-")[2]
        keys = await client.get("/keys.json")
        assert {row["name"] for row in keys.json()["keys"]} >= {"ann", "billing-service"}
        setup = await client.get("/setup.json")
        assert [name for name, *_ in setup.json()["prices"]] == ["local", "groq", "openai"]
        assert (setup.json()["problems"], setup.json()["changes"]) == ([], [])
        reviews = (await client.get("/reviews.json")).json()["reviews"]
        assert [row["schema"] for row in reviews] == ["biometry"] * 3
        usage = (await client.get("/my-usage.json?window=today")).json()
        assert usage["answers"] > 0
        assert usage["terms"]["name"] == "ann"
        assert usage["requests"][0]["key"] == "ann"
        assert secret not in keys.text + setup.text
        assert "api_key: k" not in setup.text


async def test_the_json_of_an_administrator_is_for_nobody_else(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=2, more=REQUIRED) as scene:
        for path in ("/keys.json", "/setup.json", "/reviews.json", "/my-usage.json"):
            assert (await scene.router.client.get(path)).status_code == 401


async def test_a_check_asks_every_backend_and_says_what_to_do(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=2, more=REQUIRED) as scene:
        csrf = await signed_in(scene)
        page = await post(scene.router, "/setup", csrf=csrf, action="check")
        # The made-up engines have no list of models.
        assert re.search(r"Checked in \d+\.\d s: 0 of 3 backends answered, 3 warnings\.", page) is not None
        rows = re.findall(r'<th scope="row">(\w+)</th><td class="l">unknown</td>', page)
        assert rows == ["local", "groq", "openai"]
        assert page.count("check the path of base_url") == 3
        assert "after 15 s at the latest" in page
        assert "This form has expired" in await post(scene.router, "/setup", csrf="wrong", action="check")
        assert "config@" not in page  # it means nothing to people
        assert page.count(">this configuration</td>") == 2


async def test_the_setup_shows_the_log_of_an_engine_that_this_router_runs_without_secrets(tmp_path: Path) -> None:
    more = REQUIRED + "listen: 127.0.0.1:0\n"
    async with business(tmp_path, per_day=2, more=more) as scene:
        await signed_in(scene)
        client, runtime = scene.router.client, scene.router.runtime
        assert "the engine's log" not in (await client.get("/setup", headers=HTML)).text
        path = scene.router.path
        path.write_text(path.read_text().replace("api_key: k,", "api_key: a-long-secret,"))
        assert not await runtime.reload("a test")
        runtime.engine_log = tmp_path / "engine.log"
        assert (await client.get("/setup.json")).json()["engine_log"] == []
        runtime.engine_log.write_text("loading <weights>\nkey a-long-secret was sent\n")
        assert (await client.get("/setup.json")).json()["engine_log"][0] == "loading <weights>"
        page = (await client.get("/setup", headers=HTML)).text
        assert "loading &lt;weights&gt;" in page
        assert "a-long-secret" not in page
