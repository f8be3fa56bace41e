"""Fixed cost: nothing of a bill is lost or made up, and break-even is the textbook formula."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.money.attribution import (
    GpuRental,
    TrafficShape,
    WorkCoefficients,
    break_even,
    break_even_utilisation,
    split_billed,
    work_share_us,
    work_sum_us,
)
from spillway_router.core.money.tariff import Tariff, TariffError


@given(
    st.integers(0, 10**13),
    st.integers(0, 10**12),
    st.lists(st.integers(0, 10**11), max_size=30),
)
def test_used_and_unused_sum_to_billed(billed: int, rented: int, shares: list[int]) -> None:
    split = split_billed(billed, rented, shares)
    assert sum(split.used_nano) + split.idle_nano == billed
    assert min([split.idle_nano, *split.used_nano]) >= 0
    assert 0 <= split.utilisation <= 1
    whole = max(rented, sum(shares))
    if rented:
        for share, amount in zip(shares, split.used_nano, strict=True):
            assert abs(Fraction(billed * share, whole) - amount) < 1


def test_three_equal_shares_of_ten_nano_dollars() -> None:
    split = split_billed(10, 3, [1, 1, 1])
    assert split.used_nano == (4, 3, 3)
    assert split.idle_nano == 0


def test_more_work_than_time_uses_the_whole_bill_and_says_so() -> None:
    split = split_billed(1000, 10, [30, 10])
    assert split.used_nano == (750, 250)
    assert split.idle_nano == 0
    assert split.overcommitted
    assert split.utilisation == 1


def test_work_without_rented_time_costs_nothing() -> None:
    split = split_billed(0, 0, [5])
    assert split.used_nano == (0,)
    assert split.idle_nano == 0


def test_the_price_of_a_second() -> None:
    assert GpuRental(Decimal("1.39"), 2).nano_per_second == Fraction(2_780_000_000, 3600)


def test_work_share_is_prefill_plus_decode_plus_context_reads() -> None:
    coefficients = WorkCoefficients(prefill_ps=2_000_000, decode_ps=3_000_000, kv_ps=1_000_000)
    # 10 x 2 us + 4 x 3 us + (20 x 4 + 4^2 / 2) x 1 us
    assert work_share_us(10, 20, 4, coefficients) == 20 + 12 + 88


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 2000)), max_size=20))
def test_work_of_sums_is_the_sum_of_work_up_to_rounding(rows: list[tuple[int, int, int]]) -> None:
    coefficients = WorkCoefficients()
    each = sum(work_share_us(u, u + more, o, coefficients) for u, more, o in rows)
    together = work_sum_us(
        sum(u for u, _, _ in rows),
        sum(o for _, _, o in rows),
        sum(2 * (u + more) * o + o * o for u, more, o in rows),
        coefficients,
    )
    assert abs(each - together) <= len(rows)


def test_coefficients_from_measured_rates() -> None:
    coefficients = WorkCoefficients.from_rates(prefill_tokens_per_s=10_000, decode_tokens_per_s=500)
    assert work_share_us(10_000, 10_000, 500, coefficients) == 2_000_000
    with pytest.raises(TariffError, match="above 0"):
        WorkCoefficients.from_rates(0, 1)


@pytest.mark.parametrize(
    ("price_in", "price_out", "percent"),
    [("0.03", "0.05", 105), ("0.075", "0.30", 31), ("0.15", "0.60", 16), ("0.40", "1.60", 6)],
)
def test_break_even_of_an_a100_at_1_39(price_in: str, price_out: str, percent: int) -> None:
    tariff = Tariff(Decimal(price_in), Decimal(price_out))
    utilisation = break_even_utilisation(Decimal("1.39"), 33_000_000, 6_600_000, tariff)
    assert utilisation is not None
    assert round(utilisation * 100) == percent


def test_break_even_of_a_shape_is_the_same_formula() -> None:
    rental = GpuRental(Decimal("1.39"))
    # 1000 requests of 1155 in and 211 out that fill 3 minutes of GPU: 20,000 an hour at full load.
    shape = TrafficShape(requests=1000, prompt_tokens=1_155_000, completion_tokens=211_000, work_us=180_000_000)
    tariff = Tariff(Decimal("0.15"), Decimal("0.60"))
    result = break_even(rental, shape, tariff)
    by_formula = break_even_utilisation(Decimal("1.39"), 20 * 1_155_000, 20 * 211_000, tariff)
    assert result.utilisation == pytest.approx(by_formula)
    per_request = (1155 * 0.15 + 211 * 0.60) / 1e6
    assert result.requests_per_day == pytest.approx(24 * 1.39 / per_request)
    assert result.reachable


def test_a_dear_gpu_against_a_cheap_cloud_never_breaks_even() -> None:
    shape = TrafficShape(
        requests=10, prompt_tokens=1000, completion_tokens=1000, work_us=3_600_000_000
    )  # 10 requests fill an hour
    result = break_even(GpuRental(Decimal(10)), shape, Tariff(Decimal("0.01"), Decimal("0.01")))
    assert result.utilisation is not None
    assert result.utilisation > 1
    assert not result.reachable


def test_against_a_free_cloud_or_without_traffic_there_is_no_break_even() -> None:
    free = Tariff(Decimal(0), Decimal(0))
    shape = TrafficShape(requests=10, prompt_tokens=1000, completion_tokens=1000, work_us=1000)
    assert break_even(GpuRental(Decimal(1)), shape, free).utilisation is None
    empty = TrafficShape(requests=0, prompt_tokens=0, completion_tokens=0, work_us=0)
    assert break_even(GpuRental(Decimal(1)), empty, Tariff(Decimal(1), Decimal(1))).requests_per_day is None
    assert break_even_utilisation(Decimal(1), 10, 10, free) is None


def test_a_rental_needs_a_price_and_a_gpu() -> None:
    with pytest.raises(TariffError, match="price_per_hour"):
        GpuRental(Decimal(-1))
    with pytest.raises(TariffError, match="count"):
        GpuRental(Decimal(1), 0)
