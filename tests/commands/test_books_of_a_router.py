"""`spillway rentals` and `spillway prices list` with --url say the same of a running router as of its ledger."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.proxy.control.helpers import bearer
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.testing import Answer
from spillway_router.testing.harness import pair

WHOLE = Answer.json({"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]})


async def spillway(*words: str, code: int = 0, key: str = "") -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, list(words), env={"SPILLWAY_API_KEY": key})
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def token(headers: dict[str, str]) -> str:
    return headers["authorization"].removeprefix("Bearer ")


async def test_rentals_are_kept_at_a_running_router(tmp_path: Path) -> None:
    async with pair(WHOLE, WHOLE, folder=tmp_path) as (_, _, router):
        key, at_router = token(router.admin), ("--url", router.url)
        words = ("--gpu", "L4", "--price", "0.5", "--at", "2026-01-01T00:00Z")
        rental_id = json.loads(await spillway("rentals", "start", *words, *at_router, "--json", key=key))["id"]
        refused = await spillway("rentals", "start", *words, *at_router, code=1, key=key)
        assert f"another is needed if this is one more GPU: {rental_id} already records 1 x L4 at $0.5000/h" in refused
        stop = ("rentals", "stop", rental_id, "--at", "2026-01-03T00:00Z")
        assert f"stopped {rental_id} at 2026-01-03 00:00:00 UTC\ncost" in await spillway(*stop, *at_router, key=key)
        corrected = await spillway("rentals", "correct", rental_id, "--count", "2", *at_router, key=key)
        assert "takes its place\ncost    $24.00 -> $48.00 ($24.00)" in corrected
        config = str(tmp_path / "same.yaml")
        Path(config).write_text(f"ledger: {{url: 'sqlite:///{tmp_path / 'ledger.db'}'}}\n")
        there = json.loads(await spillway("rentals", "list", *at_router, "--json", key=key))
        here = json.loads(await spillway("rentals", "list", "-c", config, "--json"))
        declared = [[row for row in rows if row["source"] == "cli"] for rows in (here, there)]
        assert declared[0] == declared[1]
        assert sorted(row["cost_usd"] for row in declared[0]) == ["0.000000", "48.000000"]
        assert "2 x L4 at $0.5000/h" in await spillway("rentals", "list", *at_router, key=key)


async def test_who_may_not_is_told_so(tmp_path: Path) -> None:
    async with pair(WHOLE, WHOLE, folder=tmp_path) as (_, _, router):
        viewer = token(bearer(router, "viewer"))
        stop = ("rentals", "stop", "--all", "--url", router.url)
        assert "403 permission_denied" in await spillway(*stop, code=1, key=viewer)
        assert "`. Give it with --key" in await spillway(*stop, code=1)
        assert json.loads(await spillway("rentals", "list", "--url", router.url, "--json", key=viewer))[0]["id"]


async def test_prices_of_a_running_router_are_those_of_its_configuration(tmp_path: Path) -> None:
    async with pair(WHOLE, WHOLE, folder=tmp_path) as (_, _, router):
        config = tmp_path / "same.yaml"
        config.write_text(f"ledger: {{url: 'sqlite:///{tmp_path / 'ledger.db'}'}}\n")
        asked = ("prices", "list", "--provider", "groq", "--on", "2026-11-20")
        for form in ((), ("--json",)):
            there = await spillway(*asked, *form, "--url", router.url)
            assert there == await spillway(*asked, *form, "-c", str(config))
            assert "gpt-oss-20b" in there
        wrong = ("prices", "list", "--provider", "nobody", "--url", router.url)
        assert "No prices of 'nobody' are known" in await spillway(*wrong, code=1)


def test_what_is_wrong_is_named_by_its_option(tmp_path: Path) -> None:
    config = tmp_path / "spillway.yaml"
    config.write_text(f"ledger: {{url: 'sqlite:///{tmp_path / 'ledger.db'}'}}\n")
    start = ("rentals", "start", "-c", str(config), "--gpu", "L4")
    for wrong, words in (
        (("--price", "1,39"), "--price '1,39' is not an amount of money; write it like '12.50'"),
        (("--price-per-month", "0"), "--price-per-month must be above 0"),
        (("--price", "1", "--price-per-month", "2"), "--price per hour or price_per_month: give one of them"),
        ((), "--price is needed"),
        (("--price", "1", "--kind", "free"), "--kind 'free' is not known; use reserved or interruptible"),
        (("--price", "1", "--at", "2999-01-01"), "--at 2999-01-01 is in the future"),
    ):
        result = CliRunner().invoke(app, [*start, *wrong])
        assert (result.exit_code, words in result.output) == (1, True), result.output
