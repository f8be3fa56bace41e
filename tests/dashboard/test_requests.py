"""The list of requests with its filters, one request's story, and what a key sees of its own."""

from __future__ import annotations

from pathlib import Path

from tests.proxy.control.helpers import WHOLE, bearer

from spillway_router.dashboard.story import story_of
from spillway_router.testing import Answer
from spillway_router.testing.harness import cloud, local, pair, routing, settings
from spillway_router.testing.upstream import FaultUpstream

HTML = {"accept": "text/html"}
SECRET = "a very private question"


async def test_the_list_shows_what_passes_the_filters_of_its_address() -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        stayed = (await router.chat()).headers["x-request-id"]
        pinned = (await router.chat({"model": "cloud/cloud-m"})).headers["x-request-id"]
        whole = (await router.client.get("/requests", headers=HTML)).text
        assert stayed in whole
        assert pinned in whole
        some = (await router.client.get("/requests?decision=pinned", headers=HTML)).text
        assert stayed not in some
        assert pinned in some
        wrong = await router.client.get("/requests?slow_ms=soon", headers=HTML)
        assert wrong.status_code == 400
        assert "write a number" in wrong.text


async def test_a_name_that_turns_the_direction_of_writing_looks_like_no_other_one() -> None:
    name = "safe\u202elive"
    async with pair(WHOLE, WHOLE) as (_, _, router):
        await router.chat({"model": name})
        page = (await router.client.get("/requests", params={"model": name}, headers=HTML)).text
        assert page.count("safe\\u202elive") == 2  # the cell and its title
        assert page.count(name) == 1
        assert f'value="{name}"' in page  # what the form sends again is what was typed


async def test_a_story_tells_attempts_reasons_and_costs_and_no_text_of_the_request() -> None:
    async with pair(Answer.json({"error": "x"}, status=500), WHOLE) as (_, _, router):
        reply = await router.chat({"messages": [{"role": "user", "content": SECRET}]})
        request_id = reply.headers["x-request-id"]
        page = (await router.client.get(f"/requests/{request_id}", headers=HTML)).text
        assert "Attempt 1: local (m)" in page
        assert "Attempt 2: cloud (cloud-m)" in page
        assert "A backend that stood before was down, limited or failed" in page
        assert "held, at most" in page
        assert SECRET not in page
        record = router.runtime.services.records.get(request_id)
        assert record is not None
        story = story_of(record, {}, details=True)
        assert [step.tone for step in story.steps] == ["", "", "bad", "good", "good"]
        assert story.timeline is not None
        assert [bar.tone for bar in story.timeline.bars] == ["failed", "cloud"]


async def test_an_older_request_is_told_from_the_ledger(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as other, routing(settings(cloud(other)), tmp_path) as router:
        request_id = (await router.chat()).headers["x-request-id"]
        router.runtime.services.records._records.clear()
        page = (await router.client.get(f"/requests/{request_id}", headers=HTML)).text
        assert "has left the memory of this router" in page
        assert "charged" in page
        assert (await router.client.get("/requests/req_nothing", headers=HTML)).status_code == 404


async def test_a_key_sees_its_own_requests_and_usage_only(tmp_path: Path) -> None:
    more = "keys: {required: true}\n"
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine), more=more), tmp_path) as router:
        mine, other = bearer(router, "inference", "mine"), bearer(router, "inference", "other")
        own = (await router.chat(**mine)).headers["x-request-id"]
        foreign = (await router.chat(**other)).headers["x-request-id"]
        listed = (await router.client.get("/requests", headers={**HTML, **mine})).text
        assert own in listed
        assert foreign not in listed
        assert (await router.client.get(f"/requests/{own}", headers={**HTML, **mine})).status_code == 200
        assert (await router.client.get(f"/requests/{foreign}", headers={**HTML, **mine})).status_code == 404
        usage = (await router.client.get("/my-usage", headers={**HTML, **mine})).text
        assert "Your key had 1 answers" in usage or "Your key had 1 answer" in usage
        assert foreign not in usage
