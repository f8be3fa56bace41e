"""The page What if: the plan of `spillway report what-if`, from the recorded traffic on."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from evidence.dashboard.scene import business

from spillway_router.dashboard.planning_pages import query_of
from spillway_router.replay.planning import PlanError, plan_values, planned

HTML = {"accept": "text/html"}


async def test_the_page_plans_as_the_command_does(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=20) as scene:
        client = scene.router.client
        asked = {"volume": "1k/day", "prompt_tokens": "900", "output_tokens": "300", "price": "2"}
        figures = (await client.get("/what-if.json", params=asked)).json()
        assert [round(one["per_day"]) for one in figures["volumes"]] == [1000, 10_000, 100_000]
        assert figures["gpus"][0]["price_per_hour_usd"] == "2"
        loaded = scene.router.runtime.config.loaded
        table = planned(query_of(asked), loaded, datetime.now(UTC).date())
        assert figures == plan_values(table)
        page = (await client.get("/what-if", params=asked, headers=HTML)).text
        assert "a month the cloud groq (gpt-oss-20b) is cheapest: $" in page
        recorded = (await client.get("/what-if.json")).json()
        assert recorded["prompt_tokens"] > 1000  # the requests of the business, and not the default


async def test_what_cannot_be_planned_is_said_and_the_form_stays(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=4) as scene:
        client = scene.router.client
        reply = await client.get("/what-if?volume=many", headers=HTML)
        assert reply.status_code == 400
        assert "is not a volume" in reply.text
        assert 'value="many"' in reply.text
        assert (await client.get("/what-if.json?price=dear")).status_code == 400


@pytest.mark.parametrize("fields", [{"load": "x"}, {"prompt_tokens": "-1"}, {"hours_per_day": "25"}])
def test_a_field_that_is_no_number_is_named(fields: dict[str, str]) -> None:
    with pytest.raises(PlanError, match=next(iter(fields)).replace("_", " ")):
        query_of(fields)


async def test_the_recorded_requests_come_again_under_the_policy_that_somebody_tries(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=10, size=1) as scene:
        client = scene.router.client
        calm = (await client.get("/what-if", headers=HTML)).text
        assert "Replayed:" not in calm  # nobody asked for it
        figures = (await client.get("/what-if/replay.json", params={"order": "cloud"})).json()
        rows = {row["name"]: row for row in figures["policies"]}
        assert list(rows) == ["recorded", "as configured", "tried"]
        assert rows["tried"]["shares"]["local"] < 0.05 < rows["as configured"]["shares"]["local"]
        assert rows["tried"]["cloud_nano"] > rows["as configured"]["cloud_nano"]
        assert not figures["older_left_out"]
        page = (await client.get("/what-if", params={"order": "cloud", "replay": "1"}, headers=HTML)).text
        assert "With clouds first, then the GPUs, these " in page
        assert f"Replayed: {figures['requests']:,} requests from " in page
        assert ", all on record. Nothing was sent." in page


async def test_a_slider_that_was_not_moved_tries_nothing(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=2, size=1) as scene:
        asked = {"ttft_ms": "2000", "threshold": "0.6"}  # as configured
        figures = (await scene.router.client.get("/what-if/replay.json", params=asked)).json()
        assert [row["name"] for row in figures["policies"]] == ["recorded", "as configured"]
        page = (await scene.router.client.get("/what-if", params=asked | {"replay": "1"}, headers=HTML)).text
        assert "As configured, the replay answers " in page


@pytest.mark.parametrize(
    ("field", "text"), [("ttft_ms", "soon"), ("ttft_ms", "0"), ("threshold", "2"), ("order", "${HOME}")]
)
async def test_a_trial_that_cannot_be_done_is_said(tmp_path: Path, field: str, text: str) -> None:
    async with business(tmp_path, per_day=2, size=1) as scene:
        reply = await scene.router.client.get("/what-if/replay.json", params={field: text})
        assert reply.status_code == 400
        assert f"{field} is '{text}'" in reply.json()["error"]["message"]
        page = await scene.router.client.get("/what-if", params={field: text, "replay": "1"}, headers=HTML)
        assert page.status_code == 400
        assert f"{field} is" in page.text
