"""Tariffs: from tokens to integer nano-dollars, exactly.

Money is a Python int of nano-dollars (1e-9 USD) everywhere. Prices come as decimal text from a dated price list or the
configuration, and never pass through a float. A charge is computed as one exact rational number and rounded once, half
up, to a whole nano-dollar:

    charge = (fresh * p_in + cached * p_cached + written * p_write + written_long * p_write_long
              + plain_out * p_out + reasoning * p_reasoning + media * p_media) / 10^6 + p_request
              + seconds * p_second + calls of the provider's tools, each at its fee                       [USD]

where fresh + cached + written + written_long are the tokens of the prompt, and plain_out + reasoning those of the
completion; audio and generated pictures among them cost their own prices. A tariff may have steps: other prices per
token once a prompt exceeds so many tokens (then for the whole request, as providers bill it), or in another service of
the provider (`batch`, `flex`, `priority`).

Providers report reasoning tokens as part of the output; they cost the same as other output unless
`reasoning_per_million` says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import date
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from hashlib import sha256
from typing import Any

from spillway_router.core.frozen import fast_frozen

_MOST_USD = Decimal(10) ** 12
NANO = 10**9
"""Nano-dollars in one US dollar."""

STANDARD = ""
"""The service of a request that asks for no particular one."""
_STANDARD_NAMES = frozenset(
    {"", "auto", "default", "standard", "standard_only", "on_demand", "global", "not_available"}
)
_SERVICES = {"batches": "batch"}

DIGEST_SIGN = "#"
_DIGEST_DIGITS = 12

MEDIA = ("audio_input", "audio_output", "image_output")
"""Kinds of tokens with prices of their own; pictures in a prompt cost the same as text."""
_OF_OUTPUT = "_output"

_PER_TOKEN = NANO // 10**6  # USD per million tokens -> nano-dollars per token
_MAX_PRICE = Decimal(10) ** 6
_MAX_DECIMALS = 18
_SHOWN_DECIMALS = 6
_NANO_DECIMALS = 9


class TariffError(ValueError):
    """A price or an amount of money can't be used; the message says what to change."""


def service_of(name: object) -> str:
    """Return our name for a provider's `service_tier`; every name of its usual service becomes STANDARD."""
    if not isinstance(name, str) or name in _STANDARD_NAMES:
        return STANDARD
    return _SERVICES.get(name, name[:64])


def mode_of(names: Iterable[object]) -> str:
    """Return one name for the modes that a request or an answer names (`service_tier`, speed, region), such as
    `fast+us`."""
    services = sorted({service_of(name) for name in names} - {STANDARD})
    return "+".join(services) if services else STANDARD


@fast_frozen(frozen=True, slots=True)
class Usage:
    """The tokens of one attempt. Cached and cache-write tokens are part of the prompt, reasoning tokens of the
    completion.

    `cache_write_tokens` were written to the provider's prompt cache; `cache_write_long_tokens` are those among them
    that the provider keeps for an hour or longer. `service` served the request, as `service_of` names it. `calls` are
    the uses of the provider's own tools, by the names of their fees. `media` are the tokens among the prompt and the
    completion that have prices of their own, by the names of these prices (MEDIA). `told_nano` is the charge that the
    provider itself names in the answer, where its word counts; None elsewhere. `model` is the one that answered, where
    it may be other than the backend's and the provider tells it. Without `certain` there was more than these tokens,
    nobody knows how much.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_long_tokens: int = 0
    service: str = STANDARD
    calls: tuple[tuple[str, int], ...] = ()
    told_nano: int | None = None
    model: str = ""
    certain: bool = True
    media: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if (
            self.prompt_tokens < 0
            or self.completion_tokens < 0
            or self.cached_tokens < 0
            or self.reasoning_tokens < 0
            or self.cache_write_tokens < 0
            or self.cache_write_long_tokens < 0
        ):
            raise TariffError(f"token counts must be 0 or more, got {self}")

    @property
    def uncached_tokens(self) -> int:
        """Prompt tokens that had to be computed; never below 0, even if a provider reports too many cache hits."""
        return max(0, self.prompt_tokens - self.cached_tokens)


@fast_frozen(frozen=True, slots=True)
class Rates:
    """Prices per token, in USD per million tokens.

    Without a price of their own (None), cached input and the shorter cache write cost the same as input, the longer
    cache write the same as the shorter one, and reasoning the same as output.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_long: Decimal | None = None
    reasoning: Decimal | None = None

    def all(self) -> Mapping[str, Decimal]:
        """Return every price by the name of its field, with the implied price in place of None."""
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
    """The rates for prompts longer than `above_tokens`, in one service of the provider."""

    rates: Rates
    above_tokens: int = 0
    service: str = STANDARD


@fast_frozen(frozen=True, slots=True)
class _TokenPrices:
    """Prices per token as integers, in units of 10^-decimals USD per million tokens."""

    input: int
    output: int
    cached: int
    write: int
    write_long: int
    reasoning: int
    dearest_input: int
    dearest_output: int


_PriceSteps = tuple[tuple[int, _TokenPrices], ...]  # (above_tokens, prices), highest first; -1, for any prompt, is last


@fast_frozen(frozen=True, slots=True)
class Tariff:
    """What one backend charges from a date on, in USD. A price of None is implied by the others, as in `Rates`.

    `valid_until` is the last day of this price, None if no end is known. Raises TariffError for a price that is
    negative, not finite, above 1,000,000 USD or finer than 18 decimals, for a date that isn't an ISO date, and for two
    steps that begin at the same prompt length.
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
    fees: tuple[tuple[str, Decimal], ...] = ()
    """The price of one use of each of the provider's own tools, such as a web search, by its name."""
    media: tuple[tuple[str, Decimal], ...] = ()
    """The prices of a million tokens of MEDIA, by their names."""
    # The same prices as integers in units of 10^-decimals USD, so that pricing is integer arithmetic.
    _steps_of_service: Mapping[str, _PriceSteps] = field(init=False, repr=False, compare=False)
    _base: _TokenPrices = field(init=False, repr=False, compare=False)
    _flat: _TokenPrices | None = field(init=False, repr=False, compare=False)
    """The prices, if neither the length of the prompt nor the time changes them."""
    _request: int = field(init=False, repr=False, compare=False)
    _second: int = field(init=False, repr=False, compare=False)
    _unit: int = field(init=False, repr=False, compare=False)
    fee_units: Mapping[str, int] = field(init=False, repr=False, compare=False)
    """The known fees by name, in units of 10^-decimals USD."""
    _ref: str = field(init=False, repr=False, compare=False)
    """The name once it was asked for."""
    media_units: Mapping[str, int] = field(init=False, repr=False, compare=False)
    """The known prices of media by name, in units of 10^-decimals USD per million tokens."""

    def __post_init__(self) -> None:
        base = {f"{name}_per_million": value for name, value in self.rates.all().items()}
        base |= {"per_request": self.per_request, "per_second": self.per_second}
        base |= {f"fees.{name}": value for name, value in self.fees}
        base |= {f"{name}_per_million": value for name, value in self.media}
        for name, value in base.items():
            _check_price(name, value)
        for step in self.steps:
            _check_step(step)
        _check_dates(self.valid_from, self.valid_until)
        values = [*base.values(), *(value for step in self.steps for value in step.rates.all().values())]
        unit = 10 ** max(_decimals(value) for value in values)
        prices = _token_prices(self.rates, unit)
        for slot, derived in (
            ("_base", prices),
            ("_flat", None if self.steps or self.per_second else prices),
            ("_steps_of_service", _price_steps(prices, self.steps, unit)),
            ("_request", _units(self.per_request, unit)),
            ("_second", _units(self.per_second, unit)),
            ("_unit", unit),
            ("fee_units", {name: _units(value, unit) for name, value in self.fees}),
            ("_ref", ""),
            ("media_units", {name: _units(value, unit) for name, value in self.media}),
        ):
            object.__setattr__(self, slot, derived)

    @property
    def rates(self) -> Rates:
        """The prices per token of an ordinary request."""
        return Rates(
            input=self.input_per_million,
            output=self.output_per_million,
            cached_input=self.cached_input_per_million,
            cache_write=self.cache_write_per_million,
            cache_write_long=self.cache_write_long_per_million,
            reasoning=self.reasoning_per_million,
        )

    @property
    def ref(self) -> str:
        """The name of this price in ledger rows: its source, the date from which it holds, and a digest of its content.

        So another price has another name, whatever the source says about its date, and the same one keeps its name.
        """
        if not self._ref:
            name = f"{self.source}@{self.valid_from}{DIGEST_SIGN}{digest_of(price_text(self))}"
            object.__setattr__(self, "_ref", name)
        return self._ref

    @property
    def by_tokens(self) -> bool:
        """True if tokens cost something, so that the charge is unknown without a usage report."""
        steps = [prices for steps in self._steps_of_service.values() for _, prices in steps]
        return any(self.media_units.values()) or any(prices.dearest_input or prices.dearest_output for prices in steps)

    @property
    def free(self) -> bool:
        """True if no usage costs anything."""
        return not (self._request or self._second or any(self.fee_units.values()) or self.by_tokens)

    def times(self, factor: Decimal) -> Tariff:
        """Return this tariff with every price per token multiplied by `factor`."""
        if factor == 1:
            return self
        rates = _times(self.rates, factor)
        return Tariff(
            input_per_million=rates.input,
            output_per_million=rates.output,
            cached_input_per_million=rates.cached_input,
            per_request=self.per_request,
            valid_from=self.valid_from,
            source=f"{self.source}x{factor}",
            cache_write_per_million=rates.cache_write,
            cache_write_long_per_million=rates.cache_write_long,
            reasoning_per_million=rates.reasoning,
            per_second=self.per_second,
            steps=tuple(TariffStep(_times(s.rates, factor), s.above_tokens, s.service) for s in self.steps),
            valid_until=self.valid_until,
            fees=self.fees,
            media=tuple((name, value * factor) for name, value in self.media),
        )

    def knows(self, service: str) -> bool:
        """Return whether the price of a service is known."""
        return service in self._steps_of_service

    def _prices_for(self, prompt_tokens: int, service: str) -> _TokenPrices:
        """Return the prices of one request; a service without prices of its own costs the same as the standard one."""
        for above, prices in self._steps_of_service.get(service) or self._steps_of_service[STANDARD]:
            if prompt_tokens > above:
                return prices
        return self._base  # unreachable, because the last step is -1

    def prices_calls(self, usage: Usage) -> bool:
        """Return whether the fee of every tool that was used is known."""
        return all(name in self.fee_units for name, _ in usage.calls)

    def prices_media(self, usage: Usage) -> bool:
        """Return whether the prices of all tokens that have one of their own are known."""
        return all(name in self.media_units for name, _ in usage.media)

    def _fees(self, calls: tuple[tuple[str, int], ...]) -> int:
        """Return the sum of the known fees of these calls, in units of 10^-decimals USD."""
        return sum(self.fee_units.get(name, 0) * count for name, count in calls)

    def _charge(self, tokens: int, requests: int, seconds: int | Decimal, fees: int = 0) -> tuple[int, int]:
        """Return the unrounded charge in nano-dollars as (numerator, denominator); `tokens` is the sum of tokens x
        price, `fees` that of calls x fee."""
        numerator, unit = tokens * _PER_TOKEN + (requests * self._request + fees) * NANO, self._unit
        if self._second and seconds:
            over, under = seconds.as_integer_ratio()
            return numerator * under + self._second * over * NANO, unit * under
        return numerator, unit


def digest_of(text: str) -> str:
    """Return the digest of a price's text, as it stands in the price's name."""
    return sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]


def price_text(tariff: Tariff) -> str:
    """Return everything from which a charge is computed, as compact JSON; `tariff_of_text` reads it.

    Amounts are decimal text in USD; what is absent is implied by the others, as in `Rates`, or costs nothing. Equal
    prices have equal texts.
    """
    values: dict[str, Any] = _rates_text(tariff.rates)
    for name, value in (("per_request", tariff.per_request), ("per_second", tariff.per_second)):
        if value:
            values[name] = _plain(value)
    if tariff.fees:
        values["fees"] = {name: _plain(value) for name, value in tariff.fees}
    if tariff.media:
        values["media"] = {name: _plain(value) for name, value in tariff.media}
    steps = sorted(tariff.steps, key=lambda step: (step.service, step.above_tokens))
    if steps:
        values["steps"] = [
            {"service": step.service, "above_tokens": step.above_tokens, **_rates_text(step.rates)} for step in steps
        ]
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def tariff_of_text(text: str) -> Tariff:
    """Return a tariff with the prices of a text of `price_text`; its source and dates are not in the text.

    Raises TariffError if the text holds no price.
    """
    try:
        values = json.loads(text)
        rates = _rates_of(values)
        return Tariff(
            input_per_million=rates.input,
            output_per_million=rates.output,
            cached_input_per_million=rates.cached_input,
            per_request=Decimal(values.get("per_request", "0")),
            cache_write_per_million=rates.cache_write,
            cache_write_long_per_million=rates.cache_write_long,
            reasoning_per_million=rates.reasoning,
            per_second=Decimal(values.get("per_second", "0")),
            steps=tuple(
                TariffStep(_rates_of(step), step["above_tokens"], step["service"]) for step in values.get("steps", ())
            ),
            fees=tuple((name, Decimal(value)) for name, value in values.get("fees", {}).items()),
            media=tuple((name, Decimal(value)) for name, value in values.get("media", {}).items()),
        )
    except (ValueError, TypeError, KeyError, AttributeError, InvalidOperation) as error:
        raise TariffError(f"not a price of the ledger: {error!r}") from None


def _rates_text(rates: Rates) -> dict[str, Any]:
    values = (
        ("input", rates.input),
        ("output", rates.output),
        ("cached_input", rates.cached_input),
        ("cache_write", rates.cache_write),
        ("cache_write_long", rates.cache_write_long),
        ("reasoning", rates.reasoning),
    )
    return {name: _plain(value) for name, value in values if value is not None}


def _rates_of(values: Mapping[str, Any]) -> Rates:
    def rate(name: str) -> Decimal | None:
        return Decimal(values[name]) if name in values else None

    return Rates(
        input=Decimal(values["input"]),
        output=Decimal(values["output"]),
        cached_input=rate("cached_input"),
        cache_write=rate("cache_write"),
        cache_write_long=rate("cache_write_long"),
        reasoning=rate("reasoning"),
    )


def _plain(value: Decimal) -> str:
    """Return a decimal without an exponent and without zeros at its end, so that equal amounts have equal texts."""
    return f"{value.normalize():f}" if value else "0"


def price(usage: Usage, tariff: Tariff, seconds: int | Decimal = 0) -> int:
    """Return the charge for one attempt in nano-dollars: computed exactly, then rounded half up once.

    `seconds` is the time that is billed: of audio, or of a dedicated endpoint at work.
    """
    prompt, out = usage.prompt_tokens, usage.completion_tokens
    prices = tariff._prices_for(prompt, usage.service)
    # The count of a part never exceeds the whole, even if a provider reports too many.
    cached = min(usage.cached_tokens, prompt)
    fresh = prompt - cached
    reasoning = min(usage.reasoning_tokens, out)
    tokens = cached * prices.cached + (out - reasoning) * prices.output + reasoning * prices.reasoning
    if usage.media:
        for name, count, units in _media(usage, tariff, fresh, out - reasoning):
            if name.endswith(_OF_OUTPUT):
                tokens += count * (units - prices.output)
            else:
                fresh -= count
                tokens += count * units
    if usage.cache_write_tokens:
        long = min(usage.cache_write_long_tokens, usage.cache_write_tokens, fresh)
        short = min(usage.cache_write_tokens - long, fresh - long)
        fresh -= long + short
        tokens += short * prices.write + long * prices.write_long
    fees = tariff._fees(usage.calls) if usage.calls else 0
    numerator, unit = tariff._charge(tokens + fresh * prices.input, 1, seconds, fees)
    return (2 * numerator + unit) // (2 * unit)


@fast_frozen(frozen=True, slots=True)
class PricedPart:
    """One line of a charge: `quantity` of what `name` says, priced per `per` of them, and its nano-dollars.

    `name` is that of a price in `Rates`, `request`, `seconds` (then `quantity` is in microseconds), or the name of a
    fee. `price_usd` is the price as decimal text. `step` names the mode and the length of prompt for which it holds.
    """

    name: str
    quantity: int
    per: int
    price_usd: str
    nano: int
    step: str = ""


def itemised(usage: Usage, tariff: Tariff, billed_us: int = 0) -> tuple[PricedPart, ...]:
    """Return what a charge consists of. The parts sum to what `price` returns, as rounded differences of the running
    total, so each is within a nano-dollar of its exact amount.

    Parts with the same price are one: nobody bills reasoning apart that costs what other output does.
    """
    service = usage.service if tariff.knows(usage.service) else STANDARD
    above, prices = next(
        step for step in tariff._steps_of_service[service] if usage.prompt_tokens > step[0] or step[0] < 0
    )
    step = service + (f">{above}" if above > 0 else "")
    parts = [
        (name, quantity, 10**6, units)
        for name, quantity, units in _token_parts(usage, tariff, prices)
        if quantity or (name == "input" and not usage.completion_tokens)
    ]
    parts += [("request", 1, 1, tariff._request)] if tariff._request else []
    parts += [("seconds", billed_us, 10**6, tariff._second)] if tariff._second else []
    parts += [(name, count, 1, tariff.fee_units.get(name, 0)) for name, count in usage.calls]
    lines, numerator, so_far_nano = [], 0, 0
    for name, quantity, per, units in parts:
        numerator += quantity * units * (10**6 // per)  # in millionths of the tariff's unit
        until_nano = (2 * numerator * NANO + tariff._unit * 10**6) // (2 * tariff._unit * 10**6)
        lines.append(
            PricedPart(
                name=name,
                quantity=quantity,
                per=per,
                price_usd=_plain(Decimal(units) / tariff._unit),
                nano=until_nano - so_far_nano,
                step=step if per == 10**6 and name != "seconds" else "",
            )
        )
        so_far_nano = until_nano
    return tuple(lines)


def _media(usage: Usage, tariff: Tariff, fresh: int, plain_out: int) -> list[tuple[str, int, int]]:
    """Return name, number and price of the tokens with known prices of their own, out of the `fresh` tokens of the
    prompt and the plain ones of the output. Others cost the same as text."""
    media = []
    for name, count in usage.media:
        units = tariff.media_units.get(name)
        if units is None:
            continue
        if name.endswith(_OF_OUTPUT):
            count = min(count, plain_out)
            plain_out -= count
        else:
            count = min(count, fresh)
            fresh -= count
        media.append((name, count, units))
    return media


def _token_parts(usage: Usage, tariff: Tariff, prices: _TokenPrices) -> list[tuple[str, int, int]]:
    """Return the name, the number and the price (in the tariff's unit) of each kind of token, as `price` counts
    them."""
    prompt, out = usage.prompt_tokens, usage.completion_tokens
    cached = min(usage.cached_tokens, prompt)
    reasoning = min(usage.reasoning_tokens, out)
    media = _media(usage, tariff, prompt - cached, out - reasoning)
    of_output = sum([count for name, count, _ in media if name.endswith(_OF_OUTPUT)])
    fresh = prompt - cached - sum([count for _, count, _ in media]) + of_output
    long = min(usage.cache_write_long_tokens, usage.cache_write_tokens, fresh)
    short = min(usage.cache_write_tokens - long, fresh - long)
    plain_out = out - reasoning - of_output
    parts = {"input": (fresh - long - short, prices.input), "output": (plain_out, prices.output)}
    for name, like, quantity, units in (
        ("cached_input", "input", cached, prices.cached),
        ("cache_write", "input", short, prices.write),
        ("cache_write_long", "input", long, prices.write_long),
        ("reasoning", "output", reasoning, prices.reasoning),
    ):
        if units == parts[like][1]:
            parts[like] = (parts[like][0] + quantity, units)
        else:
            parts[name] = (quantity, units)
    return [*((name, *part) for name, part in parts.items()), *media]


def price_many(uncached_tokens: int, cached_tokens: int, completion_tokens: int, requests: int, tariff: Tariff) -> int:
    """Return the charge in nano-dollars for the summed tokens of many requests, rounded half up once at the end.

    All tokens count at the ordinary prices, because a sum doesn't show which prompts were long or written to a cache,
    or which output was reasoning.
    """
    prices = tariff._base
    tokens = uncached_tokens * prices.input + cached_tokens * prices.cached + completion_tokens * prices.output
    numerator, unit = tariff._charge(tokens, requests, 0)
    return (2 * numerator + unit) // (2 * unit)


def price_sums(
    tariff: Tariff, *, longer_than: int, prompt_tokens: int, completion_tokens: int, requests: int
) -> Fraction:
    """Return the unrounded nano-dollars for the summed tokens of requests, each of whose prompts has more than
    `longer_than` tokens and reaches no dearer step than that length does, without cache discounts."""
    prices = tariff._prices_for(longer_than + 1, STANDARD)
    tokens = prompt_tokens * prices.input + completion_tokens * prices.output
    numerator, unit = tariff._charge(tokens, requests, 0)
    return Fraction(numerator, unit)


def half_up(nano: Fraction) -> int:
    """Return an amount rounded half up to a whole nano-dollar."""
    return (2 * nano.numerator + nano.denominator) // (2 * nano.denominator)


@fast_frozen(frozen=True, slots=True)
class Extras:
    """What an attempt may cost beside the tokens of a usual request.

    `seconds` is the longest that it may take. `service` is the requested one; a provider may still serve the request
    as standard. `default_modes` are those in which it may serve a request that asks for none of them. `calls` are the
    most uses of each of the provider's own tools. `media` says that tokens of sound or pictures may be among the
    others.
    """

    seconds: int | Decimal = 0
    service: str = STANDARD
    default_modes: tuple[str, ...] = ()
    calls: tuple[tuple[str, int], ...] = ()
    media: bool = False


NO_EXTRAS = Extras()


def flat_bound(tariff: Tariff, input_tokens: int, output_tokens: int) -> int | None:
    """Return `upper_bound` without extras if this tariff has neither steps nor a price of time; else None."""
    flat = tariff._flat
    if flat is None:
        return None
    tokens = input_tokens * flat.dearest_input + output_tokens * flat.dearest_output
    return -(-(tokens * _PER_TOKEN + tariff._request * NANO) // tariff._unit)


def upper_bound(tariff: Tariff, input_tokens: int, output_tokens: int, extras: Extras = NO_EXTRAS) -> int:
    """Return the most that one attempt can cost, in nano-dollars, rounded up.

    `input_tokens` are the most that may be billed as input. A byte-level tokenizer never produces more tokens than the
    prompt has UTF-8 bytes. `output_tokens` are the most of all choices together. Each counts at the highest price of
    its kind, cache writes and reasoning included, in the dearest mode and at the dearest step that such a prompt can
    reach.
    """
    seconds, service, modes = extras.seconds, extras.service, extras.default_modes
    if min(input_tokens, output_tokens) < 0 or seconds < 0:
        raise TariffError("upper_bound needs tokens and seconds of 0 or more")
    tokens = 0
    of_input, of_output = _dearest_media(tariff) if extras.media else (0, 0)
    for name in {STANDARD, service, *modes, *(mode_of((service, mode)) for mode in modes)}:
        for above, prices in tariff._steps_of_service.get(name, ()):
            if input_tokens > above:
                dearest_input, dearest_output = (
                    max(prices.dearest_input, of_input),
                    max(prices.dearest_output, of_output),
                )
                tokens = max(tokens, input_tokens * dearest_input + output_tokens * dearest_output)
    numerator, unit = tariff._charge(tokens, 1, seconds, tariff._fees(extras.calls))
    return -(-numerator // unit)


def _dearest_media(tariff: Tariff) -> tuple[int, int]:
    """Return the highest prices of media in the prompt and in the output, in the tariff's unit; 0 where none is
    known."""
    prices = tariff.media_units
    return (
        max([units for name, units in prices.items() if not name.endswith(_OF_OUTPUT)], default=0),
        max([units for name, units in prices.items() if name.endswith(_OF_OUTPUT)], default=0),
    )


def usd(nano: int) -> str:
    """Return nano-dollars as a plain decimal string in USD: no exponent, 6 decimals, and up to 9 if they aren't
    zero."""
    if not nano:
        return "0.000000"  # the cost of every local answer
    whole, fraction = divmod(abs(nano), NANO)
    digits = f"{fraction:0{_NANO_DECIMALS}d}"
    shown = digits[:_SHOWN_DECIMALS] + digits[_SHOWN_DECIMALS:].rstrip("0")
    return f"{'-' if nano < 0 else ''}{whole}.{shown}"


def amount_of(text: str) -> Decimal:
    """Return an amount in USD, given as decimal text of any sign: what every command and every file is read with.

    Raises TariffError if the text isn't a finite number in digits, or is more than any bill.
    """
    try:
        # Python reads 1_0 as 10, and the digits of every script.
        value = Decimal(text) if text.isascii() and "_" not in text else None
    except InvalidOperation:
        value = None
    if value is None or not value.is_finite():
        raise TariffError(f"{text[:40]!r} is not an amount of money; write it like '12.50'")
    if abs(value) > _MOST_USD:
        raise TariffError(f"{text[:40]!r} is out of range for an amount in USD")
    return value


def nano_from_usd(text: str | Decimal) -> int:
    """Return the nano-dollars of an amount in USD, given as decimal text.

    Raises TariffError if the text isn't a number or is finer than a nano-dollar.
    """
    value = amount_of(text) if isinstance(text, str) else text
    if not value.is_finite() or abs(value) > _MOST_USD:
        raise TariffError(f"{text!r} is out of range for an amount in USD")
    if _decimals(value) > _NANO_DECIMALS:
        raise TariffError(f"{text!r} is finer than a nano-dollar; use at most 9 decimals")
    numerator, denominator = value.as_integer_ratio()
    return numerator * NANO // denominator


def _times(rates: Rates, factor: Decimal) -> Rates:
    return Rates(
        input=rates.input * factor,
        output=rates.output * factor,
        cached_input=None if rates.cached_input is None else rates.cached_input * factor,
        cache_write=None if rates.cache_write is None else rates.cache_write * factor,
        cache_write_long=None if rates.cache_write_long is None else rates.cache_write_long * factor,
        reasoning=None if rates.reasoning is None else rates.reasoning * factor,
    )


def _token_prices(rates: Rates, unit: int) -> _TokenPrices:
    units = {name: _units(value, unit) for name, value in rates.all().items()}
    inputs = (units["input"], units["cached_input"], units["cache_write"], units["cache_write_long"])
    return _TokenPrices(
        input=units["input"],
        output=units["output"],
        cached=units["cached_input"],
        write=units["cache_write"],
        write_long=units["cache_write_long"],
        reasoning=units["reasoning"],
        dearest_input=max(inputs),
        dearest_output=max(units["output"], units["reasoning"]),
    )


def _price_steps(base: _TokenPrices, steps: Iterable[TariffStep], unit: int) -> dict[str, _PriceSteps]:
    """Return the steps of each service, those for the longest prompts first.

    A service without a price from 0 tokens on begins with the price of the standard service.
    """
    by_service: dict[str, dict[int, _TokenPrices]] = {STANDARD: {-1: base}}
    for step in steps:
        prices = by_service.setdefault(step.service, {-1: base})
        above = step.above_tokens or -1
        if above in prices and (above > 0 or step.service == STANDARD or prices[-1] is not base):
            where = f"above {step.above_tokens} tokens" if step.above_tokens else "for prompts of any length"
            raise TariffError(f"two prices {where} in service {step.service or 'standard'!r}; keep one")
        prices[above] = _token_prices(step.rates, unit)
    return {service: tuple(sorted(prices.items(), key=lambda p: -p[0])) for service, prices in by_service.items()}


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
    dates = []
    for name, text in (("valid_from", valid_from), ("valid_until", valid_until)):
        if text is None:
            continue
        try:
            dates.append(date.fromisoformat(text))
        except (TypeError, ValueError):
            raise TariffError(f"{name} is {text!r}; write a date like '2026-11-20'") from None
    if dates[-1] < dates[0]:
        raise TariffError(f"valid_until {valid_until} is before valid_from {valid_from}; swap them or leave one out")


def _decimals(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)  # the price is finite, as checked before
    return max(0, -exponent)
