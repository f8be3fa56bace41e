"""A comparison for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from spillway_router.core.money.currency import IN_USD
from spillway_router.core.printable import printable
from spillway_router.replay.rows import PolicyRow

WIDTH = 80


def comparison(rows: Sequence[PolicyRow], notes: Sequence[str]) -> RenderableType:
    """Return what became of the requests under each policy, what it costs, and what a reader must know."""
    return Group(_where(rows), _costs(rows), *(Text(printable(note), "dim") for note in notes))


def print_comparison(rows: Sequence[PolicyRow], notes: Sequence[str], console: Console) -> None:
    """Print a comparison, in 80 columns wherever it goes."""
    console.print(comparison(rows, notes), width=min(WIDTH, console.width) if console.is_terminal else WIDTH)


def percent(share: float | None) -> str:
    """Return a share in percent; a dash where it is not known."""
    return "-" if share is None else f"{100 * share:.1f}"


def seconds(value: float | None) -> str:
    """Return a time; a dash where it is not known."""
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _where(rows: Sequence[PolicyRow]) -> Table:
    table = _table("Where requests went, in %; first tokens of local answers, in s")
    for head in ("local", "over-\nflow", "rou-\nted", "esca-\nlated", "other", "refu-\nsed", "p50", "p95", "late\n%"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            _name(row), *map(percent, row.shares.all()), seconds(row.p50_s), seconds(row.p95_s), percent(row.late)
        )
    return table


def _costs(rows: Sequence[PolicyRow]) -> Table:
    table = _table("What it costs, GPU-hours with and without work, and right answers")
    for head in ("requests", "cloud", "GPU", "busy h", "idle h", "right"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        busy = row.gpu_busy_hours
        table.add_row(
            _name(row),
            f"{row.requests:,}",
            IN_USD.money(row.cloud_nano),
            "-" if busy is None else IN_USD.money(row.fixed_nano),
            "-" if busy is None else f"{busy:,.2f}",
            "-" if busy is None else f"{row.gpu_hours - busy:,.2f}",
            quality(row),
        )
    return table


def quality(row: PolicyRow) -> str:
    """Return how many of the judged answers were right; a dash without any."""
    return "-" if row.quality is None else f"{100 * row.quality:.1f}% of {row.judged:,}"


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0), expand=True)
    table.add_column("policy", overflow="fold", min_width=10, max_width=24)
    return table


def _name(row: PolicyRow) -> Text:
    return Text(printable(row.name))
