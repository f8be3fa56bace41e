"""What load balancers of markets ask, and the page of the API below a path of a proxy."""

from __future__ import annotations

from tests.proxy.control.helpers import get
from tests.proxy.entry.helpers import saying

from spillway_router.testing.harness import pair


async def test_a_router_whose_engine_died_is_to_be_replaced() -> None:
    async with pair(saying("hi")) as (_, _, router):
        names = tuple(router.runtime.config.assembly.targets)
        for name in names:
            router.runtime.board.health(name, "starting", "loads")
        assert (await get(router, "/ping")).status_code == 204, "it will be ready"
        for name in names:
            router.runtime.board.health(name, "up", "")
        assert (await get(router, "/ping")).status_code == 200
        for name in names:
            router.runtime.board.health(name, "down", "dead")
        assert (await get(router, "/ping")).status_code == 503, "waiting for it would have no end"


async def test_the_page_of_the_api_works_below_a_prefix() -> None:
    async with pair(saying("hi")) as (_, _, router):
        page = (await get(router, "/docs", router.admin)).text
        assert 'href="openapi.json"' in page
        assert 'href="/openapi.json"' not in page
