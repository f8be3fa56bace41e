"""Prices: exact, rounded once, bounded from above, shown without floats."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.tariff import (
    NANO,
    Tariff,
    TariffError,
    Usage,
    nano_from_usd,
    price,
    price_many,
    upper_bound,
    usd,
)

prices = st.decimals(min_value=0, max_value=1000, places=6)
tokens = st.integers(min_value=0, max_value=10**7)
tariffs = st.builds(
    Tariff,
    input_per_million=prices,
    output_per_million=prices,
    cached_input_per_million=st.none() | prices,
    per_request=prices,
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    prompt, completion = draw(tokens), draw(tokens)
    return Usage(
        prompt,
        completion,
        cached_tokens=draw(st.integers(0, prompt)),
        reasoning_tokens=draw(st.integers(0, completion)),
    )


def exact(usage: Usage, tariff: Tariff) -> Fraction:
    """The formula of the module, written again with fractions."""
    cached_price = tariff.cached_input_per_million
    if cached_price is None:
        cached_price = tariff.input_per_million
    dollars = (
        Fraction(tariff.input_per_million) * (usage.prompt_tokens - usage.cached_tokens)
        + Fraction(cached_price) * usage.cached_tokens
        + Fraction(tariff.output_per_million) * usage.completion_tokens
    ) / 10**6 + Fraction(tariff.per_request)
    return dollars * NANO


@given(usages(), tariffs)
def test_a_price_is_the_exact_charge_rounded_half_up(usage: Usage, tariff: Tariff) -> None:
    difference = Fraction(price(usage, tariff)) - exact(usage, tariff)
    assert -Fraction(1, 2) < difference <= Fraction(1, 2)


def test_half_a_nano_dollar_rounds_up() -> None:
    tariff = Tariff(Decimal("0.0005"), Decimal("0.0004"))
    assert price(Usage(1, 0), tariff) == 1  # 0.5 nano-dollars
    assert price(Usage(0, 1), tariff) == 0  # 0.4 nano-dollars


def test_a_known_bill() -> None:
    mini = Tariff(Decimal("0.15"), Decimal("0.60"), cached_input_per_million=Decimal("0.075"))
    # 800 x 0.15 + 200 x 0.075 + 300 x 0.60 = 315 USD per million
    assert price(Usage(1000, 300, cached_tokens=200, reasoning_tokens=100), mini) == 315_000


@given(usages(), tariffs, st.integers(0, 500), st.integers(1, 8))
def test_the_bound_holds_for_every_usage_inside_it(usage: Usage, tariff: Tariff, template: int, n: int) -> None:
    prompt_bytes = max(0, usage.prompt_tokens - template)
    max_output = -(-usage.completion_tokens // n)
    assert price(usage, tariff) <= upper_bound(prompt_bytes, template, max_output, n, tariff)


@given(st.lists(usages(), max_size=20), tariffs)
def test_pricing_sums_differs_from_summing_prices_only_by_rounding(many: list[Usage], tariff: Tariff) -> None:
    together = price_many(
        sum(u.uncached_tokens for u in many),
        sum(u.cached_tokens for u in many),
        sum(u.completion_tokens for u in many),
        len(many),
        tariff,
    )
    assert abs(together - sum(price(u, tariff) for u in many)) <= len(many)


@given(usages(), tariffs, st.integers(0, 1000))
def test_more_output_never_costs_less(usage: Usage, tariff: Tariff, more: int) -> None:
    longer = Usage(usage.prompt_tokens, usage.completion_tokens + more, usage.cached_tokens)
    assert price(longer, tariff) >= price(usage, tariff)


def test_cached_tokens_beyond_the_prompt_never_make_a_price_negative() -> None:
    tariff = Tariff(Decimal(1), Decimal(1), cached_input_per_million=Decimal(0))
    assert price(Usage(10, 0, cached_tokens=99), tariff) == 0


@pytest.mark.parametrize("bad", ["-0.1", "NaN", "Infinity", "1000001", "1e-19"])
def test_prices_that_make_no_sense_are_refused_by_name(bad: str) -> None:
    with pytest.raises(TariffError, match="output_per_million"):
        Tariff(Decimal(1), Decimal(bad))


def test_a_tariff_needs_a_real_date_and_usage_real_counts() -> None:
    with pytest.raises(TariffError, match="valid_from"):
        Tariff(Decimal(1), Decimal(1), valid_from="last week")
    with pytest.raises(TariffError, match="0 or more"):
        Usage(-1, 0)
    with pytest.raises(TariffError, match="n of 1"):
        upper_bound(1, 0, 1, 0, Tariff(Decimal(1), Decimal(1)))


def test_free_means_that_nothing_can_cost() -> None:
    assert Tariff(Decimal(0), Decimal("0.00")).free
    assert not Tariff(Decimal(0), Decimal(0), per_request=Decimal("0.001")).free


@given(st.integers(min_value=-(10**20), max_value=10**20))
def test_shown_money_reads_back_exactly(nano: int) -> None:
    text = usd(nano)
    assert "e" not in text.lower()
    assert len(text.split(".")[1]) >= 6
    assert nano_from_usd(text) == nano


def test_money_is_shown_plainly() -> None:
    assert usd(1_390_000_000) == "1.390000"
    assert usd(1) == "0.000000001"
    assert usd(-1_500) == "-0.0000015"
    assert usd(0) == "0.000000"


@pytest.mark.parametrize("bad", ["ten", "", "0.0000000001", "1e30", "inf"])
def test_amounts_that_are_no_money_are_refused(bad: str) -> None:
    with pytest.raises(TariffError):
        nano_from_usd(bad)
