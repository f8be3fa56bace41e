"""The review for a terminal of 80 columns."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from spillway_router.core.money.currency import IN_USD
from spillway_router.core.printable import printable
from spillway_router.replay.review import DearGroup, Review, Trial, because
from spillway_router.replay.rows import PolicyRow
from spillway_router.replay.table import WIDTH, percent, quality, seconds

MOST_ROWS = 8
"""Groups and rules that are shown."""


def print_review(review: Review, notes: list[str], console: Console) -> None:
    """Print a review: the answer first, then what it rests on."""
    width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    parts: list[RenderableType] = [Text(printable(review.first), "bold"), Text()]
    if review.groups:
        parts.append(_groups(review))
    if review.rules:
        parts.append(_rules(review))
    console.print(Group(*parts), width=width)
    for place, trial in enumerate(review.trials):
        if not place:
            console.print(Text("\nWhat would have saved most", "bold"))
        console.print(_effect(trial, review.now), width=width)
        console.print(Text(f"    {printable(trial.command)}"), soft_wrap=True)  # in one line, so that it can be copied
    console.print(Group(*(Text(printable(note), "dim") for note in notes)), width=width)


def as_well(group: DearGroup) -> str:
    """Return how many of the requests a local answer was as good for, as far as it was judged."""
    return f"{group.as_well:,} of {group.judged:,}" if group.judged else "-"


def _groups(review: Review) -> Table:
    table = _table("What went to clouds, the dearest first")
    table.add_column("to", overflow="fold", max_width=16)
    table.add_column("task", overflow="fold", max_width=11)
    table.add_column("because", overflow="fold")
    for head in ("requests", "cost", "local as\ngood"):
        table.add_column(head, justify="right", no_wrap=True)
    for group in review.groups[:MOST_ROWS]:
        names = (group.backend, group.task or "-", because(group))
        cells = (f"{group.requests:,}", IN_USD.money(group.cost_nano), as_well(group))
        table.add_row(*(Text(printable(name)) for name in names), *cells)
    if len(review.groups) > MOST_ROWS:
        table.add_row(f"… {len(review.groups) - MOST_ROWS} more")
    return table


def _rules(review: Review) -> Table:
    table = _table("What the present rules send, replayed")
    table.add_column("rule", overflow="fold")
    for head in ("requests", "cost"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, requests, nano in review.rules[:MOST_ROWS]:
        table.add_row(Text(printable(name)), f"{requests:,}", IN_USD.money(nano))
    return table


def _effect(trial: Trial, now: PolicyRow) -> Text:
    row = trial.row
    effect = (
        f"{IN_USD.money(trial.saved_nano)} less; cloud {IN_USD.money(row.cloud_nano)} instead of "
        f"{IN_USD.money(now.cloud_nano)}, p95 {seconds(row.p95_s)} s instead of {seconds(now.p95_s)} s, late "
        f"{percent(row.late)}% instead of {percent(now.late)}%, right {quality(row)} instead of {quality(now)}"
    )
    return Text(printable(f"{trial.change}: {effect}"))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0), expand=True)
