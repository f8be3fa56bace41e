"""`GET /v1/requests`: the newest requests from memory and from the ledger, filtered and paged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.proxy.control.helpers import WHOLE, bearer, get

from spillway_router.ledger.entries import Entry
from spillway_router.ledger.ids import first_id
from spillway_router.proxy.control.request_list import LineFilter, line_of_entries, page_of, stored_lines
from spillway_router.testing import Answer
from spillway_router.testing.harness import Router, error_of, pair

BUSY = Answer.json({"error": {"code": 503, "message": "full"}}, 503)


async def listed(router: Router, query: str = "", headers: dict[str, str] | None = None) -> list[dict[str, Any]]:
    reply = await get(router, f"/v1/requests{query}", headers)
    assert reply.status_code == 200, reply.text
    return list(reply.json()["requests"])


async def test_the_list_has_answered_and_refused_requests_newest_first(tmp_path: Path) -> None:
    async with pair(BUSY, WHOLE, folder=tmp_path) as (_, _, router):
        spilled = await router.chat({"max_tokens": 5})
        refused = await router.chat({"model": "nowhere"})
        newest, oldest = await listed(router)
        assert newest["id"] == refused.headers["x-request-id"]
        assert (newest["ended"], newest["status"], newest["code"]) == ("refused", 404, "model_not_found")
        assert newest["decision"] == "refused"
        counted = (await router.client.get("/metrics")).text
        assert 'spillway_requests_total{backend="",decision="refused",status="404"} 1.0' in counted
        assert (newest["alias"], newest["attempts"], newest["cost_usd"]) == ("nowhere", 0, "0.000000")
        assert oldest["id"] == spilled.headers["x-request-id"]
        assert (oldest["ended"], oldest["decision"], oldest["backend"]) == ("ok", "overflow", "cloud")
        assert (oldest["prompt_tokens"], oldest["completion_tokens"], oldest["attempts"]) == (3, 1, 2)
        assert oldest["cost_usd"] == spilled.headers["x-spillway-cost-usd"]
        assert (oldest["source"], oldest["private"]) == ("memory", False)
        assert oldest["total_ms"] > 0
        assert "Which eye" not in str(oldest)


async def test_filters_leave_what_they_name(tmp_path: Path) -> None:
    async with pair(BUSY, WHOLE, folder=tmp_path) as (_, _, router):
        spilled = (await router.chat({"max_tokens": 5})).headers["x-request-id"]
        refused = (await router.chat({"model": "nowhere"})).headers["x-request-id"]
        for query, ids in {
            "?ended=refused": [refused],
            "?decision=overflow": [spilled],
            "?backend=cloud&ended=ok": [spilled],
            "?model=nowhere": [refused],
            "?cost_usd=0.000001": [spilled],
            "?cost_usd=1": [],
            "?slow_ms=600000": [],
            f"?after={spilled}": [refused],
            f"?before={refused}": [spilled],
            "?limit=1": [refused],
            "?key=nobody": [],
        }.items():
            assert [line["id"] for line in await listed(router, query)] == ids, query


async def test_after_a_restart_the_ledger_tells_what_was_charged(tmp_path: Path) -> None:
    async with pair(BUSY, WHOLE, folder=tmp_path) as (_, _, router):
        ids = [(await router.chat({"max_tokens": 5})).headers["x-request-id"] for _ in range(3)]
    async with pair(folder=tmp_path) as (_, _, router):
        first = (await get(router, "/v1/requests?limit=2")).json()
        assert [line["id"] for line in first["requests"]] == ids[:0:-1]
        line = first["requests"][0]
        assert (line["source"], line["ended"], line["decision"]) == ("ledger", "ok", "overflow")
        assert (line["cost_usd"], line["prompt_tokens"]) == ("0.000005", 3)
        assert (line["total_ms"], line["status"]) == (None, None)
        rest = (await get(router, f"/v1/requests?limit=2&before={first['next']}")).json()
        assert [line["id"] for line in rest["requests"]] == ids[:1]
        assert rest["next"] is None


async def test_an_inference_key_sees_its_own_requests_only() -> None:
    async with pair(WHOLE, more="keys: {required: true}\n") as (_, _, router):
        viewer, ann, ben = (
            bearer(router, "viewer"),
            bearer(router, "inference", "ann"),
            bearer(router, "inference", "ben"),
        )
        mine = (await router.chat(None, **ann)).headers["x-request-id"]
        other = (await router.chat(None, **ben)).headers["x-request-id"]
        assert [line["id"] for line in await listed(router, "", ann)] == [mine]
        all_ids = [line["id"] for line in await listed(router, "", viewer)]
        assert all_ids == [other, mine]
        ben_id = (await listed(router, "", ben))[0]["key_id"]
        assert await listed(router, f"?key={ben_id}", ann) == []
        assert (await get(router, "/v1/requests")).status_code == 401


@pytest.mark.parametrize(
    ("query", "name"), [("limit=0", "limit"), ("slow_ms=fast", "slow_ms"), ("cost_usd=-1", "cost_usd"), ("x=1", "x")]
)
async def test_an_invalid_filter_is_a_400_that_names_it(query: str, name: str) -> None:
    async with pair(WHOLE) as (_, _, router):
        refused = await get(router, f"/v1/requests?{query}")
        assert (refused.status_code, error_of(refused)["param"]) == (400, name)


def row(at: int, **fields: Any) -> Entry:
    filled: dict[str, Any] = {"kind": "charged", "attempt_no": 1, "status": "ok", "backend": "b", **fields}
    return Entry(request_id=f"{first_id(at)}0", ts=at, **filled)


def test_a_request_is_told_by_the_attempt_that_answered_and_costs_what_all_of_them_cost() -> None:
    line = line_of_entries(
        (
            row(7, backend="local", status="discarded", decision="local", completion_tokens=4),
            row(7, attempt_no=2, decision="escalated", reasons="confidence,x", amount_nano=9, at_most_nano=20),
        )
    )
    assert (line.decision, line.reasons, line.ended) == ("escalated", ("confidence", "x"), "ok")
    assert (line.cost_nano, line.estimated, line.completion_tokens, line.arrived_ms) == (9, True, 4, 7)
    assert line_of_entries((row(7, kind="reserved", status=""),)).ended == "open"
    assert line_of_entries((row(7, status="error"),)).ended == "error"


def test_the_ledger_is_read_a_bounded_number_of_times_and_goes_on_where_it_stopped() -> None:
    rows = [row(at, backend="rare" if at == 1 else "b") for at in range(30_000, 0, -1)]
    reads = 0

    def entries_before(before: str, most_rows: int) -> list[Entry]:
        nonlocal reads
        reads += 1
        start = next((i for i, one in enumerate(rows) if one.request_id < before), len(rows))
        return rows[start : start + most_rows]

    wanted = LineFilter(backend="rare")
    first = stored_lines(entries_before, wanted, 5)
    assert (first.lines, reads) == ((), 10)
    second = stored_lines(entries_before, replace(wanted, before=first.next_id), 5)
    assert [line.backend for line in second.lines] == ["rare"]
    assert second.next_id == ""


def test_a_page_prefers_the_line_of_memory_and_leaves_out_what_the_ledger_was_not_read_for() -> None:
    rows = [row(at) for at in (9, 8, 7)]
    stored = stored_lines(lambda before, most: [one for one in rows if one.request_id < before], LineFilter(), 2)
    recent = [replace(line_of_entries((row(at),)), source="memory") for at in (9, 3)]
    lines, following = page_of(recent, stored, 2)
    assert [(line.arrived_ms, line.source) for line in lines] == [(9, "memory"), (8, "ledger")]
    assert following == rows[1].request_id
