"""Print the planning table of `spillway report what-if` on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spillway_router.core.money.currency import Amounts
from spillway_router.core.money.whatif import HOURS_PER_MONTH, Choice, Crossing, PlanningTable


def render_plan(plan: PlanningTable, console: Console) -> None:
    """Print USD per document and per month for each choice and volume, with the cheapest marked, then the break-even
    points."""
    assumed = plan.assumptions
    shape = f"{assumed.shape.prompt_tokens:,} prompt + {assumed.shape.output_tokens:,} output tokens per document"
    console.print(Text(f"What if: {shape}, a month of {HOURS_PER_MONTH} h", style="bold"))
    table = Table(title_justify="left", show_lines=True)
    table.add_column("choice", overflow="fold")
    for volume in plan.volumes:
        table.add_column(f"{float(volume.per_month):,.0f}/month\n({float(volume.per_day):,.0f}/day)", justify="right")
    for number, first in enumerate(plan.volumes[0].choices):
        cells = (_cell(volume.choices[number]) for volume in plan.volumes)
        table.add_row(Text(_name(first, plan)), *cells)
    console.print(table)
    if plan.crossings:
        console.print(_crossings(plan.crossings))
    for offer in plan.offers:
        most = float(offer.documents_per_month(1, assumed.load))
        text = f"{offer.name}: {offer.us_per_document / 1e6:.3f} s per document ({offer.basis}); "
        text += f"planned up to {float(assumed.load):.0%} load, {most:,.0f} documents per month each."
        console.print(Text(text, style="dim"))


def _name(choice: Choice, plan: PlanningTable) -> str:
    if choice.kind == "cloud":
        return f"cloud: {choice.name}"
    offer = next(offer for offer in plan.offers if offer.name == choice.name)
    hours = "" if offer.hours_per_day == 24 else f", {float(offer.hours_per_day):g} h a day"
    price = f"${offer.price_per_hour:f}/h" if offer.price_per_month is None else f"${offer.price_per_month:f}/month"
    if choice.kind == "mix":
        return f"{choice.name} at {price}{hours}, and a mix of clouds"
    if choice.asked is None:
        return f"{choice.name} at {price}{hours}, as many as needed"
    return f"{choice.asked} x {choice.name} at {price}{hours}, the rest overflows"


def _cell(choice: Choice) -> Text:
    lines = [f"{_money(choice.document_nano)}/document", f"{_money(choice.month_nano)}/month"]
    if choice.utilisation is not None:
        gpus = f"{choice.gpus:,} GPU{'s' if choice.gpus > 1 else ''}"
        lines.append(f"{gpus}, {choice.utilisation:.1%} used")
    if choice.overflow:
        where = f"to {choice.cloud}" if choice.cloud else "not processed"
        lines.append(f"{choice.overflow:.0%} {where}")
    if choice.cheapest:
        lines.append("cheapest")
    return Text("\n".join(lines), style="bold green" if choice.cheapest else "")


def _crossings(crossings: tuple[Crossing, ...]) -> Table:
    table = Table(title="One GPU is cheaper from", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("GPU")
    table.add_column("against", overflow="fold")
    for heading in ("documents/month", "documents/day", "at utilisation"):
        table.add_column(heading, justify="right")
    for one in crossings:
        if one.documents_per_month is None or one.utilisation is None:
            words = ("never: it is free", "", "-")
        elif one.utilisation > 1:
            words = ("never", "", f"{one.utilisation:.0%} of capacity")
        else:
            per_day = one.documents_per_month * 12 / 365
            words = (f"{one.documents_per_month:,.0f}", f"{per_day:,.0f}", f"{one.utilisation:.1%} of capacity")
        table.add_row(one.gpu, Text(one.alternative), *words)
    return table


def _money(nano: int) -> str:
    return Amounts().money(nano)
