"""`spillway status`, `spillway top` and `spillway requests` of a running router, on wide and on narrow terminals."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.commands.requests import columns_within
from spillway_router.testing import Answer
from spillway_router.testing.harness import Router, pair

WHOLE = Answer.json({"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]})


async def shown(router: Router, *words: str, width: int = 120) -> str:
    terminal = {"SPILLWAY_API_KEY": router.admin["authorization"].removeprefix("Bearer "), "COLUMNS": str(width)}
    command = [*words, "--url", router.url]
    result = await asyncio.to_thread(CliRunner().invoke, app, command, env=terminal)
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_a_price_that_nobody_said_is_no_silent_zero(tmp_path: Path) -> None:
    async with pair(WHOLE, WHOLE, folder=tmp_path) as (_, _, router):
        await router.chat()
        text = await shown(router, "status")
        assert text.startswith("All well: 100% of the last 1 answer came from the own GPU.\n")
        assert "The GPU's price is unknown" in text
        assert "Set gpu.price_per_hour" in text
        assert "The GPU's price is unknown" in await shown(router, "top", "--once")
    async with pair(WHOLE, WHOLE, more='gpu: {price_per_hour: "0"}', folder=tmp_path) as (_, _, router):
        assert "unknown" not in await shown(router, "status")


@pytest.mark.parametrize("width", [40, 60, 80, 120])
async def test_a_narrow_terminal_keeps_when_what_and_how_much(tmp_path: Path, width: int) -> None:
    async with pair(WHOLE, WHOLE, folder=tmp_path) as (_, _, router):
        await router.chat()
        lines = (await shown(router, "top", "--once", width=width)).splitlines()
        head = next(line for line in lines if line.startswith("time (UTC)"))
        row = lines[lines.index(head) + 1]
        assert max(map(len, lines)) <= width
        assert "decision" in head
        assert "local" in row
        assert row.split()[-1 if width < 120 else -2] == "$0.0000"


async def test_the_list_is_whole_whatever_the_width_so_that_other_programs_can_read_it(tmp_path: Path) -> None:
    async with pair(WHOLE, WHOLE, folder=tmp_path) as (_, _, router):
        request_id = (await router.chat()).headers["x-request-id"]
        assert request_id in await shown(router, "requests", width=40)
        assert json.loads(await shown(router, "requests", "--json"))["requests"][0]["id"] == request_id


def test_columns_go_in_a_stated_order() -> None:
    everything = columns_within(1000)
    narrower = [columns_within(width) for width in range(120, 20, -1)]
    assert everything[0] == "time (UTC)"
    assert narrower[0] == everything
    assert set(narrower[-1]) == {"time (UTC)", "decision", "cost"}
    assert all(set(after) <= set(before) for before, after in pairwise(narrower))
