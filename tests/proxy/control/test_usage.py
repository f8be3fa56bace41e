"""`GET /v1/usage`: the report over HTTP, for any days and groups."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.proxy.control.helpers import WHOLE, get

from spillway_router.testing.harness import error_of, local, routing, settings
from spillway_router.testing.upstream import FaultUpstream


async def test_usage_of_days_by_keys(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine)), tmp_path) as router:
        await router.chat()
        today = datetime.now(UTC).date()
        since = today - timedelta(days=3)
        report = (await get(router, f"/v1/usage?from={since}&to={today}&by=day,decision&by=tier")).json()
        assert report["period"]["days"] == 4
        assert report["by"] == ["day", "decision", "tier"]
        rows = [row for row in report["groups"] if not row["idle"]]
        assert [row["keys"] for row in rows] == [{"day": f"{today}", "decision": "local", "tier": ""}]
        assert rows[0]["served"]["answers"] == 1
        month = (await get(router, "/v1/usage?month=this")).json()
        assert month["period"]["name"] == f"{today:%Y-%m}"
        assert month["forecast"]["month"] == f"{today:%Y-%m}"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("by=colour", "by"),
        ("month=11", "month"),
        ("from=2026-11-02&to=2026-11-01", "to"),
        ("days=3", "days"),
        ("timezone=Mars/Olympus", "timezone"),
        ("timezone=../x", "timezone"),
        ("timezone=%C3%9A%3C%F1%A5%9F%B5", "timezone"),
    ],
)
async def test_an_invalid_usage_query_is_a_400(query: str, param: str, tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine)), tmp_path) as router:
        refused = await get(router, f"/v1/usage?{query}")
        assert (refused.status_code, error_of(refused)["param"]) == (400, param)
