"""The commands that ask a running router: status, top, requests, report and explain with --url, dashboard."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spillway_router.cli import app
from spillway_router.testing import Answer
from spillway_router.testing.harness import Router, pair

BUSY = Answer.json({"error": {"code": 503, "message": "full"}}, 503)
WHOLE = Answer.json(
    {
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
)


async def spillway(router: Router, *words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, [*words, "--url", router.url], env={"COLUMNS": "160"})


async def good(router: Router, *words: str) -> str:
    result = await spillway(router, *words)
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_requests_lists_what_the_router_did(tmp_path: Path) -> None:
    async with pair(BUSY, WHOLE, folder=tmp_path) as (_, _, router):
        assert "No requests yet" in await good(router, "requests")
        spilled = (await router.chat({"max_tokens": 5})).headers["x-request-id"]
        refused = (await router.chat({"model": "nowhere"})).headers["x-request-id"]
        head, first, second = (await good(router, "requests")).splitlines()
        assert head.split()[:4] == ["time", "(UTC)", "ended", "decision"]
        assert [word in first for word in (spilled, "overflow", "cloud", "3+1", "$0.000005")] == [True] * 5
        assert refused in second
        assert "model_not_found" in second
        only = await good(router, "requests", "--refused", "--json")
        assert [line["id"] for line in json.loads(only)["requests"]] == [refused]
        assert spilled not in await good(router, "requests", "--dear", "1")
        wrong = await spillway(router, "requests", "--dear", "much")
        assert wrong.exit_code == 1
        assert "--dear 'much' is not an amount of money" in wrong.output


async def test_status_says_in_one_sentence_how_the_router_is(tmp_path: Path) -> None:
    async with pair(WHOLE, WHOLE, folder=tmp_path) as (_, _, router):
        await router.chat()
        lines = (await good(router, "status")).splitlines()
        assert lines[0] == "All well: 100% of the last 1 answer came from the own GPU."
        assert lines[1].split() == ["local", "up"]
        assert "GPU $" in lines[3]
        assert "price is unknown" in lines[4]
        state = json.loads(await good(router, "status", "--json"))
        assert (state["ready"], state["today"]["requests"]) == (True, 1)
        screen = await good(router, "top", "--once")
        assert "All well" in screen
        assert state["requests"][0]["id"] in screen


async def test_a_backend_that_is_down_is_named(tmp_path: Path) -> None:
    async with pair(WHOLE, WHOLE, folder=tmp_path) as (_, _, router):
        router.runtime.board.health("local", "down", "refused")
        assert (await good(router, "status")).startswith("Ready, but without local")


async def test_the_report_of_a_running_router_is_that_of_its_ledger(tmp_path: Path) -> None:
    async with pair(BUSY, WHOLE, folder=tmp_path) as (_, _, router):
        reply = await router.chat({"max_tokens": 5})
        assert "1 request, 1 answered" in await good(router, "report")
        piped = (await good(router, "report", "--by", "decision")).splitlines()
        assert piped[0].split("\t")[0] == "decision"
        assert "overflow" in [line.split("\t")[0] for line in piped[1:]]
        values = json.loads(await good(router, "report", "--day", "today", "--json"))
        assert values["cloud"]["cost_usd"] == reply.headers["x-spillway-cost-usd"]
        wrong = await spillway(router, "report", "--day", "soon")
        assert wrong.exit_code == 1
        assert "yesterday" in wrong.output


async def test_explain_of_a_running_router_tells_attempts_with_their_times(tmp_path: Path) -> None:
    async with pair(BUSY, WHOLE, folder=tmp_path) as (_, _, router):
        request_id = (await router.chat({"max_tokens": 5})).headers["x-request-id"]
        text = await good(router, "explain", request_id)
        assert text.startswith("overflow because of ")
        assert "attempt 1  local        overloaded" in text
        assert "attempt 2  cloud        ok" in text
        missing = await spillway(router, "explain", "req_none")
        assert (missing.exit_code, "Unknown request" in missing.output) == (1, True)
    async with pair(folder=tmp_path) as (_, _, router):
        assert "attempt 2  charged   cloud" in await good(router, "explain", request_id)


async def test_a_key_that_is_needed_and_missing_is_asked_for() -> None:
    async with pair(WHOLE, more="keys: {required: true}\n") as (_, _, router):
        refused = await spillway(router, "status")
        assert refused.exit_code == 1
        assert "--key or SPILLWAY_API_KEY" in refused.output


@pytest.mark.parametrize(
    ("url", "words"), [("http://127.0.0.1:1", "nothing answers at"), ("localhost:80", "like http://localhost:80\n")]
)
def test_an_address_without_a_router_is_explained(url: str, words: str) -> None:
    for command in ("status", "requests", "report"):
        failed = CliRunner().invoke(app, [command, "--url", url])
        assert failed.exit_code == 1
        assert words in failed.output


async def test_the_dashboard_is_where_the_router_is() -> None:
    async with pair(WHOLE) as (_, _, router):
        assert (await good(router, "dashboard", "--print")).strip() == f"{router.url}/"
