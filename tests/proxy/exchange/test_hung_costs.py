"""Several paid backends that take a request and send nothing: how many of them one request may pay for."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.proxy.helpers import whole

from spillway_router.core.routing.breaker import Breaker
from spillway_router.core.routing.retry_budget import may_pay_again
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, local, routing, settings

HUNG = Answer(silent=True, end="hang")
GONE = Answer(silent=True, end="reset")
SHORT = "limits: {first_event_s: 0.2, answer_s: 0.2}\nslo: {ttft_ms: 100}\n"
FREE = '{input_per_million: "0", output_per_million: "0"}'


async def asked(router: Router, upstreams: list[FaultUpstream], stream: bool) -> tuple[int, str, list[int], int]:
    """Return the status, the reasons, the calls at each upstream, and how many calls were charged."""
    reply = await router.chat({"stream": stream})
    record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
    charged = sum(float(attempt["charge_usd"]) > 0 for attempt in record["attempts"])
    reasons = reply.headers.get("x-spillway-reason", "")
    return reply.status_code, reasons, [len(upstream.seen) for upstream in upstreams], charged


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_pays_for_two_hung_backends_at_most(stream: bool, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        hung = [await stack.enter_async_context(FaultUpstream(HUNG)) for _ in range(5)]
        config = settings(*(cloud(upstream, f"c{i}") for i, upstream in enumerate(hung)), more=SHORT)
        router = await stack.enter_async_context(routing(config, tmp_path))
        status, reasons, calls, charged = await asked(router, hung, stream)
        assert (status, calls, charged) == (504, [1, 1, 0, 0, 0], 2)
        assert "hung" in reasons


async def test_a_healthy_backend_answers_after_one_that_hangs(tmp_path: Path) -> None:
    async with (
        FaultUpstream(HUNG) as hung,
        FaultUpstream(whole("beta", -0.1)) as healthy,
        routing(settings(cloud(hung, "hung"), cloud(healthy, "healthy"), more=SHORT), tmp_path) as router,
    ):
        status, _, calls, charged = await asked(router, [hung, healthy], stream=False)
        assert (status, calls, charged) == (200, [1, 1], 2)


async def test_a_backend_that_is_silent_itself_is_not_tried_after_one_that_hung(tmp_path: Path) -> None:
    async with (
        FaultUpstream(HUNG) as first,
        FaultUpstream(HUNG) as second,
        routing(settings(cloud(first, "first"), cloud(second, "second"), more=SHORT), tmp_path) as router,
    ):
        state = router.runtime.board._states["second"]
        state.silent, state.breaker = True, Breaker(failures=3, opened_for_s=1.0)
        status, reasons, calls, charged = await asked(router, [first, second], stream=False)
        assert (status, calls, charged) == (504, [1, 0], 1)
        assert "hung" in reasons


async def test_free_and_local_backends_are_asked_all_the_same(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        hung = [await stack.enter_async_context(FaultUpstream(HUNG)) for _ in range(3)]
        free = await stack.enter_async_context(FaultUpstream(HUNG))
        engine = await stack.enter_async_context(FaultUpstream(whole("beta", -0.1)))
        paid = [cloud(upstream, f"c{i}") for i, upstream in enumerate(hung)]
        lines = [*paid, cloud(free, "free", FREE), local(engine)]
        chain = "aliases: {auto: {chain: [c0, c1, c2, free, local]}}\n"
        router = await stack.enter_async_context(routing(settings(*lines, more=SHORT + chain), tmp_path))
        status, _, calls, charged = await asked(router, [*hung, free, engine], stream=False)
        assert (status, calls, charged) == (200, [1, 1, 0, 1, 1], 2)


async def test_connections_that_break_at_once_cost_time_that_the_promise_allows(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gone = [await stack.enter_async_context(FaultUpstream(GONE)) for _ in range(3)]
        good = await stack.enter_async_context(FaultUpstream(whole("beta", -0.1)))
        upstreams = [*gone, good]
        config = settings(*(cloud(upstream, f"c{i}") for i, upstream in enumerate(upstreams)))
        router = await stack.enter_async_context(routing(config, tmp_path))
        status, _, calls, _ = await asked(router, upstreams, stream=False)
        assert (status, calls) == (200, [1, 1, 1, 1])


@pytest.mark.parametrize(
    ("lost", "elapsed_s", "silent", "may"),
    [(0, 99, True, True), (3, 2, True, True), (1, 3, False, True), (1, 3, True, False), (2, 3, False, False)],
)
def test_the_promised_time_bounds_what_silence_may_cost(lost: int, elapsed_s: float, silent: bool, may: bool) -> None:
    assert may_pay_again(lost, elapsed_s, 2.0, silent=silent) is may
