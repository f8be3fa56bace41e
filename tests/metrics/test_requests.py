"""Metrics of whole answers and of charges by model and key, and the line of the log per request."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from tests.proxy.control.helpers import WHOLE, bearer, get

from spillway_router.core.routing.model import Caller
from spillway_router.metrics.requests import RequestMetrics
from spillway_router.testing import Answer
from spillway_router.testing.harness import pair

BUSY = Answer.json({"error": {"code": 503, "message": "full"}}, 503)


async def test_metrics_tell_the_time_of_answers_and_charges_by_model_decision_and_key(tmp_path: Path) -> None:
    async with pair(BUSY, WHOLE, folder=tmp_path, more="keys: {required: true}\n") as (_, _, router):
        viewer, ann = bearer(router, "viewer"), bearer(router, "inference", "ann")
        await router.chat({"max_tokens": 5}, **ann)
        await router.chat({"model": "nowhere"}, **ann)
        page = (await get(router, "/metrics", viewer)).text
        key_id = (await get(router, "/v1/requests", viewer)).json()["requests"][0]["key_id"]
    assert 'spillway_answer_seconds_count{decision="overflow"} 1.0' in page
    assert page.count("spillway_answer_seconds_count{") == 1  # a refusal is no answer
    assert 'spillway_model_cost_usd_total{decision="overflow",model="cloud-m"} 5e-06' in page
    assert f'spillway_key_cost_usd_total{{key="{key_id}"}} 5e-06' in page


async def test_keys_after_the_first_hundred_share_a_series(tmp_path: Path) -> None:
    async with pair(BUSY, WHOLE, folder=tmp_path) as (_, _, router):
        await router.chat({"max_tokens": 5})
        (record,) = router.runtime.services.records.recent(1)
    metrics = RequestMetrics()
    for i in range(150):
        facts = replace(record.facts, caller=Caller(key_id=f"k{i}"))
        metrics.on_request(replace(record, facts=facts))
    (family,) = [one for one in metrics.collect() if one.name == "spillway_key_cost_usd"]
    values = {sample.labels["key"]: sample.value for sample in family.samples}
    assert len(values) == 101
    assert values["other"] == pytest.approx(50 * 5e-6)
    assert values["k99"] == pytest.approx(5e-6)


@pytest.mark.parametrize("wanted", [True, False])
async def test_the_log_has_one_line_of_json_per_request_where_it_is_wanted(
    wanted: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "spillway.requests")
    more = f"log: {{requests: {json.dumps(wanted)}}}\n"
    async with pair(BUSY, WHOLE, folder=tmp_path, more=more) as (_, _, router):
        spilled = await router.chat({"max_tokens": 5})
        await router.chat({"model": "nowhere"})
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "spillway.requests"]
    if not wanted:
        assert lines == []
        return
    first, second = lines
    assert (first["id"], first["decision"], first["cost_usd"]) == (
        spilled.headers["x-request-id"], "overflow", "0.000005",
    )  # fmt: skip
    assert (second["ended"], second["code"]) == ("refused", "model_not_found")
    assert "Which eye" not in caplog.text
