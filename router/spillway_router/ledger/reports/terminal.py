"""The report for a terminal: the two sides next to each other, then groups, alternatives and the forecast.

In bars, full blocks are used GPU time, light blocks idle GPU time, and dark blocks the cloud.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spillway_router.core.printable import printable
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.reports.rows import (
    ALTERNATIVES_HEAD,
    CLOUD_HEAD,
    CREDITS_HEAD,
    FEEDBACK_HEAD,
    GROUP_HEAD,
    OTHER_HEAD,
    PRESSED_HEAD,
    STEPS_HEAD,
    UNITS_HEAD,
    Row,
    alternative_rows,
    cloud_rows,
    credit_rows,
    feedback_rows,
    group_row,
    other_rows,
    pressed_rows,
    step_rows,
    unit_rows,
)
from spillway_router.ledger.reports.verdict import verdict_of
from spillway_router.ledger.reports.words import forecast_words, notes, rental_name, share, title, unpriced

_ALWAYS_SHOWN = ("overflow", "escalated", "fallback")
_PARTS = (("used", "█", "green"), ("idle", "░", "yellow"), ("cloud", "▓", "cyan"))
_BAR_WIDTH, _LEAST_BAR = 40, 10
_ROW_BAR_WIDTH = 20
_GAP = 2
_DROPPED_IN_ORDER = ("per request", "GPU idle", "GPU used", "answers", "cloud")
"""The columns of the groups that go where the terminal is too narrow, first the one that is missed least."""


def render_report(report: Report, console: Console) -> None:
    """Print the report: whether the GPU paid, both sides of the cost, then what the alternatives would have cost."""
    verdict, warning = verdict_of(report), unpriced(report)
    console.print(_cell(verdict.sentence, "bold"))
    if support := [sentence for sentence in verdict.support if sentence != warning]:
        console.print(_cell(" ".join(support)))
    console.print(_cell(title(report), "bold"))
    if warning:
        console.print(_cell(warning, "bold red"))
    console.print(_whole_bar(report, console.width))
    console.print(Columns([_fixed_panel(report), _cloud_panel(report)], padding=(0, 1)))
    if report.other.rows:
        console.print(_table("", OTHER_HEAD, other_rows(report)))
    if report.steps:
        console.print(_table("", STEPS_HEAD, step_rows(report)))
    console.print(_table("Cost per unit", UNITS_HEAD, unit_rows(report)))
    if report.groups:
        console.print(_groups_table(report, console.width))
    if report.alternatives or report.all_local is not None:
        console.print(_table("Instead of both", ALTERNATIVES_HEAD, alternative_rows(report)))
    if report.pressed:
        console.print(_table("Who asked for better answers", PRESSED_HEAD, pressed_rows(report)))
    if report.credits:
        console.print(_table("Requests and better answers that are counted", CREDITS_HEAD, credit_rows(report)))
    if report.feedback:
        console.print(_table("What people thought of the answers", FEEDBACK_HEAD, feedback_rows(report)))
    if report.forecast is not None:
        console.print(Text(forecast_words(report.forecast, report.amounts)))
    for note in notes(report):
        console.print(_cell(note, "dim"))


def bar(used: int, idle: int, cloud: int, whole: int, width: int) -> Text:
    """Return three amounts as one bar, in which `whole` is the full width and an amount above 0 takes at least one
    cell."""
    text = Text()
    for amount, (_, block, style) in zip((used, idle, cloud), _PARTS, strict=True):
        cells = max(1, round(width * amount / whole)) if amount > 0 and whole > 0 else 0
        text.append(block * cells, style=style)
    return text


def _cell(text: str, style: str = "") -> Text:
    """Return text for the terminal. Clients and providers choose some of the names in it."""
    return Text(printable(text), style)


def _whole_bar(report: Report, width: int) -> Text:
    """Return the bar of the whole report with its legend, which gets its place first."""
    amounts = (report.fixed.used_nano, report.fixed.idle_nano, report.cloud.cost_nano)
    whole_nano = sum(amounts)  # other fixed costs have a table of their own
    legend = Text()  # two cells less, as small amounts are rounded up to one
    for amount, (name, block, style) in zip(amounts, _PARTS, strict=True):
        legend.append(f"  {block} ", style=style)
        legend.append(f"{name} {share(amount, whole_nano)}")
    return bar(*amounts, whole_nano, max(_LEAST_BAR, min(_BAR_WIDTH, width - legend.cell_len - 2))) + legend


def _fixed_panel(report: Report) -> RenderableType:
    fixed, money = report.fixed, report.amounts.money
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    is_unknown = report.unpriced_gpu_hours and not fixed.billed_nano
    price = "unknown" if is_unknown else f"${fixed.price_per_hour_usd}"
    table.add_row("price", f"{price} per GPU-hour x {fixed.gpus}")
    if len(fixed.rentals) > 1:
        for rental in fixed.rentals:
            table.add_row(
                _cell(f"  {rental_name(rental)}"), f"{rental.gpu_hours:,.3f} GPU-hours  {money(rental.billed_nano)}"
            )
    table.add_row("billed", f"{fixed.gpu_hours:,.3f} GPU-hours  {money(fixed.billed_nano)}")
    table.add_row("  used", f"{fixed.utilisation:.1%}  {money(fixed.used_nano)}")
    table.add_row("  idle", f"{1 - fixed.utilisation:.1%}  {money(fixed.idle_nano)}")
    answered = fixed.served.answers
    table.add_row("answered", f"{answered:,} {'request' if answered == 1 else 'requests'}")
    tokens = fixed.served.prompt_tokens, fixed.served.completion_tokens
    table.add_row("tokens", f"{tokens[0]:,} in + {tokens[1]:,} out")
    for row in fixed.rows:
        drafts = f", {row.discarded:,} drafts discarded" if row.discarded else ""
        word = "answer" if row.served.answers == 1 else "answers"
        label = f"{row.served.answers:,} {word}, {row.gpu_seconds:,.1f} GPU-s{drafts}"
        table.add_row(_cell(f"{row.backend} ({row.model})"), f"{label}  {money(row.used_nano)}")
    return Panel(Group(table), title="Fixed: rented GPU", expand=False)


def _cloud_panel(report: Report) -> RenderableType:
    table = _table("", CLOUD_HEAD, ())
    table.pad_edge = False
    *rows, whole = cloud_rows(report, _ALWAYS_SHOWN)
    for row in rows:
        table.add_row(*map(_cell, row))
    table.add_row(*map(_cell, whole), style="bold")
    return Panel(table, title="Per request: cloud", expand=False)


def _table(heading: str, head: Sequence[str], rows: Iterable[Row]) -> Table:
    """Return a table of plain texts, in which all columns but the first are figures."""
    table = Table(title=heading or None, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for number, column in enumerate(head):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _groups_table(report: Report, width: int) -> Table:
    """Return the table of the groups. Where it is too wide, its bars go first and then columns, but never a digit."""
    rows = [[printable(cell) for cell in group_row(row, report.by, report.amounts)] for row in report.groups]
    heads = [*report.by, *GROUP_HEAD]
    shown, has_bar = _fitting(heads, rows, len(report.by), width)
    table = Table(title=f"By {', '.join(report.by)}", title_justify="left", box=None, padding=(0, _GAP, 0, 0))
    for at in shown:
        is_name = at < len(report.by)
        table.add_column(heads[at], overflow="fold", justify="left" if is_name else "right", no_wrap=not is_name)
    if has_bar:
        table.add_column("", no_wrap=True)
    most_nano = max(row.total_nano for row in report.groups)
    for row, cells in zip(report.groups, rows, strict=True):
        amounts = (row.used_nano, row.idle_nano, row.cloud_nano)
        bars = [bar(*amounts, whole=most_nano, width=_ROW_BAR_WIDTH)] if has_bar else []
        table.add_row(*(Text(cells[at]) for at in shown), *bars)
    return table


def _fitting(
    heads: Sequence[str], rows: Sequence[Sequence[str]], names: int, width: int
) -> tuple[tuple[int, ...], bool]:
    """Return which columns fit into a width, and whether the bars do. The names and the total always stay."""
    widths = [max([len(head), *(len(row[at]) for row in rows)]) + _GAP for at, head in enumerate(heads)]
    shown = list(range(len(heads)))
    if sum(widths) + _ROW_BAR_WIDTH <= width:
        return tuple(shown), True
    for head in _DROPPED_IN_ORDER:
        if sum(widths[at] for at in shown) - _GAP <= width:
            break
        shown.remove(names + GROUP_HEAD.index(head))
    return tuple(shown), False


def groups_tsv(report: Report) -> str:
    """Return the groups as lines of cells with tabs between them, for other programs: every column, in whole."""
    lines = [[*report.by, *GROUP_HEAD], *(group_row(row, report.by, report.amounts) for row in report.groups)]
    return "".join("\t".join(map(printable, line)) + "\n" for line in lines)
