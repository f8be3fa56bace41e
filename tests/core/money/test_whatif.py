"""Planning: the published break-even, sums that add up, and the cheapest choice marked."""

from __future__ import annotations

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
