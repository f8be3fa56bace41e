"""Attribution: share the fixed price of rented GPU hours among the requests that used them.

A GPU is billed by the hour, whether it works or not. Each local answer gets a work share in GPU time:

    work = b_p * uncached_in + b_d * out + b_kv * (c * out + out^2 / 2)            [GPU-seconds]

The terms are the prefill of the tokens that were not in the prefix cache, the decode steps, and reading the growing KV
cache (the sum of the context lengths over all decode steps, with c prompt tokens). A period's bill is split by these
shares; what no request used is idle. The split uses the largest remainder method and is exact to the nano-dollar:
Used + Unused = Billed.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.tariff import NANO, Tariff, TariffError, price_many

MICRO = 10**6
_PS_PER_US = 10**6
_HOUR_US = 3600 * MICRO
_PS_PER_S = 10**12
_MILLION = 10**6


MOST_HOURLY_USD = 100_000
"""More than any fleet of one ledger costs per hour. Years of it fit into the ledger's sums of nano-dollars, which are
64-bit integers: a rental at a mistyped price would end every report for good."""


@fast_frozen(frozen=True, slots=True)
class GpuRental:
    """What the GPUs of this machine cost: USD per hour of one GPU, and how many are rented."""

    price_per_hour: Decimal
    count: int = 1

    def __post_init__(self) -> None:
        if not self.price_per_hour.is_finite() or not 0 <= self.price_per_hour <= 10**6:
            raise TariffError(f"gpu price_per_hour is {self.price_per_hour}; it must be 0 to 1,000,000 USD")
        if self.count < 1:
            raise TariffError(f"gpu count is {self.count}; it must be 1 or more")

    @property
    def nano_per_second(self) -> Fraction:
        """Exact nano-dollars per second of all GPUs together; a Fraction, because 3600 divides few prices."""
        return Fraction(self.price_per_hour) * self.count * NANO / 3600


@fast_frozen(frozen=True, slots=True)
class WorkCoefficients:
    """GPU time per token of work, in picoseconds of one GPU (integers, so that shares are exact).

    The defaults describe one A100 with an 8B model: prefill of 2048 tokens in 150 ms, decoding at a batch of 64 in
    11.4 ms per step, and KV reads of 128 KiB per token at 1.5 TB/s. They only have to be right relative to each other
    and to the wall clock of this engine. `from_rates` takes measured rates instead.
    """

    prefill_ps: int = 73_242_188
    decode_ps: int = 178_125_000
    kv_ps: int = 87_381

    def __post_init__(self) -> None:
        if min(self.prefill_ps, self.decode_ps, self.kv_ps) < 0:
            raise TariffError("work coefficients must be 0 or more")

    @classmethod
    def from_rates(
        cls, prefill_tokens_per_s: float, decode_tokens_per_s: float, kv_seconds_per_token: float = 0.0
    ) -> WorkCoefficients:
        """Return the coefficients for measured full-load rates of the whole engine (tokens per second, all requests).

        `kv_seconds_per_token` is the time to read one token of context once; 0 if the decode rate already includes it.
        """
        if prefill_tokens_per_s <= 0 or decode_tokens_per_s <= 0 or kv_seconds_per_token < 0:
            raise TariffError("rates must be above 0 tokens per second")
        return cls(
            prefill_ps=round(_PS_PER_S / prefill_tokens_per_s),
            decode_ps=round(_PS_PER_S / decode_tokens_per_s),
            kv_ps=round(_PS_PER_S * kv_seconds_per_token),
        )


def work_share_us(uncached_in: int, context: int, out: int, coefficients: WorkCoefficients) -> int:
    """Return the work of one answer in microseconds of one GPU, rounded half up.

    `uncached_in` counts the prompt tokens that had to be prefilled, `context` all prompt tokens, `out` the generated
    tokens.
    """
    return work_sum_us(uncached_in, out, 2 * context * out + out * out, coefficients)


def work_sum_us(uncached_in: int, out: int, kv_token_steps_x2: int, coefficients: WorkCoefficients) -> int:
    """Return the work of many answers, given their sums, in microseconds of one GPU, rounded half up once.

    `kv_token_steps_x2` is the sum of `2*c*out + out^2` over the answers.
    """
    twice_ps = 2 * (coefficients.prefill_ps * uncached_in + coefficients.decode_ps * out)
    twice_ps += coefficients.kv_ps * kv_token_steps_x2
    return (twice_ps + _PS_PER_US) // (2 * _PS_PER_US)


@fast_frozen(frozen=True, slots=True)
class FixedSplit:
    """A period's bill in nano-dollars: one used amount per share, and the idle rest. They sum exactly to the bill.

    `work_us` is the sum of the shares, `rented_us` the billed GPU time. If the work exceeds the billed time, the
    coefficients claim more work than there was time for (`overcommitted`): the whole bill then counts as used, and the
    shares are scaled down.
    """

    used_nano: tuple[int, ...]
    idle_nano: int
    work_us: int
    rented_us: int

    @property
    def used_total_nano(self) -> int:
        """Nano-dollars of the bill that requests used."""
        return sum(self.used_nano)

    @property
    def overcommitted(self) -> bool:
        """True if the shares claim more GPU time than was billed."""
        return self.work_us > self.rented_us

    @property
    def utilisation(self) -> float:
        """Used share of the rented time in [0, 1]; 0 if nothing was rented."""
        return min(1.0, self.work_us / self.rented_us) if self.rented_us else 0.0


def split_billed(billed_nano: int, rented_us: int, shares_us: Sequence[int]) -> FixedSplit:
    """Split a bill over work shares and idle time by the largest remainder method.

    Each part gets the floor of its exact amount. The remaining nano-dollars go one each to the largest remainders (on a
    tie to the earlier part, idle time last), so every part is within one nano-dollar of its exact amount. Work without
    rented time (an engine outside the rental) leaves the whole bill, if any, idle.
    """
    if billed_nano < 0 or rented_us < 0 or any(share < 0 for share in shares_us):
        raise TariffError("a bill, rented time and work shares must be 0 or more")
    work_us = sum(shares_us)
    parts = [*shares_us, max(0, rented_us - work_us)]
    whole = sum(parts)
    if not rented_us or not whole:
        return FixedSplit(
            used_nano=tuple(0 for _ in shares_us), idle_nano=billed_nano, work_us=work_us, rented_us=rented_us
        )
    amounts = [billed_nano * part // whole for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda i: (-(billed_nano * parts[i] % whole), i))
    for i in by_remainder[: billed_nano - sum(amounts)]:
        amounts[i] += 1
    return FixedSplit(used_nano=tuple(amounts[:-1]), idle_nano=amounts[-1], work_us=work_us, rented_us=rented_us)


@fast_frozen(frozen=True, slots=True)
class TrafficShape:
    """Sums over a set of answered requests, which an alternative would have had to answer.

    The token counts are those of the backend that answered; `work_us` is the set's work on the local GPU.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    work_us: int


@fast_frozen(frozen=True, slots=True)
class BreakEven:
    """When renting pays off against one priced alternative, for traffic of a given shape.

    `utilisation` is the share of the rented time that must be used for the GPU to cost the same; above 1 renting never
    pays off. `requests_per_day` is the same as a number of requests. Both are None if the alternative is free (renting
    never pays off) or if there is no traffic.
    """

    utilisation: float | None
    requests_per_day: float | None

    @property
    def reachable(self) -> bool:
        """True if some load that fits the GPU makes it cheaper than the alternative."""
        return self.utilisation is not None and self.utilisation <= 1


def break_even_utilisation(
    price_per_hour: Decimal, in_tokens_per_hour: int, out_tokens_per_hour: int, tariff: Tariff
) -> float | None:
    """Return u* = P / (T_in * p_in + T_out * p_out), with the GPUs' price P and T tokens per hour at full load.

    Returns None if the alternative would charge nothing. Prices per request need `break_even`, which has their number.
    """
    cloud_nano = price_many(
        uncached_tokens=in_tokens_per_hour,
        cached_tokens=0,
        completion_tokens=out_tokens_per_hour,
        requests=0,
        tariff=tariff,
    )
    return float(Fraction(price_per_hour) * NANO / cloud_nano) if cloud_nano else None


def break_even(rental: GpuRental, shape: TrafficShape, tariff: Tariff) -> BreakEven:
    """Return the break-even of the rental against a tariff, for requests of this shape.

    This is the formula of `break_even_utilisation`, where full load is the rented GPU time over the work of the mean
    request: u* = P / (hourly capacity in requests * mean cloud price of a request). It assumes no cache discount.
    """
    cloud_nano = price_many(
        uncached_tokens=shape.prompt_tokens,
        cached_tokens=0,
        completion_tokens=shape.completion_tokens,
        requests=shape.requests,
        tariff=tariff,
    )
    return break_even_at(rental, shape, Fraction(cloud_nano))


def break_even_at(rental: GpuRental, shape: TrafficShape, cloud_nano: Fraction) -> BreakEven:
    """Return the break-even of the rental against a cloud that charges so much for the requests of this shape."""
    if not shape.requests or not cloud_nano:
        return BreakEven(None, None)
    per_day = rental.nano_per_second * 86400 * shape.requests / cloud_nano
    capacity_per_day = Fraction(86400 * MICRO * rental.count * shape.requests, max(1, shape.work_us))
    return BreakEven(float(per_day / capacity_per_day), float(per_day))
