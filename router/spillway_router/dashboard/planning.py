"""The page What if as values: each choice beside each volume, and from which volume a GPU is cheaper."""

from __future__ import annotations

from dataclasses import dataclass

from spillway_router.core.money.currency import IN_USD
from spillway_router.core.money.whatif import Choice, Crossing, PlanningTable

CROSSINGS_HEAD = ("GPU", "against", "cheaper from, a month", "a day", "at utilisation")


@dataclass(frozen=True, slots=True)
class Planning:
    """Everything on the page, in words and figures for people."""

    sentence: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    crossings_head: tuple[str, ...]
    crossings: tuple[tuple[str, ...], ...]
    basis: tuple[str, ...]


def planning_page(table: PlanningTable) -> Planning:
    """Return the page of a planning table."""
    volumes, shape = table.volumes, table.assumptions.shape
    first = next((one for one in volumes[0].choices if one.cheapest), volumes[0].choices[0])
    name = _name(first)
    return Planning(
        sentence=(
            f"For {float(volumes[0].per_month):,.0f} requests a month {name} is cheapest: "
            f"{IN_USD.money(first.month_nano)} a month."
        ),
        head=("choice", *(f"{float(one.per_month):,.0f} a month" for one in volumes)),
        rows=tuple(
            (_name(choice), *(_cell(volume.choices[place]) for volume in volumes))
            for place, choice in enumerate(volumes[0].choices)
        ),
        crossings_head=CROSSINGS_HEAD,
        crossings=tuple(_crossing(one) for one in table.crossings),
        basis=(
            f"A request has {shape.prompt_tokens:,} prompt tokens and {shape.output_tokens:,} output tokens.",
            *(f"{offer.name}: {offer.us_per_document / 1e6:.3f} s each ({offer.basis})." for offer in table.offers),
        ),
    )


def _name(choice: Choice) -> str:
    return f"the cloud {choice.name}" if choice.kind == "cloud" else f"GPUs {choice.name}, as many as needed"


def _cell(choice: Choice) -> str:
    number = f", {choice.gpus:,} {'GPU' if choice.gpus == 1 else 'GPUs'}" if choice.gpus else ""
    used = "" if choice.utilisation is None else f" {choice.utilisation:.1%} used"
    best = ", cheapest" if choice.cheapest else ""
    return f"{IN_USD.money(choice.month_nano)}{number}{used}{best}"


def _crossing(one: Crossing) -> tuple[str, ...]:
    if one.documents_per_month is None or one.utilisation is None:
        return (one.gpu, one.alternative, "never: it is free", "-", "-")
    if one.utilisation > 1:
        return (one.gpu, one.alternative, "never", "-", f"{one.utilisation:,.0%} of its capacity")
    per_day = one.documents_per_month * 12 / 365
    return (
        one.gpu,
        one.alternative,
        f"{one.documents_per_month:,.0f}",
        f"{per_day:,.0f}",
        f"{one.utilisation:.1%} of its capacity",
    )
