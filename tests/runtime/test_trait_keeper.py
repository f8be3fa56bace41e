"""Traits wait for the ledger in a bounded queue, are written together, and are only those that a rule looked at."""

from __future__ import annotations

from collections.abc import Sequence

from tests.proxy.answers import STRONG

from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.tables.request_traits import RequestTraits
from spillway_router.runtime.trait_keeper import MOST_WAITING, TraitKeeper
from spillway_router.testing.harness import Router, cloud, routing, settings
from spillway_router.testing.tables import MemoryTraits
from spillway_router.testing.upstream import FaultUpstream

RULES = "policy: {rules: [{name: hard, when: {complexity: {at_least: 9}}, forbid: cloud}]}\n"


class AwayTraits(MemoryTraits):
    """A table of a ledger that is away while `away` is set."""

    away = True

    def put(self, records: Sequence[RequestTraits]) -> None:
        if self.away:
            raise LedgerUnavailableError("away")
        super().put(records)


async def kept(router: Router) -> list[RequestTraits]:
    await router.runtime.trait_keeper.flush()
    return list(router.ledger.traits.all(0))


async def test_only_what_a_rule_looks_at_is_kept() -> None:
    async with FaultUpstream(STRONG) as strong:
        async with routing(settings(cloud(strong), more=RULES)) as router:
            reply = await router.chat()
            assert await kept(router) == [RequestTraits(reply.headers["x-request-id"], "auto", 0, "")]
        async with routing(settings(cloud(strong))) as router:
            await router.chat()
            assert await kept(router) == []


async def test_rows_wait_while_the_ledger_is_away_and_the_oldest_go_when_there_are_too_many() -> None:
    async with FaultUpstream(STRONG) as strong, routing(settings(cloud(strong), more=RULES)) as router:
        first, last = await router.chat(), await router.chat()
        table = AwayTraits()
        keeper = TraitKeeper(table, lambda: 0.0)
        old, new = (router.runtime.services.records.get(one.headers["x-request-id"]) for one in (first, last))
        assert old is not None
        assert new is not None
        keeper.on_request(old)
        await keeper.flush()
        assert list(table.all(0)) == []
        for _ in range(MOST_WAITING):
            keeper.on_request(new)
        table.away = False
        await keeper.flush()
        assert [row.request_id for row in table.all(0)] == [last.headers["x-request-id"]]
