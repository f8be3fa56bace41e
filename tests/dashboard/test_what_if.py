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
