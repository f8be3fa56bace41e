"""The report for people at a terminal: the two sides beside each other, then groups, alternatives and the forecast.

Tables round money to a millionth of a dollar. Bars: full blocks are GPU time that was used, light ones idle GPU time,
dark ones the cloud.
"""

from __future__ import annotations

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spillway_router.ledger.report_model import CloudSide, FixedSide, Report, UnitCosts
from spillway_router.ledger.report_words import (
    break_even_words,
    forecast_words,
    group_name,
    maybe_money,
    money,
    notes,
    rental_name,
    share,
    title,
)

_ALWAYS_SHOWN = ("overflow", "escalated", "fallback")
_PARTS = (("used", "█", "green"), ("idle", "░", "yellow"), ("cloud", "▓", "cyan"))
_BAR_WIDTH = 40
_ROW_BAR_WIDTH = 20


def render_report(report: Report, console: Console) -> None:
    """Print the report: fixed and per-request cost side by side, then what the alternatives would have cost."""
    console.print(Text(title(report), style="bold"))
    console.print(_whole_bar(report))
    console.print(Columns([_fixed_panel(report.fixed), _cloud_panel(report.cloud)], padding=(0, 1)))
    console.print(_units_table(report))
    if report.groups:
        console.print(_groups_table(report))
    if report.alternatives or report.all_local is not None:
        console.print(_alternatives_table(report))
    if report.feedback:
        console.print(_feedback_table(report))
    if report.forecast is not None:
        console.print(Text(forecast_words(report.forecast)))
    for note in notes(report):
        console.print(Text(note, style="dim"))


def _feedback_table(report: Report) -> Table:
    table = Table(title="What people thought of the answers", title_justify="left")
    for name, justify in (("model", "left"), ("ratings", "right"), ("mean of 5", "right"), ("satisfied", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]  # the words that rich takes
    table.add_column("better asked", justify="right")
    for row in report.feedback:
        mean = "-" if row.mean_rating is None else f"{row.mean_rating:.1f}"
        satisfied = "-" if row.satisfied_share is None else f"{row.satisfied_share:.0%}"
        better = str(row.better_asked) + ("" if row.better_share is None else f" ({row.better_share:.1%})")
        table.add_row(f"{row.backend}/{row.model}", str(row.ratings), mean, satisfied, better)
    return table


def bar(used: int, idle: int, cloud: int, whole: int, width: int) -> Text:
    """Three amounts as one bar, `whole` being the full width; an amount above 0 takes at least one cell."""
    shown = Text()
    for amount, (_, block, style) in zip((used, idle, cloud), _PARTS, strict=True):
        cells = max(1, round(width * amount / whole)) if amount > 0 and whole > 0 else 0
        shown.append(block * cells, style=style)
    return shown


def _whole_bar(report: Report) -> Text:
    amounts = (report.fixed.used_nano, report.fixed.idle_nano, report.cloud.cost_nano)
    shown = bar(*amounts, report.total_nano, _BAR_WIDTH)
    for amount, (name, block, style) in zip(amounts, _PARTS, strict=True):
        shown.append(f"  {block} ", style=style)
        shown.append(f"{name} {share(amount, report.total_nano)}")
    return shown


def _fixed_panel(fixed: FixedSide) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_row("price", f"${fixed.price_per_hour_usd} per GPU-hour x {fixed.gpus}")
    if len(fixed.rentals) > 1:
        for rental in fixed.rentals:
            table.add_row(f"  {rental_name(rental)}", f"{rental.gpu_hours:.3f} GPU-hours  {money(rental.billed_nano)}")
    table.add_row("billed", f"{fixed.gpu_hours:.3f} GPU-hours  {money(fixed.billed_nano)}")
    table.add_row("  used", f"{fixed.utilisation:.1%}  {money(fixed.used_nano)}")
    table.add_row("  idle", f"{1 - fixed.utilisation:.1%}  {money(fixed.idle_nano)}")
    table.add_row("answered", f"{fixed.served.answers:,} requests")
    tokens = fixed.served.prompt_tokens, fixed.served.completion_tokens
    table.add_row("tokens", f"{tokens[0]:,} in + {tokens[1]:,} out")
    for row in fixed.rows:
        drafts = f", {row.discarded:,} drafts discarded" if row.discarded else ""
        label = f"{row.served.answers:,} answers, {row.gpu_seconds:,.1f} GPU-s{drafts}"
        table.add_row(Text(f"{row.backend} ({row.model})"), f"{label}  {money(row.used_nano)}")
    return Panel(Group(table), title="Fixed: rented GPU", expand=False)


def _cloud_panel(cloud: CloudSide) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("why")
    for heading in ("answers", "tokens in + out", "cost", "per answer"):
        table.add_column(heading, justify="right")
    for row in cloud.rows:
        if row.served.attempts or row.decision in _ALWAYS_SHOWN:
            table.add_row(
                row.decision,
                f"{row.served.answers:,}",
                f"{row.served.prompt_tokens:,} + {row.served.completion_tokens:,}",
                money(row.cost_nano),
                maybe_money(row.per_answer_nano),
            )
    if cloud.unsettled:
        table.add_row("unsettled", f"{cloud.unsettled:,} attempts", "", money(cloud.unsettled_nano), "")
    table.add_row(
        "all",
        f"{cloud.served.answers:,}",
        f"{cloud.served.prompt_tokens:,} + {cloud.served.completion_tokens:,}",
        money(cloud.cost_nano),
        maybe_money(cloud.units.per_request_nano),
        style="bold",
    )
    return Panel(table, title="Per request: cloud", expand=False)


def _plain(heading: str, *columns: str) -> Table:
    table = Table(title=heading, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _units_table(report: Report) -> Table:
    table = _plain("Cost per unit", "", "total", "per answered request", "per 1,000 tokens", "per document")
    sides: list[tuple[str, int, UnitCosts]] = [
        ("fixed (GPU)", report.fixed.billed_nano, report.fixed.units),
        ("per request (cloud)", report.cloud.cost_nano, report.cloud.units),
        ("together", report.total_nano, report.units),
    ]
    for label, total, units in sides:
        values = (units.per_request_nano, units.per_1k_tokens_nano, units.per_document_nano)
        table.add_row(label, money(total), *(maybe_money(value) for value in values))
    return table


def _groups_table(report: Report) -> Table:
    table = Table(title=f"By {', '.join(report.by)}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for key in report.by:
        table.add_column(key, overflow="fold")
    for heading in ("answers", "GPU used", "GPU idle", "cloud", "total", "per request"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    most = max(row.total_nano for row in report.groups)
    for row in report.groups:
        table.add_row(
            *(Text(group_name(row, key)) for key in report.by),
            f"{row.served.answers:,}",
            money(row.used_nano),
            money(row.idle_nano),
            money(row.cloud_nano),
            money(row.total_nano),
            maybe_money(row.units.per_request_nano),
            bar(row.used_nano, row.idle_nano, row.cloud_nano, most, _ROW_BAR_WIDTH),
        )
    return table


def _alternatives_table(report: Report) -> Table:
    columns = ("everything to", "would have cost", "saved", "GPU pays from", "at utilisation")
    table = _plain("Instead of both", *columns)
    if report.all_local is not None:
        local = report.all_local
        label = f"the GPU ({local.gpus_needed:,} needed on average)"
        table.add_row(label, money(local.cost_nano), money(local.savings_nano), "", "")
    for alternative in report.alternatives:
        table.add_row(
            Text(alternative.name),
            money(alternative.all_cloud_nano),
            money(alternative.savings_nano),
            *break_even_words(alternative, report.served.answers),
        )
    return table
