"""What providers charge beyond plain tokens: the router reserves the bound and charges the exact amount."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from spillway_router.config.load import ConfigError
from spillway_router.core.money.tariff import nano_from_usd
from spillway_router.ledger.entries import Entry
from spillway_router.runtime.day_change import DAY_S, DayChange, utc_day
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import LIMIT_S, MESSAGES, Router, cloud, local, routing, settings
from spillway_router.testing.streams import delta

SONNET = (
    '{input_per_million: "3", output_per_million: "15", cached_input_per_million: "0.3", '
    'cache_write_per_million: "3.75", cache_write_long_per_million: "6", '
    'steps: [{above_tokens: 1000, input_per_million: "6", output_per_million: "22.5"}, '
    '{service: priority, input_per_million: "30", output_per_million: "150"}]}'
)
TIMED = '{input_per_million: "0", output_per_million: "0", per_second: "0.01"}'


def chat(usage: dict[str, Any] | None, **more: Any) -> Answer:
    text = "" if usage is not None and not usage["completion_tokens"] else "So."
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Answer.json({"id": "c", "choices": [choice], **({} if usage is None else {"usage": usage}), **more})


async def spent(router: Router, request_id: str) -> tuple[Entry, Entry]:
    """Return the reservation and the charge of a request, as soon as both are stored."""

    def rows() -> dict[str, Entry]:
        return {entry.kind: entry for entry in router.ledger.entries_of(request_id)}

    await router.until(lambda: "charged" in rows())
    return rows()["reserved"], rows()["charged"]


@pytest.mark.parametrize(
    ("usage", "more", "dollars"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 10}, {}, "0.00045"),
        (
            {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}},
            {},
            "0.000342",  # 60 x 3 + 40 x 0.3 + 10 x 15
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 0, "prompt_tokens_details": {"cache_write_tokens": 50}},
            {},
            "0.0003375",  # 50 x 3 + 50 x 3.75
        ),
        ({"prompt_tokens": 1001, "completion_tokens": 10}, {}, "0.006231"),  # a long prompt: 1001 x 6 + 10 x 22.5
        ({"prompt_tokens": 100, "completion_tokens": 10}, {"service_tier": "priority"}, "0.0045"),
    ],
)
async def test_a_bill_counts_caches_long_prompts_and_services(
    usage: dict[str, Any], more: dict[str, Any], dollars: str, tmp_path: Path
) -> None:
    async with (
        FaultUpstream(chat(usage, **more)) as far,
        routing(settings(cloud(far, price=SONNET)), tmp_path) as router,
    ):
        content = [{"role": "user", "content": "x" * 1100}]
        asked = {"service_tier": "priority"} if more else {}
        reply = await router.post(
            {"model": "auto", "messages": content, "max_tokens": 50, **asked}, "/v1/chat/completions"
        )
        assert reply.status_code == 200, reply.text
        reserved, charged = await spent(router, reply.headers["x-request-id"])
        assert charged.amount_nano == nano_from_usd(dollars)
        assert charged.amount_nano <= reserved.reserved_nano


async def test_a_cache_write_of_the_messages_api_is_charged_as_one(tmp_path: Path) -> None:
    usage = {
        "input_tokens": 20,
        "cache_creation_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
        "cache_read_input_tokens": 200,
        "output_tokens": 10,
    }
    answer = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "So."}],
        "stop_reason": "end_turn",
    }
    async with (
        FaultUpstream(Answer.json({**answer, "usage": usage})) as far,
        routing(settings(cloud(far, price=SONNET)), tmp_path) as router,
    ):
        reply = await router.post({"model": "auto", "messages": MESSAGES, "max_tokens": 50}, "/v1/messages")
        assert reply.status_code == 200, reply.text
        _, charged = await spent(router, reply.headers["x-request-id"])
        assert charged.amount_nano == (20 * 3000 + 60 * 3750 + 40 * 6000 + 200 * 300 + 10 * 15000)


async def test_a_service_without_a_known_price_goes_elsewhere(tmp_path: Path) -> None:
    done = chat({"prompt_tokens": 3, "completion_tokens": 1})
    async with (
        FaultUpstream(done) as far,
        FaultUpstream(done) as near,
        routing(settings(cloud(far), local(near)), tmp_path) as router,
    ):
        reply = await router.chat({"service_tier": "flex"})
        assert reply.headers["x-spillway-backend"] == "local"
        explanation = await router.post(
            {"model": "auto", "messages": MESSAGES, "service_tier": "flex"}, "/v1/route/explain"
        )
        assert "price in the mode 'flex' is unknown" in explanation.text
        assert (await router.chat({"service_tier": "default"})).headers["x-spillway-backend"] == "cloud"


async def test_time_is_charged_within_what_was_reserved(tmp_path: Path) -> None:
    """No usage is needed where tokens cost nothing; the bound is the longest an answer may take."""
    async with (
        FaultUpstream(chat(None)) as far,
        routing(settings(cloud(far, price=TIMED)), tmp_path) as router,
    ):
        reply = await router.chat()
        assert reply.status_code == 200
        reserved, charged = await spent(router, reply.headers["x-request-id"])
        assert reserved.reserved_nano == 600 * 10_000_000
        assert 0 < charged.amount_nano <= reserved.reserved_nano
        assert charged.amount_nano % 10_000 == 0, "whole milliseconds"


async def test_a_stream_billed_by_the_second_ends_with_its_reservation(tmp_path: Path) -> None:
    endless = Answer.stream(delta({"content": "So"})).then(delta({"content": " on"}))
    more = "limits: {answer_s: 1}\n"
    async with (
        FaultUpstream(endless) as far,
        routing(settings(cloud(far, price=TIMED), more=more), tmp_path) as router,
    ):
        reply = await router.chat({"stream": True})
        assert b"as long as was reserved" in reply.content
        assert b"[DONE]" not in reply.content
        reserved, charged = await spent(router, reply.headers["x-request-id"])
        assert reserved.reserved_nano == 10_000_000
        # Two clocks measure that second and may differ by milliseconds; more than was held is never paid.
        assert 9_900_000 <= charged.amount_nano <= reserved.reserved_nano


async def test_a_broken_stream_is_charged_for_what_came_and_may_have_cost_its_bound(tmp_path: Path) -> None:
    """Without usage nobody knows whether the prompt was written to a cache; the bound covers both cases."""
    broken = Answer.stream(delta({"content": "So"}), end="rst")
    async with FaultUpstream(broken) as far:
        line = f"{{name: far, provider: openai, model: m, api_key: k, base_url: '{far.url}', price: {SONNET}}}"
        async with routing(settings(line), tmp_path) as router:
            reply = await router.chat({"stream": True, "max_tokens": 500})
            assert b"upstream_interrupted" in reply.content
            reserved, charged = await spent(router, reply.headers["x-request-id"])
            plain = charged.prompt_tokens * 3_000 + charged.completion_tokens * 15_000
            assert charged.completion_tokens == 1
            assert charged.amount_nano == charged.estimated_nano == plain
            assert plain < charged.at_most_nano == reserved.reserved_nano


# days


def listing(*prices: dict[str, str], **more: str) -> bytes:
    return orjson.dumps({"providers": {"generic": {"cloud-m": {"prices": list(prices), **more}}}})


async def test_a_new_day_takes_up_its_price_and_a_withdrawal_turns_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    today = date.today()
    tomorrow, later = today + timedelta(1), today + timedelta(2)
    old = {"from": (today - timedelta(9)).isoformat(), "input": "1", "output": "1"}
    new = {"from": tomorrow.isoformat(), "input": "2", "output": "2"}
    done = chat({"prompt_tokens": 1000, "completion_tokens": 0})
    (tmp_path / "prices.json").write_bytes(listing(old, new, retired_on=later.isoformat()))
    async with FaultUpstream(done) as far, FaultUpstream(done) as near, _listed(far, near, tmp_path) as router:
        assert f"is withdrawn on {later}, in 2 days" in caplog.text
        first = await router.chat()
        assert (await spent(router, first.headers["x-request-id"]))[1].amount_nano == 1_000_000
        await router.runtime.reprice(tomorrow)
        second = await router.chat()
        charged = (await spent(router, second.headers["x-request-id"]))[1]
        assert (charged.amount_nano, charged.tariff_ref.partition("#")[0]) == (2_000_000, f"import@{tomorrow}")
        await router.runtime.reprice(later)
        assert (await router.chat()).headers["x-spillway-backend"] == "local"
        # A list that was damaged since changes nothing.
        (tmp_path / "prices.json").write_bytes(b"{")
        with pytest.raises(ConfigError, match=r"prices\.file.*not valid JSON"):
            await router.runtime.reprice(tomorrow)


def _listed(far: FaultUpstream, near: FaultUpstream, folder: Path) -> AbstractAsyncContextManager[Router]:
    """Run a router whose cloud has its price from the list next to the ledger."""
    listed = f"{{name: cloud, provider: generic, model: cloud-m, api_key: k, base_url: '{far.url}'}}"
    return routing(settings(listed, local(near)), folder)


async def test_a_day_is_told_once_and_an_error_of_it_ends_nothing() -> None:
    wall = [5 * DAY_S - 0.001]
    days_seen: list[date] = []
    heard = asyncio.Event()

    async def on_day(day: date) -> None:
        days_seen.append(day)
        heard.set()
        if len(days_seen) == 1:
            raise ConfigError([])

    days = DayChange(on_day, lambda: wall[0], longest_s=0.001)
    days.start()
    days.start()
    for n in (5, 6):
        wall[0] = n * DAY_S + 1.0
        async with asyncio.timeout(LIMIT_S):
            await heard.wait()
        heard.clear()
    await days.stop()
    assert days_seen == [utc_day(5 * DAY_S), utc_day(6 * DAY_S)] == [date(1970, 1, 6), date(1970, 1, 7)]


async def test_prices_of_a_pair_stay_exact_in_decimals() -> None:
    """A price finer than a nano-dollar per token is summed before it is rounded."""
    usage = {"prompt_tokens": 3, "completion_tokens": 0}
    price = '{input_per_million: "0.0003333333", output_per_million: "0"}'
    async with FaultUpstream(chat(usage)) as far, routing(settings(cloud(far, price=price))) as router:
        reply = await router.chat()
        assert Decimal(reply.headers["x-spillway-cost-usd"]) == Decimal("0.000000001")
