"""When a hedge is sent, and what it must be worth."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import pytest

from spillway_router.core.money.tariff import Tariff
from spillway_router.core.routing.hedging import HedgeBucket, HedgeRule, delay_s, expected_cost_nano
from spillway_router.core.routing.model import Backend, Candidate

RULE = HedgeRule(after=3.0, shortest_s=0.2, share=0.05, burst=2, nano_per_s=1_000_000)


def candidate(ttft_s: float, *, price: str | None = None, bound_nano: int = 10**9) -> Candidate:
    """A candidate for a prompt of 1,000 tokens and an answer of 500."""
    tariff = None if price is None else Tariff(Decimal(price), Decimal(price))
    backend = Backend(
        name="b",
        provider="generic",
        model="m",
        local=price is None,
        endpoints=frozenset(),
        capabilities=frozenset(),
        tariff=tariff,
    )
    return Candidate(
        backend, (), ttft_s, prompt_tokens=1_000, output_tokens=500, bound_nano=0 if price is None else bound_nano
    )


def test_the_second_backend_waits_for_a_multiple_of_the_expected_time() -> None:
    assert delay_s(RULE, candidate(0.4), candidate(0.3)) == pytest.approx(1.2)
    assert delay_s(RULE, candidate(0.01), candidate(0.1)) == 0.2


def test_a_hedge_is_sent_once_the_gained_seconds_are_worth_its_cost() -> None:
    """1,500 tokens cost 1.5 million nano-dollars at one dollar per million, and a second is worth a million."""
    second = candidate(0.3, price="1")
    assert expected_cost_nano(second) == 1_500_000
    assert delay_s(RULE, candidate(0.4), second) == pytest.approx(1.8)
    assert delay_s(RULE, candidate(0.4), candidate(2.0)) == 2.0  # an engine costs nothing besides
    assert delay_s(replace(RULE, nano_per_s=0), candidate(0.4), second) == math.inf
    assert expected_cost_nano(candidate(0.3, price="1", bound_nano=700)) == 700


def test_the_bucket_lets_a_share_of_the_streams_through() -> None:
    bucket, sent = HedgeBucket(0.0), 0
    for _ in range(1_000):
        bucket = bucket.after_stream(RULE)
        taken = bucket.taken()
        if taken is not None:
            bucket, sent = taken, sent + 1
    assert sent in (49, 50)
    for _ in range(1_000):
        bucket = bucket.after_stream(RULE)
    assert bucket.tokens == 2.0
