"""Prices: from tokens to integer nano-dollars, exactly.

Money is a Python int of nano-dollars (1e-9 USD) everywhere. Prices come as Decimal text from a dated
catalogue or the config; they never pass through a float. A charge is computed as one exact rational number
and rounded once, half up, to a whole nano-dollar:

    charge = (fresh * p_in + cached * p_cached + written * p_write + written_long * p_write_long
              + plain_out * p_out + reasoning * p_reasoning) / 10^6 + p_request + seconds * p_second     [USD]

where fresh + cached + written + written_long are the prompt's tokens and plain_out + reasoning the completion's.
A tariff may have steps: other prices per token once a prompt is longer than so many tokens (then for the whole
request, as providers bill it), or in another service of the provider (`batch`, `flex`, `priority`).

Providers report reasoning tokens as part of the output; they cost the same unless `reasoning_per_million` says
otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import date
from decimal import Decimal, InvalidOperation

from spillway_router.core.frozen import fast_frozen

NANO = 10**9
"""Nano-dollars in one US dollar."""

STANDARD = ""
"""The service that a request gets when it asks for none."""
_STANDARD_NAMES = frozenset({"", "auto", "default", "standard", "standard_only", "on_demand"})
_SERVICES = {"batches": "batch"}

_PER_TOKEN = NANO // 10**6  # USD per million tokens -> nano-dollars per token
_MAX_PRICE = Decimal(10) ** 6
_MAX_DECIMALS = 18
_SHOWN_DECIMALS = 6
_NANO_DECIMALS = 9


class TariffError(ValueError):
    """A price or an amount of money that can't be used; the message says what to change."""


def service_of(name: object) -> str:
    """Our name of what a provider calls `service_tier`; all names of its usual service become STANDARD."""
    if not isinstance(name, str) or name in _STANDARD_NAMES:
        return STANDARD
    return _SERVICES.get(name, name[:64])


@fast_frozen(frozen=True, slots=True)
class Usage:
    """Tokens of one attempt. Cached and cache-writing ones are part of the prompt, reasoning ones of the completion.

    `cache_write_tokens` are all that were written to the provider's prompt cache, `cache_write_long_tokens` those of
    them that it keeps for an hour or longer. `service` is what served it, as `service_of` names it.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_long_tokens: int = 0
    service: str = STANDARD

    def __post_init__(self) -> None:
        if (
            min(self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.reasoning_tokens) < 0
            or self.cache_write_tokens < 0
            or self.cache_write_long_tokens < 0
        ):
            raise TariffError(f"token counts must be 0 or more, got {self}")

    @property
    def uncached_tokens(self) -> int:
        """Prompt tokens that were computed; not below 0, even where a provider over-reports hits."""
        return max(0, self.prompt_tokens - self.cached_tokens)


@fast_frozen(frozen=True, slots=True)
class Rates:
    """Prices per token, in USD per million. None: the same as what the tokens are part of.

    Cached input and the shorter cache write cost as input, the longer write as the shorter one, reasoning as output.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_long: Decimal | None = None
    reasoning: Decimal | None = None

    def all(self) -> Mapping[str, Decimal]:
        """Every price by the name of its field, None replaced by what it stands for."""
        write = self.input if self.cache_write is None else self.cache_write
        return {
            "input": self.input,
            "output": self.output,
            "cached_input": self.input if self.cached_input is None else self.cached_input,
            "cache_write": write,
            "cache_write_long": write if self.cache_write_long is None else self.cache_write_long,
            "reasoning": self.output if self.reasoning is None else self.reasoning,
        }


@fast_frozen(frozen=True, slots=True)
class TariffStep:
    """Rates for prompts longer than `above_tokens`, in a service of the provider."""

    rates: Rates
    above_tokens: int = 0
    service: str = STANDARD


@fast_frozen(frozen=True, slots=True)
class _Row:
    """Prices per token as integers in units of 10^-decimals USD per million."""

    input: int
    output: int
    cached: int
    write: int
    write_long: int
    reasoning: int
    dearest_input: int
    dearest_output: int


_Ladder = tuple[tuple[int, _Row], ...]  # (above_tokens, prices), the longest prompts first, -1 for any prompt last


@fast_frozen(frozen=True, slots=True)
class Tariff:
    """What one backend charges from a date on, in USD; None for a price means that of `Rates`.

    `valid_until` is the last day of this price, None where no end is known. Raises TariffError for a price that is
    negative, not finite, above 1,000,000 USD or finer than 18 decimals, for a date that isn't an ISO date, and for
    two steps that begin at the same place.
    """

    input_per_million: Decimal
    output_per_million: Decimal
    cached_input_per_million: Decimal | None = None
    per_request: Decimal = Decimal(0)
    valid_from: str = "1970-01-01"
    source: str = "config"
    cache_write_per_million: Decimal | None = None
    cache_write_long_per_million: Decimal | None = None
    reasoning_per_million: Decimal | None = None
    per_second: Decimal = Decimal(0)
    steps: tuple[TariffStep, ...] = ()
    valid_until: str | None = None
    # The same prices as integers in units of 10^-decimals USD, so that pricing is integer arithmetic.
    _ladders: Mapping[str, _Ladder] = field(init=False, repr=False, compare=False)
    _base: _Row = field(init=False, repr=False, compare=False)
    _flat: _Row | None = field(init=False, repr=False, compare=False)
    """The prices, where length and time change nothing of them."""
    _request: int = field(init=False, repr=False, compare=False)
    _second: int = field(init=False, repr=False, compare=False)
    _unit: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        base = {f"{name}_per_million": value for name, value in self.rates.all().items()}
        base |= {"per_request": self.per_request, "per_second": self.per_second}
        for name, value in base.items():
            _check_price(name, value)
        for step in self.steps:
            _check_step(step)
        _check_dates(self.valid_from, self.valid_until)
        values = [*base.values(), *(value for step in self.steps for value in step.rates.all().values())]
        unit = 10 ** max(_decimals(value) for value in values)
        row = _row(self.rates, unit)
        for slot, made in (
            ("_base", row),
            ("_flat", None if self.steps or self.per_second else row),
            ("_ladders", _ladders(row, self.steps, unit)),
            ("_request", _units(self.per_request, unit)),
            ("_second", _units(self.per_second, unit)),
            ("_unit", unit),
        ):
            object.__setattr__(self, slot, made)

    @property
    def rates(self) -> Rates:
        """The prices per token of a usual request."""
        return Rates(
            self.input_per_million,
            self.output_per_million,
            self.cached_input_per_million,
            self.cache_write_per_million,
            self.cache_write_long_per_million,
            self.reasoning_per_million,
        )

    @property
    def ref(self) -> str:
        """Short name of this price for ledger rows: where it is from and since when it holds."""
        return f"{self.source}@{self.valid_from}"

    @property
    def by_tokens(self) -> bool:
        """True if tokens cost something: without a usage report the charge isn't known then."""
        return any(row.dearest_input or row.dearest_output for ladder in self._ladders.values() for _, row in ladder)

    @property
    def free(self) -> bool:
        """True if no usage can cost anything."""
        return not (self._request or self._second or self.by_tokens)

    def knows(self, service: str) -> bool:
        """True if the price of a service is known."""
        return service in self._ladders

    def _for(self, prompt_tokens: int, service: str) -> _Row:
        """The prices of one request; a service without prices of its own costs as the standard one."""
        for above, row in self._ladders.get(service) or self._ladders[STANDARD]:
            if prompt_tokens > above:
                return row
        return self._base  # unreachable: every ladder ends with -1

    def _charge(self, tokens: int, requests: int, seconds: int | Decimal) -> tuple[int, int]:
        """(numerator, denominator) of a charge in nano-dollars, unrounded. `tokens` as priced by a row."""
        numerator, unit = tokens * _PER_TOKEN + requests * self._request * NANO, self._unit
        if self._second and seconds:
            over, under = seconds.as_integer_ratio()
            return numerator * under + self._second * over * NANO, unit * under
        return numerator, unit


def price(usage: Usage, tariff: Tariff, seconds: int | Decimal = 0) -> int:
    """Charge for one attempt in nano-dollars: exact, then rounded half up once.

    `seconds` is what is billed by time: of audio, or of a dedicated endpoint at work.
    """
    prompt, out = usage.prompt_tokens, usage.completion_tokens
    row = tariff._for(prompt, usage.service)
    # Counts of a part never exceed the whole, even where a provider over-reports them.
    cached = min(usage.cached_tokens, prompt)
    fresh = prompt - cached
    reasoning = min(usage.reasoning_tokens, out)
    tokens = cached * row.cached + (out - reasoning) * row.output + reasoning * row.reasoning
    if usage.cache_write_tokens:
        long = min(usage.cache_write_long_tokens, usage.cache_write_tokens, fresh)
        short = min(usage.cache_write_tokens - long, fresh - long)
        fresh -= long + short
        tokens += short * row.write + long * row.write_long
    numerator, unit = tariff._charge(tokens + fresh * row.input, 1, seconds)
    return (2 * numerator + unit) // (2 * unit)


def price_many(uncached_tokens: int, cached_tokens: int, completion_tokens: int, requests: int, tariff: Tariff) -> int:
    """Charge in nano-dollars for the summed tokens of many requests, rounded half up once at the end.

    All at the usual prices: of a sum nobody can tell how many prompts were long, written to a cache, or reasoned on.
    """
    row = tariff._base
    tokens = uncached_tokens * row.input + cached_tokens * row.cached + completion_tokens * row.output
    numerator, unit = tariff._charge(tokens, requests, 0)
    return (2 * numerator + unit) // (2 * unit)


def upper_bound(
    prompt_bytes: int,
    template_tokens: int,
    max_output_tokens: int,
    n: int,
    tariff: Tariff,
    *,
    seconds: int | Decimal = 0,
    service: str = STANDARD,
) -> int:
    """Most that one attempt can cost, in nano-dollars, rounded up.

    Holds because a byte-level tokenizer never makes more tokens than the prompt has UTF-8 bytes;
    `template_tokens` covers what the chat template adds, and what an image given by URL may expand to. The input is
    billed once, the output for each of the `n` choices, each at the dearest price of its kind (cache write,
    reasoning) and at the dearest step that so long a prompt can reach. `seconds` is the longest it may take,
    `service` the one asked for: a provider may still serve it as standard, so both count.
    """
    if min(prompt_bytes, template_tokens, max_output_tokens) < 0 or n < 1 or seconds < 0:
        raise TariffError("upper_bound needs sizes and seconds of 0 or more and n of 1 or more")
    input_tokens = prompt_bytes + template_tokens
    output_tokens = max_output_tokens * n
    base = tariff._flat
    if base is not None and service == STANDARD:  # nearly every price
        tokens = input_tokens * base.dearest_input + output_tokens * base.dearest_output
        return -(-(tokens * _PER_TOKEN + tariff._request * NANO) // tariff._unit)
    tokens = 0
    for name in (STANDARD,) if service == STANDARD or not tariff.knows(service) else (STANDARD, service):
        for above, row in tariff._ladders[name]:
            if input_tokens > above:
                tokens = max(tokens, input_tokens * row.dearest_input + output_tokens * row.dearest_output)
    numerator, unit = tariff._charge(tokens, 1, seconds)
    return -(-numerator // unit)


def usd(nano: int) -> str:
    """Nano-dollars as a plain decimal string of USD: no exponent, 6 decimals, up to 9 where they aren't
    zero."""
    if not nano:
        return "0.000000"  # every local answer's
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


def _row(rates: Rates, unit: int) -> _Row:
    units = {name: _units(value, unit) for name, value in rates.all().items()}
    inputs = (units["input"], units["cached_input"], units["cache_write"], units["cache_write_long"])
    return _Row(
        input=units["input"],
        output=units["output"],
        cached=units["cached_input"],
        write=units["cache_write"],
        write_long=units["cache_write_long"],
        reasoning=units["reasoning"],
        dearest_input=max(inputs),
        dearest_output=max(units["output"], units["reasoning"]),
    )


def _ladders(base: _Row, steps: Iterable[TariffStep], unit: int) -> dict[str, _Ladder]:
    """Service -> its steps, the longest prompts first. A service without a price from 0 tokens on begins as the
    standard one does."""
    found: dict[str, dict[int, _Row]] = {STANDARD: {-1: base}}
    for step in steps:
        rows = found.setdefault(step.service, {-1: base})
        above = step.above_tokens or -1
        if above in rows and (above > 0 or step.service == STANDARD or rows[-1] is not base):
            where = f"above {step.above_tokens} tokens" if step.above_tokens else "for prompts of any length"
            raise TariffError(f"two prices {where} in service {step.service or 'standard'!r}; keep one")
        rows[above] = _row(step.rates, unit)
    return {service: tuple(sorted(rows.items(), key=lambda r: -r[0])) for service, rows in found.items()}


def _units(value: Decimal, unit: int) -> int:
    numerator, denominator = value.as_integer_ratio()
    return numerator * unit // denominator


def _check_step(step: TariffStep) -> None:
    where = f"above {step.above_tokens} tokens" if step.above_tokens else f"in service {step.service!r}"
    if step.above_tokens < 0:
        raise TariffError(f"a price step begins above {step.above_tokens} tokens; it must be 0 or more")
    for name, value in step.rates.all().items():
        _check_price(f"{name}_per_million {where}", value)


def _check_price(name: str, value: Decimal) -> None:
    if not isinstance(value, Decimal):
        raise TariffError(f"{name} must be decimal text such as '0.15', not {type(value).__name__}")
    if not value.is_finite() or value < 0 or value > _MAX_PRICE:
        raise TariffError(f"{name} is {value}; it must be between 0 and {_MAX_PRICE} USD")
    if _decimals(value) > _MAX_DECIMALS:
        raise TariffError(f"{name} has more than {_MAX_DECIMALS} decimals")


def _check_dates(valid_from: str, valid_until: str | None) -> None:
    found = []
    for name, text in (("valid_from", valid_from), ("valid_until", valid_until)):
        if text is None:
            continue
        try:
            found.append(date.fromisoformat(text))
        except (TypeError, ValueError):
            raise TariffError(f"{name} is {text!r}; write a date like '2026-11-20'") from None
    if found[-1] < found[0]:
        raise TariffError(f"valid_until {valid_until} lies before valid_from {valid_from}; swap them or leave one out")


def _decimals(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)  # finite by the check before
    return max(0, -exponent)
