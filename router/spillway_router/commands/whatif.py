"""`spillway report what-if`: what a volume of documents costs on rented GPUs and in the cloud."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load
from spillway_router.config.load import ConfigError

if TYPE_CHECKING:
    from spillway_router.config.load import Loaded
    from spillway_router.core.money.tariff import Tariff
    from spillway_router.core.money.whatif import Assumptions, DocumentShape, GpuOffer, PlanningTable

VOLUMES = ("1k/month", "10k/month", "100k/month")
PROMPT_TOKENS, OUTPUT_TOKENS = 1155, 211
"""Mean request of the Azure 2023 conversation trace (loadtests/traces)."""
COMPARED = (("groq", "openai/gpt-oss-20b"), ("openai", "gpt-4o-mini"), ("openai", "gpt-4.1-mini"))
"""Clouds to compare with where the configuration has none; their prices are in the price list."""
_VOLUME = re.compile(r"^([0-9][0-9,_]*(?:\.[0-9]+)?)([kKM]?)(?:/(day|month))?$")
_TIMES = {"": 1, "k": 1000, "K": 1000, "M": 10**6}


def what_if(
    path: ConfigOption = None,
    gpu: Annotated[
        list[str] | None, typer.Option(help="t4, a10g, l4, a100-40, a100-80 (a100), h100; or NAME=PRICE. Repeatable.")
    ] = None,
    price: Annotated[list[str] | None, typer.Option(help="USD per hour of one GPU, one per --gpu.")] = None,
    count: Annotated[
        list[int] | None, typer.Option(min=1, help="Also show exactly so many GPUs, the rest overflowing. Repeatable.")
    ] = None,
    volume: Annotated[
        list[str] | None, typer.Option(help="Documents, such as 10000/day or 1.5M/month. Repeatable.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=0, help="Prompt tokens of a document.")] = PROMPT_TOKENS,
    output_tokens: Annotated[int, typer.Option(min=0, help="Output tokens of a document.")] = OUTPUT_TOKENS,
    tokens_per_s: Annotated[
        float | None, typer.Option(help="Measured tokens per second of one GPU at full load, prompt + output.")
    ] = None,
    at_load: Annotated[float, typer.Option("--load", help="Share of full load to plan for, above 0 up to 1.")] = 0.8,
    against: Annotated[
        list[str] | None, typer.Option(help="PROVIDER/MODEL of the price list to compare with. Repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Cost per document and per month: rented GPUs against clouds, by volume."""
    from spillway_router.core.money.tariff import TariffError
    from spillway_router.core.money.whatif import Assumptions, DocumentShape, plan

    loaded = load(path)
    try:
        shape = DocumentShape(prompt_tokens, output_tokens)
        volumes = tuple(_per_month(text) for text in volume or VOLUMES)
        assumptions = Assumptions(shape, volumes, Fraction(str(at_load)), tuple(sorted(set(count or ()))))
        offers = _told_apart([_offer(n, amount, shape, tokens_per_s) for n, amount in _gpus(loaded, gpu, price)])
        made = plan(assumptions, offers, _alternatives(loaded, against))
    except TariffError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps(_values(made), indent=2))
    else:
        from rich.console import Console

        from spillway_router.commands.whatif_table import render_plan

        render_plan(made, Console())


def _per_month(text: str) -> Fraction:
    from spillway_router.core.money.whatif import DAYS_PER_MONTH

    found = _VOLUME.match(text.strip())
    if found is None:
        fail(f"--volume {text!r} is no volume; write it like 10000/day, 10k/month or 1.5M/month")
    number, times, per = found.groups()
    amount = Fraction(number.replace(",", "").replace("_", "")) * _TIMES[times]
    return amount * DAYS_PER_MONTH if per == "day" else amount


def _gpus(loaded: Loaded, names: list[str] | None, prices: list[str] | None) -> list[tuple[str, Decimal]]:
    """GPUs with the price of one: from --gpu NAME=PRICE, from --gpu and --price in order, or from the configuration."""
    part = loaded.settings.gpu
    asked = names or [part.name or "a100-80"]
    given = list(prices or ())
    wanted = sum("=" not in name for name in asked)
    if not given and part.price_per_hour:
        given = [f"{part.price_per_hour:f}"] * wanted
    if len(given) != wanted:
        fail(
            f"{wanted} GPUs need a price and {len(given)} are given; write --gpu a100 --price 1.39 for each, "
            "or --gpu a100=1.39, or set gpu.price_per_hour"
        )
    left = iter(given)
    return [(name.partition("=")[0], _amount(name.partition("=")[2] or next(left))) for name in asked]


def _amount(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        fail(f"price {text!r} is not an amount; write USD per hour like 1.39")


def _offer(name: str, price: Decimal, shape: DocumentShape, tokens_per_s: float | None) -> GpuOffer:
    from spillway_router.core.money.attribution import work_share_us
    from spillway_router.core.money.gpu_sheets import coefficients_of, sheet_of
    from spillway_router.core.money.whatif import GpuOffer

    tokens = shape.prompt_tokens + shape.output_tokens
    if tokens_per_s is not None:
        if tokens_per_s <= 0:
            fail("--tokens-per-s must be above 0")
        return GpuOffer(name, price, max(1, round(tokens * 1e6 / tokens_per_s)), f"{tokens_per_s:g} tokens/s as given")
    sheet = sheet_of(name)
    us = work_share_us(shape.prompt_tokens, shape.prompt_tokens, shape.output_tokens, coefficients_of(sheet))
    basis = f"{tokens * 1e6 / us:,.0f} tokens/s, simulated, optimistic"
    if sheet.name != "a100-80":
        basis += "; scaled from the A100 by data sheet"
    return GpuOffer(sheet.name, price, us, basis)


def _told_apart(offers: list[GpuOffer]) -> list[GpuOffer]:
    """One GPU at two prices has two names."""
    names = [offer.name for offer in offers]
    return [o if names.count(o.name) == 1 else replace(o, name=f"{o.name}@{o.price_per_hour:f}") for o in offers]


def _alternatives(loaded: Loaded, names: list[str] | None) -> dict[str, Tariff]:
    from spillway_router.config.assemble import assembled
    from spillway_router.prices import book as prices
    from spillway_router.providers.interface import ProviderError

    today = datetime.now(UTC).date()
    if not names:
        try:
            backends = [place.backend for place in assembled(loaded, today).places.values()]
        except ConfigError as error:
            fail(str(error))
        found = {f"{b.name} ({b.model})": b.tariff for b in backends if b.tariff is not None}
        if found:
            return found
    asked = [tuple(name.split("/", 1)) for name in names] if names else list(COMPARED)
    chosen: dict[str, Tariff] = {}
    for words in asked:
        if len(words) != 2:
            fail(f"--against {words[0]!r}: write PROVIDER/MODEL, as `spillway prices list` shows them")
        try:
            known = prices.book(loaded.settings.price_file).record(words[0], words[1])
            tariff = None if known is None else known.tariff(today)
        except ProviderError as error:
            fail(str(error))
        if tariff is None:
            fail(f"no price is known for {'/'.join(words)}; `spillway prices list` shows what is")
        chosen["/".join(words)] = tariff
    return chosen


def _values(made: PlanningTable) -> dict[str, Any]:
    """The plan as JSON values; money as integer nano-dollars and as decimal text."""
    from spillway_router.ledger.reports.json_values import with_usd

    assumed: Assumptions = made.assumptions
    return {
        "prompt_tokens": assumed.shape.prompt_tokens,
        "output_tokens": assumed.shape.output_tokens,
        "load": float(assumed.load),
        "gpus": [
            {
                "name": offer.name,
                "price_per_hour_usd": f"{offer.price_per_hour:f}",
                "seconds_per_document": offer.us_per_document / 1e6,
                "documents_per_month": float(offer.documents_per_month(1, assumed.load)),
                "basis": offer.basis,
            }
            for offer in made.offers
        ],
        "volumes": [
            {
                "per_month": float(volume.per_month),
                "per_day": float(volume.per_day),
                "choices": [with_usd(asdict(choice)) for choice in volume.choices],
            }
            for volume in made.volumes
        ],
        "crossings": [asdict(crossing) for crossing in made.crossings],
    }
