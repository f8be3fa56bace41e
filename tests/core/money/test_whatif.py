"""Planning: the published break-even, sums that add up, and the cheapest choice marked."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.money.attribution import WorkCoefficients, break_even_utilisation
from spillway_router.core.money.gpu_sheets import GpuSheet, coefficients_of
from spillway_router.core.money.tariff import NANO, Tariff, TariffError, Usage, price
from spillway_router.core.money.whatif import Assumptions, Choice, DocumentShape, GpuOffer, plan

SHAPE = DocumentShape(1000, 200)
MINI = Tariff(Decimal("0.15"), Decimal("0.60"))  # 270,000 nano-dollars a document
OSS = Tariff(Decimal("0.075"), Decimal("0.30"))
A100 = GpuOffer("a100-80", Decimal("1.39"), 100_000, "given")  # 10 documents a second, 26.28 million a month


def choices(volume: int, gpus: tuple[int, ...] = (), load: Fraction = Fraction(1)) -> list[Choice]:
    result = plan(Assumptions(SHAPE, (Fraction(volume),), load, gpus), [A100], {"mini": MINI, "oss": OSS})
    return list(result.volumes[0].choices)


def test_a_small_volume_is_cheaper_in_the_cloud() -> None:
    gpu, mini, oss = choices(10_000)
    assert (gpu.gpus, gpu.month_nano) == (1, 1_014_700_000_000)  # 730 h at 1.39
    assert gpu.document_nano == 101_470_000
    assert (mini.month_nano, oss.month_nano) == (2_700_000_000, 1_350_000_000)
    assert [c.cheapest for c in (gpu, mini, oss)] == [False, False, True]


def test_a_large_volume_needs_several_gpus() -> None:
    gpu, mini, _ = choices(60_000_000, load=Fraction(1, 2))
    assert gpu.gpus == 5  # 60 / 13.14
    assert gpu.utilisation == pytest.approx(60 / 26.28 / 5)
    assert gpu.cheapest
    assert mini.month_nano == 16_200 * NANO


def test_what_a_fixed_number_of_gpus_cant_do_overflows_to_the_cheapest_cloud() -> None:
    _, one, *_ = choices(52_560_000, gpus=(1,))
    assert (one.asked, one.gpus, one.overflow, one.cloud, one.kind) == (1, 1, 0.5, "oss", "gpu+overflow")
    assert one.month_nano == 1_014_700_000_000 + 26_280_000 * 135_000


def test_without_a_cloud_what_is_too_much_is_not_done() -> None:
    result = plan(Assumptions(SHAPE, (Fraction(52_560_000),), Fraction(1), (1,)), [A100], {})
    needed, one = result.volumes[0].choices
    assert (needed.gpus, needed.cheapest) == (2, True)
    assert (one.overflow, one.cloud, one.cheapest) == (0.5, "", False)
    assert one.document_nano == needed.document_nano, "the price of what is done"


@pytest.mark.parametrize(
    ("price_in", "price_out", "percent"),
    [("0.03", "0.05", 105), ("0.075", "0.30", 31), ("0.15", "0.60", 16), ("0.40", "1.60", 6)],
)
def test_crossings_are_the_published_break_even(price_in: str, price_out: str, percent: int) -> None:
    # 33M prompt and 6.6M output tokens an hour at full load: 6,600 documents of 5000 + 1000 an hour.
    offer = GpuOffer("a100-80", Decimal("1.39"), round(3600e6 / 6600), "given")
    tariff = Tariff(Decimal(price_in), Decimal(price_out))
    result = plan(Assumptions(DocumentShape(5000, 1000), (Fraction(1),)), [offer], {"x": tariff})
    (crossing,) = result.crossings
    assert crossing.utilisation is not None
    assert round(crossing.utilisation * 100) == percent
    exact = break_even_utilisation(Decimal("1.39"), 33_000_000, 6_600_000, tariff)
    assert crossing.utilisation == pytest.approx(exact, rel=1e-5)


@given(
    st.integers(1, 10**8),
    st.integers(1, 10**7),
    st.decimals("0.01", 50, places=2),
    st.integers(1, 9),
    st.fractions("1/100", 1),
)
def test_every_choice_is_its_parts(volume: int, us: int, hourly: Decimal, gpus: int, load: Fraction) -> None:
    offer = GpuOffer("x", hourly, us, "given")
    assumptions = Assumptions(SHAPE, (Fraction(volume),), load, (gpus,))
    (volume_plan,) = plan(assumptions, [offer], {"mini": MINI}).volumes
    needed, requested, cloud = volume_plan.choices
    assert cloud.month_nano == volume * price(Usage(1000, 200), MINI)
    assert needed.overflow == 0
    assert offer.documents_per_month(needed.gpus, load) >= volume > offer.documents_per_month(needed.gpus - 1, load)
    assert needed.month_nano == pytest.approx(float(hourly) * NANO * 730 * needed.gpus)
    assert requested.overflow == max(0.0, float(1 - offer.documents_per_month(gpus, load) / volume))
    assert (needed.utilisation or 0) <= float(load) + 1e-9
    least = min(choice.month_nano for choice in volume_plan.choices)
    assert {choice.month_nano for choice in volume_plan.choices if choice.cheapest} == {least}


def test_work_is_scaled_from_the_base_gpu_by_the_data_sheets() -> None:
    base = GpuSheet(tflops=312, bandwidth=2039)
    assert coefficients_of(base, base) == WorkCoefficients()
    half = coefficients_of(GpuSheet(tflops=156, bandwidth=4078), base)
    assert half.prefill_ps == 2 * WorkCoefficients().prefill_ps
    assert half.decode_ps == WorkCoefficients().decode_ps // 2
    assert half.kv_ps == WorkCoefficients().kv_ps // 2


def test_what_cant_be_planned_is_told() -> None:
    with pytest.raises(TariffError, match="load"):
        Assumptions(SHAPE, (Fraction(1),), Fraction(0))
    with pytest.raises(TariffError, match="volume"):
        Assumptions(SHAPE, (Fraction(0),))
    with pytest.raises(TariffError, match="tokens"):
        DocumentShape(0, 0)
    with pytest.raises(TariffError, match="price_per_hour"):
        GpuOffer("x", Decimal(-1), 5, "given")
    with pytest.raises(TariffError, match="throughput"):
        GpuOffer("x", Decimal(1), 0, "given")
    with pytest.raises(TariffError, match="compare"):
        plan(Assumptions(SHAPE, (Fraction(1),)), [], {})


@pytest.mark.parametrize(("documents", "cents"), [(1_000, "0.25"), (10_000, "0.025"), (100_000, "0.0025")])
def test_a_gpu_for_250_a_month_costs_what_the_table_says(documents: int, cents: str) -> None:
    month = Decimal(250)
    offer = GpuOffer("a100-80", month / 730, 1_000_000, "given", price_per_month=month)
    table = plan(Assumptions(DocumentShape(500, 500), (Fraction(documents),)), [offer], {"api": _per_document("0.25")})
    choice = table.volumes[0].choices[0]
    assert (choice.gpus, choice.month_nano) == (1, 250 * 10**9)
    assert choice.document_nano == int(Decimal(cents) * 10**9)
    assert round(table.crossings[0].documents_per_month or 0) == 1000


def test_a_gpu_for_eight_hours_a_day_costs_and_does_a_third() -> None:
    whole = GpuOffer("t4", Decimal("0.52"), 1_000_000, "given")
    part = replace(whole, hours_per_day=Fraction(8))
    assert part.month_nano * 3 == whole.month_nano
    assert part.documents_per_month(2, Fraction(1)) * 3 == whole.documents_per_month(2, Fraction(1))
    with pytest.raises(TariffError, match="hours per day"):
        replace(whole, hours_per_day=Fraction(25))


def test_a_mix_of_tiers() -> None:
    """70% stay on a GPU of 250 a month, 20% go to a cheap cloud, 10% to a strong one; 100,000 documents a month."""
    offer = GpuOffer("a100-80", Decimal(250) / 730, 1_000_000, "given", price_per_month=Decimal(250))
    clouds = {"cheap": _per_document("0.001"), "strong": _per_document("0.03")}
    mix = (("cheap", Fraction(2, 10)), ("strong", Fraction(1, 10)))
    table = plan(Assumptions(DocumentShape(500, 500), (Fraction(100_000),), mix=mix), [offer], clouds)
    choice = next(choice for choice in table.volumes[0].choices if choice.kind == "mix")
    assert choice.month_nano == (250 + 20 + 300) * 10**9
    assert (choice.overflow, choice.cloud) == (0.3, "cheap 20%, strong 10%")
    with pytest.raises(TariffError, match="at most 1"):
        Assumptions(DocumentShape(1, 1), (Fraction(1),), mix=(("a", Fraction(1)), ("b", Fraction(1, 2))))


def _per_document(usd: str) -> Tariff:
    """Return a tariff at which a document of 500 + 500 tokens costs so much."""
    return Tariff(Decimal(usd) * 1000, Decimal(usd) * 1000)
