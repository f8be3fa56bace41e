"""Prices: exact, rounded once, bounded from above, shown without floats."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.money.tariff import (
    NANO,
    Extras,
    Rates,
    Tariff,
    TariffError,
    TariffStep,
    Usage,
    flat_bound,
    itemised,
    nano_from_usd,
    price,
    price_many,
    price_text,
    service_of,
    tariff_of_text,
    upper_bound,
    usd,
)

SERVICES = ("", "batch", "flex", "priority")
prices = st.decimals(min_value=0, max_value=1000, places=6)
tokens = st.integers(min_value=0, max_value=10**7)
seconds = st.decimals(min_value=0, max_value=3600, places=3)
maybe = st.none() | prices
rates = st.builds(
    Rates, input=prices, output=prices, cached_input=maybe, cache_write=maybe, cache_write_long=maybe, reasoning=maybe
)
steps = st.lists(
    st.builds(
        TariffStep, rates=rates, above_tokens=st.sampled_from((0, 128_000, 200_000)), service=st.sampled_from(SERVICES)
    ).filter(lambda step: step.above_tokens or step.service),
    max_size=4,
    unique_by=lambda step: (step.service, step.above_tokens),
)
tariffs = st.builds(
    Tariff,
    input_per_million=prices,
    output_per_million=prices,
    cached_input_per_million=maybe,
    per_request=prices,
    cache_write_per_million=maybe,
    cache_write_long_per_million=maybe,
    reasoning_per_million=maybe,
    per_second=prices,
    steps=steps.map(tuple),
    fees=st.dictionaries(st.sampled_from(("search", "file_search")), prices).map(lambda fees: tuple(fees.items())),
)
plain_tariffs = st.builds(
    Tariff, input_per_million=prices, output_per_million=prices, cached_input_per_million=maybe, per_request=prices
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    prompt, completion = draw(tokens | st.integers(0, 250_000)), draw(tokens)
    cached = draw(st.integers(0, prompt))
    written = draw(st.integers(0, prompt - cached))
    return Usage(
        prompt,
        completion,
        cached_tokens=cached,
        reasoning_tokens=draw(st.integers(0, completion)),
        cache_write_tokens=written,
        cache_write_long_tokens=draw(st.integers(0, written)),
        service=draw(st.sampled_from(SERVICES)),
    )


def rates_for(usage: Usage, tariff: Tariff) -> Rates:
    """The rates that apply, found the slow way: the longest step of the service that the prompt passes."""
    passed = [s for s in tariff.steps if s.service == usage.service and (usage.prompt_tokens > s.above_tokens)]
    at_zero = [s for s in tariff.steps if s.service == usage.service and s.above_tokens == 0]
    priced = any(s.service == usage.service for s in tariff.steps)
    if not priced:
        passed = [s for s in tariff.steps if not s.service and usage.prompt_tokens > s.above_tokens]
    chosen = max(passed + at_zero, key=lambda s: s.above_tokens, default=None)
    return tariff.rates if chosen is None else chosen.rates


def exact(usage: Usage, tariff: Tariff, spent: Decimal = Decimal(0)) -> Fraction:
    """The formula of the module, written again with fractions."""
    rates = {name: Fraction(value) for name, value in rates_for(usage, tariff).all().items()}
    long = usage.cache_write_long_tokens
    short = usage.cache_write_tokens - long
    dollars = (
        rates["input"] * (usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens)
        + rates["cached_input"] * usage.cached_tokens
        + rates["cache_write"] * short
        + rates["cache_write_long"] * long
        + rates["output"] * (usage.completion_tokens - usage.reasoning_tokens)
        + rates["reasoning"] * usage.reasoning_tokens
    ) / 10**6
    return (dollars + Fraction(tariff.per_request) + Fraction(tariff.per_second) * Fraction(spent)) * NANO


@given(usages(), tariffs, seconds)
def test_a_price_is_the_exact_charge_rounded_half_up(usage: Usage, tariff: Tariff, spent: Decimal) -> None:
    difference = Fraction(price(usage, tariff, spent)) - exact(usage, tariff, spent)
    assert -Fraction(1, 2) < difference <= Fraction(1, 2)


def test_half_a_nano_dollar_rounds_up() -> None:
    tariff = Tariff(Decimal("0.0005"), Decimal("0.0004"))
    assert price(Usage(1, 0), tariff) == 1  # 0.5 nano-dollars
    assert price(Usage(0, 1), tariff) == 0  # 0.4 nano-dollars


def test_a_known_bill() -> None:
    mini = Tariff(Decimal("0.15"), Decimal("0.60"), cached_input_per_million=Decimal("0.075"))
    # 800 x 0.15 + 200 x 0.075 + 300 x 0.60 = 315 USD per million
    assert price(Usage(1000, 300, cached_tokens=200, reasoning_tokens=100), mini) == 315_000


@given(usages(), tariffs, st.integers(0, 500), st.integers(1, 8), seconds, st.integers(0, 10**5), st.booleans())
def test_the_bound_holds_for_every_usage_inside_it(
    usage: Usage, tariff: Tariff, template: int, n: int, spent: Decimal, spare: int, downgraded: bool
) -> None:
    """Whatever the provider reports: less than the limits, another split, the standard service instead of ours."""
    input_tokens = max(0, usage.prompt_tokens - template) + spare + template
    output_tokens = -(-usage.completion_tokens // n) * n
    bound = upper_bound(tariff, input_tokens, output_tokens, Extras(seconds=spent + spare, service=usage.service))
    served = replace(usage, service="") if downgraded else usage
    assert price(served, tariff, spent) <= bound


@given(usages(), tariffs, st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_the_bound_holds_when_a_provider_reports_more_parts_than_there_are(
    usage: Usage, tariff: Tariff, cached: int, written: int, reasoning: int
) -> None:
    odd = replace(
        usage,
        cached_tokens=cached,
        cache_write_tokens=written,
        cache_write_long_tokens=cached,
        reasoning_tokens=reasoning,
    )
    bound = upper_bound(tariff, odd.prompt_tokens, odd.completion_tokens, Extras(service=odd.service))
    assert 0 <= price(odd, tariff) <= bound


@given(tariffs, tokens, tokens, st.integers(0, 10**5), st.integers(0, 10**5), seconds)
def test_a_bound_grows_with_every_limit(
    tariff: Tariff, size: int, output: int, more: int, longer: int, spent: Decimal
) -> None:
    def bound(input_tokens: int, output_tokens: int, n: int, seconds: Decimal) -> int:
        return upper_bound(tariff, input_tokens, output_tokens * n, Extras(seconds=seconds))

    least = bound(size, output, 1, spent)
    assert bound(size + more, output + longer, 1, spent + longer) >= least
    assert bound(size, output, 2, spent) >= least


@given(
    st.lists(usages().map(lambda u: Usage(u.prompt_tokens, u.completion_tokens, u.cached_tokens)), max_size=20),
    plain_tariffs,
)
def test_pricing_sums_differs_from_summing_prices_only_by_rounding(many: list[Usage], tariff: Tariff) -> None:
    together = price_many(
        uncached_tokens=sum(u.uncached_tokens for u in many),
        cached_tokens=sum(u.cached_tokens for u in many),
        completion_tokens=sum(u.completion_tokens for u in many),
        requests=len(many),
        tariff=tariff,
    )
    assert abs(together - sum(price(u, tariff) for u in many)) <= len(many)


@given(usages(), tariffs, st.integers(0, 1000), seconds, seconds)
def test_more_output_or_time_never_costs_less(
    usage: Usage, tariff: Tariff, more: int, spent: Decimal, longer: Decimal
) -> None:
    grown = replace(usage, completion_tokens=usage.completion_tokens + more)
    assert price(grown, tariff, spent + longer) >= price(usage, tariff, spent)


@given(usages(), plain_tariffs, st.integers(0, 1000))
def test_more_input_never_costs_less_without_steps(usage: Usage, tariff: Tariff, more: int) -> None:
    assert price(replace(usage, prompt_tokens=usage.prompt_tokens + more), tariff) >= price(usage, tariff)


@given(tariffs)
def test_nothing_used_costs_the_request_alone(tariff: Tariff) -> None:
    assert abs(Fraction(price(Usage(0, 0), tariff)) - Fraction(tariff.per_request) * NANO) <= Fraction(1, 2)


# known bills

SONNET = Tariff(
    Decimal(3),
    Decimal(15),
    cached_input_per_million=Decimal("0.30"),
    cache_write_per_million=Decimal("3.75"),
    cache_write_long_per_million=Decimal(6),
    steps=(
        TariffStep(
            Rates(
                input=Decimal(6),
                output=Decimal("22.5"),
                cached_input=Decimal("0.6"),
                cache_write=Decimal("7.5"),
                cache_write_long=Decimal(12),
            ),
            200_000,
        ),
        TariffStep(
            Rates(
                input=Decimal("1.5"), output=Decimal("7.5"), cached_input=Decimal("0.15"), cache_write=Decimal("1.875")
            ),
            service="batch",
        ),
    ),
)


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(2125, 15, cached_tokens=2000, cache_write_tokens=100), "0.001275"),  # 75 + 600 + 375 + 225
        (Usage(100, 0, cache_write_tokens=100, cache_write_long_tokens=40), "0.000465"),  # 60 x 3.75 + 40 x 6
        (Usage(200_000, 1000), "0.615"),  # exactly at the border: still the lower price
        (Usage(200_001, 1000), "1.222506"),  # above it the whole request costs more, output included
        (Usage(1000, 100, service="batch"), "0.00225"),
        (Usage(300_000, 0, service="batch"), "0.45"),  # no batch price for long prompts: the batch price holds
        (Usage(1000, 100, service="scale"), "0.0045"),  # a service without a price of its own: the standard one
    ],
)
def test_known_bills_with_caches_and_steps(usage: Usage, dollars: str) -> None:
    assert price(usage, SONNET) == nano_from_usd(dollars)


@given(tariffs, tokens, tokens)
def test_the_quick_bound_is_the_bound(tariff: Tariff, size: int, output: int) -> None:
    quick = flat_bound(tariff, size, output)
    assert (quick is None) == bool(tariff.steps or tariff.per_second)
    assert quick in (None, upper_bound(tariff, size, output))


def test_a_bound_counts_the_steps_that_the_prompt_can_reach() -> None:
    below = upper_bound(SONNET, 200_000, 0)
    above = upper_bound(SONNET, 201_000, 0)
    assert below == 200_000 * 6 * 1000  # an hour's cache write is dearest
    assert above == 201_000 * 12 * 1000
    # Asked for as batch it may still be served, and billed, as a usual request.
    assert upper_bound(SONNET, 1000, 100, Extras(service="batch")) == upper_bound(SONNET, 1000, 100)


def test_reasoning_may_have_a_price_of_its_own() -> None:
    tariff = Tariff(Decimal(1), Decimal(4), reasoning_per_million=Decimal(3))
    assert price(Usage(0, 100, reasoning_tokens=60), tariff) == (40 * 4 + 60 * 3) * 1000
    assert upper_bound(tariff, 0, 100) == 400_000


AUDIO = Tariff(
    Decimal("2.5"),
    Decimal(10),
    cached_input_per_million=Decimal("1.25"),
    media=(("audio_input", Decimal(40)), ("audio_output", Decimal(80))),
)


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        (Usage(17, 592, media=(("audio_output", 482),)), 17 * 2_500 + 110 * 10_000 + 482 * 80_000),
        (Usage(1000, 50, media=(("audio_input", 900),)), 100 * 2_500 + 900 * 40_000 + 50 * 10_000),
        (Usage(1000, 50, 100, media=(("audio_input", 900),)), 100 * 1_250 + 900 * 40_000 + 50 * 10_000),
        (Usage(10, 10, media=(("audio_input", 99), ("audio_output", 99))), 10 * 40_000 + 10 * 80_000),
        (Usage(10, 10, media=(("image_output", 5),)), 10 * 2_500 + 10 * 10_000),
    ],
)
def test_audio_costs_its_own_price(usage: Usage, nano: int) -> None:
    assert price(usage, AUDIO) == nano == sum(part.nano for part in itemised(usage, AUDIO))
    assert price(usage, tariff_of_text(price_text(AUDIO))) == nano


def test_a_price_for_audio_is_known_or_not() -> None:
    assert AUDIO.prices_media(Usage(1, 1, media=(("audio_input", 1), ("audio_output", 1))))
    assert not AUDIO.prices_media(Usage(1, 1, media=(("image_output", 1),)))
    assert price(Usage(0, 1, media=(("audio_output", 1),)), AUDIO.times(Decimal("1.1"))) == 88_000
    with pytest.raises(TariffError, match="audio_input_per_million"):
        Tariff(Decimal(1), Decimal(1), media=(("audio_input", Decimal(-1)),))


def test_time_is_billed_exactly_and_by_the_request_too() -> None:
    speech = Tariff(Decimal(0), Decimal(0), per_request=Decimal("0.001"), per_second=Decimal("0.0000308333"))
    assert price(Usage(0, 0), speech, Decimal("12.5")) == nano_from_usd("0.001385416")  # 385,416.25 nano-dollars
    assert upper_bound(speech, 10**6, 4096, Extras(seconds=600)) == nano_from_usd("0.01949998")
    assert not speech.by_tokens
    assert not speech.free


@pytest.mark.parametrize("name", ["auto", "default", "standard", "standard_only", "on_demand", "", None, 3])
def test_usual_service_has_many_names(name: object) -> None:
    assert service_of(name) == ""
    assert service_of("batches") == "batch"
    assert service_of("priority") == "priority"
    assert SONNET.knows(service_of(name))
    assert not SONNET.knows("priority")


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (
            (TariffStep(Rates(Decimal(1), Decimal(1)), 1000), TariffStep(Rates(Decimal(2), Decimal(2)), 1000)),
            "above 1000 tokens",
        ),
        ((TariffStep(Rates(Decimal(1), Decimal(1))),), "any length.*standard"),
        ((TariffStep(Rates(Decimal(1), Decimal(-1)), 5, "flex"),), "output_per_million above 5 tokens"),
        ((TariffStep(Rates(Decimal(1), Decimal(1)), -5),), "0 or more"),
    ],
)
def test_steps_that_make_no_sense_are_refused(steps: tuple[TariffStep, ...], says: str) -> None:
    with pytest.raises(TariffError, match=says):
        Tariff(Decimal(1), Decimal(1), steps=steps)


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
    with pytest.raises(TariffError, match="is before"):
        Tariff(Decimal(1), Decimal(1), valid_from="2026-11-20", valid_until="2026-11-19")
    with pytest.raises(TariffError, match="0 or more"):
        Usage(-1, 0)
    with pytest.raises(TariffError, match="0 or more"):
        Usage(1, 0, cache_write_long_tokens=-1)
    with pytest.raises(TariffError, match="0 or more"):
        upper_bound(Tariff(Decimal(1), Decimal(1)), 1, -1)


@given(tariffs)
def test_a_tariff_is_a_plain_value(tariff: Tariff) -> None:
    again = replace(tariff)
    assert (again, hash(again), repr(again)) == (tariff, hash(tariff), repr(tariff))


@given(tariffs, usages(), seconds)
def test_a_price_is_whole_in_its_text(tariff: Tariff, usage: Usage, spent: Decimal) -> None:
    again = tariff_of_text(price_text(tariff))
    assert price(usage, again, spent) == price(usage, tariff, spent)
    assert price_text(again) == price_text(tariff)
    assert again.ref.partition("#")[2] == tariff.ref.partition("#")[2]


@given(usages(), tariffs, seconds, st.dictionaries(st.sampled_from(("search", "unknown")), st.integers(1, 9)))
def test_the_parts_of_a_charge_sum_to_it(usage: Usage, tariff: Tariff, spent: Decimal, calls: dict[str, int]) -> None:
    usage = replace(usage, calls=tuple(calls.items()))
    billed_us = int(spent * 10**6)
    parts = itemised(usage, tariff, billed_us)
    assert sum(part.nano for part in parts) == price(usage, tariff, spent)
    for part in parts:
        exact_nano = Fraction(part.price_usd) * part.quantity / part.per * NANO
        assert abs(part.nano - exact_nano) < 1
    tokens = {part.name: part.quantity for part in parts if part.per == 10**6 and part.name != "seconds"}
    assert sum(tokens.values()) == usage.prompt_tokens + usage.completion_tokens


def test_the_parts_of_a_charge_have_the_prices_of_their_step() -> None:
    long = TariffStep(Rates(Decimal(3), Decimal("4.5"), cached_input=Decimal("0.25")), above_tokens=1000)
    tariff = Tariff(Decimal(1), Decimal(2), steps=(long,), per_request=Decimal("0.01"))
    parts = itemised(Usage(1200, 7, cached_tokens=200, reasoning_tokens=3), tariff)
    assert [(part.name, part.quantity, part.price_usd, part.nano, part.step) for part in parts] == [
        ("input", 1000, "3", 3_000_000, ">1000"),
        ("output", 7, "4.5", 31_500, ">1000"),
        ("cached_input", 200, "0.25", 50_000, ">1000"),
        ("request", 1, "0.01", 10_000_000, ""),
    ]
    assert [(part.name, part.quantity, part.nano) for part in itemised(Usage(0, 0), tariff)] == [
        ("input", 0, 0),
        ("request", 1, 10_000_000),
    ]


def test_a_price_is_named_by_its_content() -> None:
    tariff = Tariff(Decimal("1.50"), Decimal(2))
    assert tariff.ref == Tariff(Decimal("1.5"), Decimal("2.0")).ref
    assert tariff.ref.startswith("config@1970-01-01#")
    assert tariff.ref != replace(tariff, source="list").ref
    other: dict[str, object] = {
        "steps": (TariffStep(Rates(Decimal(1), Decimal(1)), service="flex"),),
        "fees": (("search", Decimal(1)),),
        "media": (("audio_input", Decimal(1)),),
    }
    not_the_price = {"source", "valid_from", "valid_until"}
    for each in fields(Tariff):
        if not each.init or each.name in not_the_price:
            continue
        changed = replace(tariff, **{each.name: other.get(each.name, Decimal("7.7"))})  # type: ignore[arg-type]
        assert changed.ref != tariff.ref, each.name
        assert getattr(tariff_of_text(price_text(changed)), each.name) == getattr(changed, each.name)
    for each in fields(Rates):
        plain = Rates(Decimal(1), Decimal(1))
        changed_rates = replace(plain, **{each.name: Decimal("7.7")})
        texts = {price_text(replace(tariff, steps=(TariffStep(r, service="x"),))) for r in (plain, changed_rates)}
        assert len(texts) == 2, each.name
    assert [each.name for each in fields(Rates) if each.default is MISSING] == ["input", "output"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"input":"1"}', '{"input":"x","output":"1"}', '{"steps":[{}]}'])
def test_text_that_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(TariffError):
        tariff_of_text(text)


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


@pytest.mark.parametrize("bad", ["ten", "", "0.0000000001", "1e30", "inf", "1_0", "\u0661\u0662"])
def test_amounts_that_are_no_money_are_refused(bad: str) -> None:
    with pytest.raises(TariffError):
        nano_from_usd(bad)
