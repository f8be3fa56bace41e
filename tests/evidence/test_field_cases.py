"""Every field, part and tool of the table: a provider that bills as it documents never bills more than the hold.

What has no bound is refused with a 400 that names the field and the setting, before anything is sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
import yaml
from evidence.money.documented_provider import DocumentedProviders, backends
from evidence.money.field_cases import CASES, FieldCase

from spillway_router.testing.harness import Router, error_of, routing, serving

DRAWS = 6
"""Calls of each case, as the bill draws what the documents leave open."""


def config(url: str, more: str = "") -> str:
    return yaml.safe_dump({"backends": backends(url)}) + more


BUDGET = "budgets: [{scope: all, period: day, limit_usd: '1000000'}]\n"


async def call(router: Router, provider: DocumentedProviders, case: FieldCase) -> list[str]:
    """Send the case; return what is wrong about its hold, its charge or its refusal."""
    before = len(provider.lines)
    reply = await router.post({"model": case.backend, **case.body}, case.path)
    name = f"{case.backend} {case.path} {case.name}"
    if case.refused:
        if reply.status_code == 200:
            return [f"{name}: was sent"]
        error = error_of(reply)
        assert len(provider.lines) == before
        if reply.status_code != 400:
            return [f"{name}: {reply.status_code} {error}"]
        named = any(words in error["message"] for words in ("unbounded: hold", "service_tier", "is not supported"))
        return [] if named else [f"{name}: {error}"]
    if reply.status_code != 200:
        return [f"{name}: {reply.status_code} {reply.text}"]
    # On a machine that stands still the row waits in the journal for a moment.
    await router.until(lambda: any(row.kind == "charged" for row in router.rows(reply)))
    rows = {entry.kind: entry for entry in router.ledger.entries_of(reply.headers["x-request-id"])}
    hold, charge = rows["reserved"].reserved_nano, rows["charged"].amount_nano
    billed = sum(nano for _, _, nano in provider.lines[before:])
    wrong = [f"{name}: billed {billed}, held {hold}"] if billed > hold else []
    return wrong + ([f"{name}: billed {billed}, charged {charge}"] if billed != charge else [])


async def test_no_bill_is_above_its_hold_and_each_is_the_charge(tmp_path: Path) -> None:
    provider = DocumentedProviders(seed=1)
    async with serving(provider) as url, routing(config(url, BUDGET), tmp_path) as router:
        wrong = [fault for case in CASES for _ in range(DRAWS) for fault in await call(router, provider, case)]
    assert not wrong, "\n".join(sorted(set(wrong)))


async def test_documents_by_address_can_not_pass_a_cap_however_many_come_at_once(tmp_path: Path) -> None:
    """Sixty documents took 90 USD under a cap of 1 USD, as 150 bytes were held for 300,000 tokens."""
    [case] = [case for case in CASES if case.name == "a document by url"]
    for limit, some in (("1", False), ("12", True)):
        provider = DocumentedProviders(seed=3)
        budget = f"budgets: [{{scope: all, period: day, limit_usd: '{limit}'}}]\n"
        folder = tmp_path / limit
        folder.mkdir()
        async with serving(provider) as url, routing(config(url, budget), folder) as router:
            replies = await asyncio.gather(
                *(router.post({"model": case.backend, **case.body}, case.path) for _ in range(60))
            )
        assert {reply.status_code for reply in replies} <= {200, 402}
        assert (200 in {reply.status_code for reply in replies}) == some
        assert sum(nano for _, _, nano in provider.lines) <= int(limit) * 10**9


def test_the_table_has_each_case_once() -> None:
    twice = [case for case, count in Counter((c.backend, c.path, c.name) for c in CASES).items() if count > 1]
    assert not twice
    assert {case.backend for case in CASES} >= {"gpt", "ant", "groq", "tog", "orr", "mine"}


@pytest.mark.parametrize("case", [case for case in CASES if case.name in ("mcp", "video", "background")][:3])
async def test_without_a_cap_or_with_the_setting_it_is_sent(case: FieldCase, tmp_path: Path) -> None:
    provider = DocumentedProviders(seed=2)
    async with serving(provider) as url:
        async with routing(config(url), tmp_path) as router:
            assert (await router.post({"model": case.backend, **case.body}, case.path)).status_code == 200
        rows = [{**row, "unbounded": "hold"} for row in backends(url)]
        async with routing(yaml.safe_dump({"backends": rows}) + BUDGET, tmp_path) as router:
            assert (await router.post({"model": case.backend, **case.body}, case.path)).status_code == 200
