"""Refusals and privacy verdicts become acts of the ledger's chain: who and why, and none of the content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from tests.proxy.control.helpers import WHOLE, bearer

from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.verify import verify
from spillway_router.runtime.verdict_acts import VerdictActs
from spillway_router.testing.harness import pair

MORE = "keys: {required: true}\ncredits: [{scope: each user, period: month, requests: 1}]\n"
SECRET = "my private password is hunter2"


def details(ledger: Ledger) -> list[dict[str, Any]]:
    acts = [each.act for each in ledger.acts.all() if each.act.kind == "request.verdicts"]
    return [orjson.loads(act.details) for act in acts]


async def test_what_was_refused_to_whom_is_one_act_of_the_chain(tmp_path: Path) -> None:
    async with pair(WHOLE, WHOLE, folder=tmp_path, more=MORE) as (_, _, router):
        key, viewer = bearer(router, "inference", per_minute=5), bearer(router, "viewer")
        ids = {record.role: record.id for record in router.ledger.keys.all()}
        private = [{"role": "user", "content": SECRET}]
        assert (await router.chat({"messages": private}, x_spillway_privacy="local-only", **key)).status_code == 200
        assert (await router.chat(**key)).status_code == 402
        assert (await router.chat({"model": SECRET}, **key)).status_code == 404
        assert (await router.post({"text": SECRET}, "/v1/documents/extract", **key)).status_code == 402
        assert (await router.post({}, "/v1/feedback", **key)).status_code == 400
        assert (await router.chat(**key)).status_code == 429
        assert (await router.chat(**viewer)).status_code == 403
        assert (await router.chat(authorization="Bearer sk-spill-x-y")).status_code == 401
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        (act,) = details(ledger)
        assert sorted(act["refused"]) == sorted(
            [
                [ids["inference"], "402 budget_exceeded", 2],
                [ids["inference"], "404 model_not_found", 1],
                [ids["inference"], "400 invalid_request", 1],
                [ids["inference"], "429 rate_limited", 1],
                [ids["viewer"], "403 permission_denied", 1],
            ]
        )
        assert act["private"] == [[ids["inference"], "header", 1]]
        assert "hunter2" not in str(ledger.acts.all())
        assert verify(ledger).faults == ()
    finally:
        ledger.close()


async def test_while_the_ledger_is_away_the_counts_wait() -> None:
    async with pair(WHOLE, WHOLE, more="keys: {required: true}\n") as (_, _, router):
        viewer = bearer(router, "viewer")
        assert (await router.chat(**viewer)).status_code == 403
        acts, record = router.ledger.acts, router.ledger.acts.record

        def away(_change: object) -> None:
            raise LedgerUnavailableError("away")

        writer = VerdictActs(acts, router.runtime.verdicts, lambda: 0.0)
        acts.record = away  # type: ignore[method-assign]
        await writer.stop()
        assert details(router.ledger) == []
        acts.record = record  # type: ignore[method-assign]
        await writer.stop()
        await writer.stop()  # nothing is left to write
        assert [act["refused"][0][1:] for act in details(router.ledger)] == [["403 permission_denied", 1]]
