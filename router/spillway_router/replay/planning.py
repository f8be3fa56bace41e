"""What `spillway report what-if` and the page What if ask, as texts, and the planning table that answers it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from spillway_hardware.gpus import BASE, UnknownGpuError, gpu
from spillway_router.config.assemble import assembly_of
from spillway_router.config.gpus import data_sheet_coefficients
from spillway_router.config.load import ConfigError, Loaded
from spillway_router.core.money.attribution import work_share_us
from spillway_router.core.money.tariff import Tariff, TariffError, amount_of
from spillway_router.core.money.whatif import (
    DAYS_PER_MONTH,
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    VOLUMES,
    Assumptions,
    DocumentShape,
    GpuOffer,
    PlanningTable,
    plan,
)
from spillway_router.ledger.reports.json_report import with_usd
from spillway_router.prices import book as prices
from spillway_router.prices.rows import PriceError

COMPARED = (("groq", "openai/gpt-oss-20b"), ("openai", "gpt-4o-mini"), ("openai", "gpt-4.1-mini"))
"""The clouds to compare with where the configuration has none; their prices are in the price list."""
_VOLUME = re.compile(r"^([0-9][0-9,_]*(?:\.[0-9]+)?)([kKM]?)(?:/(day|month))?$")
_TIMES = {"": 1, "k": 1000, "K": 1000, "M": 10**6}


class PlanError(ValueError):
    """A plan can't be made; the message says what to change."""


@dataclass(frozen=True, slots=True)
class PlanQuery:
    """What is planned for, as people write it: the options of `spillway report what-if`."""

    gpus: Sequence[str] = ()
    prices: Sequence[str] = ()
    hours_per_day: float = 24
    counts: Sequence[int] = ()
    volumes: Sequence[str] = VOLUMES
    prompt_tokens: int = PROMPT_TOKENS
    output_tokens: int = OUTPUT_TOKENS
    tokens_per_s: float | None = None
    load: float = 0.8
    against: Sequence[str] = ()
    mix: Sequence[str] = ()


def planned(query: PlanQuery, loaded: Loaded, today: date) -> PlanningTable:
    """Return the planning table at the prices of a UTC day. Raises PlanError."""
    try:
        shape = DocumentShape(query.prompt_tokens, query.output_tokens)
        alternatives = _alternatives(loaded, query.against, today)
        assumptions = Assumptions(
            shape=shape,
            volumes_per_month=tuple(_per_month(text) for text in query.volumes),
            load=Fraction(str(query.load)),
            gpus=tuple(sorted(set(query.counts))),
            mix=tuple(_share(text, alternatives) for text in query.mix),
        )
        offers = _distinct(
            [
                _offer(name, amount, shape, query.tokens_per_s)
                for name, amount in _gpus(loaded, query.gpus, query.prices)
            ]
        )
        if query.hours_per_day != 24:
            offers = [replace(offer, hours_per_day=Fraction(str(query.hours_per_day))) for offer in offers]
        return plan(assumptions, offers, alternatives)
    except (TariffError, UnknownGpuError) as error:
        raise PlanError(str(error)) from None


def _per_month(text: str) -> Fraction:
    match = _VOLUME.match(text.strip()) if text.isascii() and "_" not in text else None
    if match is None:
        raise PlanError(f"--volume {text!r} is not a volume; write it as 10000/day, 10k/month or 1.5M/month")
    number, times, per = match.groups()
    amount = Fraction(number.replace(",", "").replace("_", "")) * _TIMES[times]
    return amount * DAYS_PER_MONTH if per == "day" else amount


def _share(text: str, alternatives: Mapping[str, Tariff]) -> tuple[str, Fraction]:
    """Read `20%=NAME`, a share that leaves for a cloud."""
    share, _, name = text.partition("=")
    try:
        part = Fraction(share.strip().removesuffix("%")) / (100 if share.strip().endswith("%") else 1)
    except (ValueError, ZeroDivisionError):
        part = Fraction(0)
    if name not in alternatives or not part:
        raise PlanError(
            f"--mix {text!r}: write SHARE=NAME, such as 20%={next(iter(alternatives))}; names are those of --against"
        )
    return name, part


@dataclass(frozen=True, slots=True)
class _Price:
    """USD per hour of one GPU, and per month where it is priced so."""

    per_hour: Decimal
    per_month: Decimal | None = None


def _gpus(loaded: Loaded, names: Sequence[str], prices: Sequence[str]) -> list[tuple[str, _Price]]:
    """Pair GPUs with prices: from --gpu NAME=PRICE, from --gpu and --price in order, or from the configuration."""
    part = loaded.settings.gpu
    gpus = list(names) or [part.name or BASE]
    amounts = [_amount(text, part.hours_per_month) for text in prices]
    unpriced = sum("=" not in name for name in gpus)
    if not amounts and part.price_known:
        amounts = [_Price(part.hourly, part.price_per_month)] * unpriced
    if len(amounts) != unpriced:
        raise PlanError(
            f"{unpriced} GPUs need a price and {len(amounts)} are given; write --gpu {BASE} --price 1.39 for each, "
            f"or --gpu {BASE}=1.39, or --gpu {BASE}=250/month, or set gpu.price_per_hour"
        )
    remaining = iter(amounts)
    return [
        (name, _amount(typed, part.hours_per_month) if equals else next(remaining))
        for name, equals, typed in (given.partition("=") for given in gpus)
    ]


def _amount(text: str, hours_per_month: Decimal) -> _Price:
    number, _, per = text.partition("/")
    try:
        amount = amount_of(number)
    except TariffError as error:
        raise PlanError(f"price {error}") from None
    if amount < 0 or per not in ("", "hour", "month"):
        raise PlanError(f"price {text!r} is not an amount; write USD per hour, such as 1.39, or 250/month")
    return _Price(amount / hours_per_month, amount) if per == "month" else _Price(amount)


def _offer(name: str, price: _Price, shape: DocumentShape, tokens_per_s: float | None) -> GpuOffer:
    tokens = shape.prompt_tokens + shape.output_tokens
    if tokens_per_s is not None:
        if tokens_per_s <= 0:
            raise PlanError("--tokens-per-s must be above 0")
        return GpuOffer(
            name=name,
            price_per_hour=price.per_hour,
            us_per_document=max(1, round(tokens * 1e6 / tokens_per_s)),
            basis=f"{tokens_per_s:g} tokens/s as given",
            price_per_month=price.per_month,
        )
    model = gpu(name)
    coefficients = data_sheet_coefficients(model.name)
    us = work_share_us(shape.prompt_tokens, shape.prompt_tokens, shape.output_tokens, coefficients)
    basis = f"{tokens * 1e6 / us:,.0f} tokens/s, simulated, optimistic"
    if model.name != BASE:
        basis += "; scaled from the A100 by data sheet"
    return GpuOffer(
        name=model.name,
        price_per_hour=price.per_hour,
        us_per_document=us,
        basis=basis,
        price_per_month=price.per_month,
    )


def _distinct(offers: list[GpuOffer]) -> list[GpuOffer]:
    """Add the price to the name of a GPU that is offered at two prices."""
    names = [offer.name for offer in offers]
    return [o if names.count(o.name) == 1 else replace(o, name=f"{o.name}@{_price_of(o)}") for o in offers]


def _price_of(offer: GpuOffer) -> str:
    return f"{offer.price_per_hour:f}" if offer.price_per_month is None else f"{offer.price_per_month:f}/month"


def _alternatives(loaded: Loaded, names: Sequence[str], today: date) -> dict[str, Tariff]:
    if not names:
        try:
            backends = assembly_of(loaded, today).backends
        except ConfigError as error:
            raise PlanError(str(error)) from None
        configured = {f"{b.name} ({b.model})": b.tariff for b in backends if b.tariff is not None}
        if configured:
            return configured
    chosen: dict[str, Tariff] = {name: tariff for name, tariff in map(_typed, names) if tariff is not None}
    listed = [name for name in names if "=" not in name]
    models = [tuple(name.split("/", 1)) for name in listed] if names else list(COMPARED)
    for words in models:
        if len(words) != 2:
            raise PlanError(f"--against {words[0]!r}: write PROVIDER/MODEL, as `spillway prices list` shows them")
        try:
            record = prices.book(loaded.settings.price_file).record(words[0], words[1])
            tariff = None if record is None else record.tariff(today)
        except PriceError as error:
            raise PlanError(str(error)) from None
        if tariff is None:
            raise PlanError(f"no price is known for {'/'.join(words)}; `spillway prices list` shows the known ones")
        chosen["/".join(words)] = tariff
    return chosen


def _typed(text: str) -> tuple[str, Tariff | None]:
    """Read `NAME=IN/OUT`, a model with its price in USD per million tokens; None for a name of the price list."""
    name, equals, prices = text.partition("=")
    if not equals:
        return name, None
    try:
        prompt, output = map(Decimal, prices.split("/"))
    except (InvalidOperation, ValueError):
        raise PlanError(
            f"--against {text!r}: write NAME=IN/OUT in USD per million tokens, such as gpt-4o=2.50/10"
        ) from None
    return name, Tariff(prompt, output)


def plan_values(table: PlanningTable) -> dict[str, Any]:
    """Return the table as JSON values; money is integer nano-dollars and decimal text."""
    assumed: Assumptions = table.assumptions
    return {
        "prompt_tokens": assumed.shape.prompt_tokens,
        "output_tokens": assumed.shape.output_tokens,
        "load": float(assumed.load),
        "gpus": [
            {
                "name": offer.name,
                "price_per_hour_usd": f"{offer.price_per_hour:f}",
                "price_per_month_usd": None if offer.price_per_month is None else f"{offer.price_per_month:f}",
                "hours_per_day": float(offer.hours_per_day),
                "seconds_per_document": offer.us_per_document / 1e6,
                "documents_per_month": float(offer.documents_per_month(1, assumed.load)),
                "basis": offer.basis,
            }
            for offer in table.offers
        ],
        "volumes": [
            {
                "per_month": float(volume.per_month),
                "per_day": float(volume.per_day),
                "choices": [with_usd(choice) for choice in volume.choices],
            }
            for volume in table.volumes
        ],
        "crossings": [asdict(crossing) for crossing in table.crossings],
    }
