"""Prices: from tokens to integer nano-dollars, exactly.

Money is a Python int of nano-dollars (1e-9 USD) everywhere. Prices come as Decimal text from a dated
catalogue or the config; they never pass through a float. A charge is computed as one exact rational number
and rounded once, half up, to a whole nano-dollar:

    charge = (uncached_in * p_in + cached_in * p_cached + out * p_out) / 10^6 + p_request        [USD]

Providers bill reasoning tokens as output tokens, so `Usage.completion_tokens` includes them and
`Usage.reasoning_tokens` only says how many of them there were.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation

NANO = 10**9
"""Nano-dollars in one US dollar."""

_PER_TOKEN = NANO // 10**6  # USD per million tokens -> nano-dollars per token
_MAX_PRICE = Decimal(10) ** 6
_MAX_DECIMALS = 18
_SHOWN_DECIMALS = 6
_NANO_DECIMALS = 9


class TariffError(ValueError):
    """A price or an amount of money that can't be used; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one attempt; cached ones are part of the prompt, reasoning ones of the completion."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __post_init__(self) -> None:
        if min(self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.reasoning_tokens) < 0:
            raise TariffError(f"token counts must be 0 or more, got {self}")

    @property
    def uncached_tokens(self) -> int:
        """Prompt tokens at the full input price; not below 0, even where a provider over-reports hits."""
        return max(0, self.prompt_tokens - self.cached_tokens)


@dataclass(frozen=True, slots=True)
class Tariff:
    """What one backend charges from a date on, in USD; None for cached input means the full input price.

    Raises TariffError for a price that is negative, not finite, above 1,000,000 USD or finer than 18
    decimals, and for a `valid_from` that isn't an ISO date.
    """

    input_per_million: Decimal
    output_per_million: Decimal
    cached_input_per_million: Decimal | None = None
    per_request: Decimal = Decimal(0)
    valid_from: str = "1970-01-01"
    source: str = "config"
    # The same prices as integers in units of 10^-decimals USD, so that pricing is integer arithmetic.
    _input: int = field(init=False, repr=False, compare=False)
    _output: int = field(init=False, repr=False, compare=False)
    _cached: int = field(init=False, repr=False, compare=False)
    _request: int = field(init=False, repr=False, compare=False)
    _unit: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        cached = self.input_per_million if self.cached_input_per_million is None else self.cached_input_per_million
        prices = {
            "input_per_million": self.input_per_million,
            "output_per_million": self.output_per_million,
            "cached_input_per_million": cached,
            "per_request": self.per_request,
        }
        for name, value in prices.items():
            _check_price(name, value)
        _check_date(self.valid_from)
        decimals = max(_decimals(value) for value in prices.values())
        unit = 10**decimals
        for slot, value in zip(("_input", "_output", "_cached", "_request"), prices.values(), strict=True):
            numerator, denominator = value.as_integer_ratio()
            object.__setattr__(self, slot, numerator * unit // denominator)
        object.__setattr__(self, "_unit", unit)

    @property
    def ref(self) -> str:
        """Short name of this price for ledger rows: where it is from and since when it holds."""
        return f"{self.source}@{self.valid_from}"

    @property
    def free(self) -> bool:
        """True if no usage can cost anything."""
        return not (self._input or self._output or self._cached or self._request)

    def _exact(self, uncached: int, cached: int, out: int, requests: int) -> tuple[int, int]:
        """(numerator, denominator) of the charge in nano-dollars, unrounded."""
        tokens = uncached * self._input + cached * self._cached + out * self._output
        return tokens * _PER_TOKEN + requests * self._request * NANO, self._unit

    def _dearest_input(self) -> int:
        return max(self._input, self._cached)


def price(usage: Usage, tariff: Tariff) -> int:
    """Charge for one attempt in nano-dollars: exact, then rounded half up once."""
    cached = usage.prompt_tokens - usage.uncached_tokens
    numerator, unit = tariff._exact(usage.uncached_tokens, cached, usage.completion_tokens, 1)
    return (2 * numerator + unit) // (2 * unit)


def price_many(uncached_tokens: int, cached_tokens: int, completion_tokens: int, requests: int, tariff: Tariff) -> int:
    """Charge in nano-dollars for the summed tokens of many requests, rounded half up once at the end."""
    numerator, unit = tariff._exact(uncached_tokens, cached_tokens, completion_tokens, requests)
    return (2 * numerator + unit) // (2 * unit)


def upper_bound(prompt_bytes: int, template_tokens: int, max_output_tokens: int, n: int, tariff: Tariff) -> int:
    """Most that one attempt can cost, in nano-dollars, rounded up.

    Holds because a byte-level tokenizer never makes more tokens than the prompt has UTF-8 bytes;
    `template_tokens` covers what the chat template adds, and what an image given by URL may expand to. The
    input is billed once, the output for each of the `n` choices, cached input at the higher input price.
    """
    if min(prompt_bytes, template_tokens, max_output_tokens) < 0 or n < 1:
        raise TariffError("upper_bound needs sizes of 0 or more and n of 1 or more")
    input_tokens = prompt_bytes + template_tokens
    tokens = input_tokens * tariff._dearest_input() + max_output_tokens * n * tariff._output
    numerator = tokens * _PER_TOKEN + tariff._request * NANO
    return -(-numerator // tariff._unit)


def usd(nano: int) -> str:
    """Nano-dollars as a plain decimal string of USD: no exponent, 6 decimals, up to 9 where they aren't
    zero."""
    whole, fraction = divmod(abs(nano), NANO)
    digits = f"{fraction:0{_NANO_DECIMALS}d}"
    shown = digits[:_SHOWN_DECIMALS] + digits[_SHOWN_DECIMALS:].rstrip("0")
    return f"{'-' if nano < 0 else ''}{whole}.{shown}"


def nano_from_usd(text: str | Decimal) -> int:
    """USD as decimal text to nano-dollars. Raises TariffError if it isn't a number or is finer than a
    nano-dollar."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise TariffError(f"{text!r} is not an amount of money; write it like '12.50'") from None
    if not value.is_finite() or abs(value) > Decimal(10) ** 12:
        raise TariffError(f"{text!r} is out of range for an amount in USD")
    if _decimals(value) > _NANO_DECIMALS:
        raise TariffError(f"{text!r} is finer than a nano-dollar; use at most 9 decimals")
    numerator, denominator = value.as_integer_ratio()
    return numerator * NANO // denominator


def _check_price(name: str, value: Decimal) -> None:
    if not isinstance(value, Decimal):
        raise TariffError(f"{name} must be decimal text such as '0.15', not {type(value).__name__}")
    if not value.is_finite() or value < 0 or value > _MAX_PRICE:
        raise TariffError(f"{name} is {value}; it must be between 0 and {_MAX_PRICE} USD")
    if _decimals(value) > _MAX_DECIMALS:
        raise TariffError(f"{name} has more than {_MAX_DECIMALS} decimals")


def _check_date(text: str) -> None:
    try:
        date.fromisoformat(text)
    except (TypeError, ValueError):
        raise TariffError(f"valid_from is {text!r}; write a date like '2026-11-20'") from None


def _decimals(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)  # finite by the check before
    return max(0, -exponent)
