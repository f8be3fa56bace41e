"""What the demo prints: live progress while it runs, tables and the verdict at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo.claims import Claim, DemoRun, accuracy_table, percent, percentile
from demo.client import DocumentResult
from demo.load import ProgressWatch

_KINDS = ("local", "overflow", "escalated", "fallback", "failed")


@contextmanager
def sending(console: Console, title: str, total: int) -> Iterator[ProgressWatch]:
    """Show a live line for one phase: documents done, and the decisions so far."""
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=5) as progress:
        task = progress.add_task(title, total=total, counts="")

        def watch(counts: Counter[str]) -> None:
            shown = [f"sent {counts['sent']}", *(f"{kind} {counts[kind]}" for kind in _KINDS if counts[kind])]
            progress.update(task, completed=counts["done"], counts="  ".join(shown))

        yield watch


@contextmanager
def waiting(console: Console, title: str) -> Iterator[None]:
    """Show a live line with a clock while something starts."""
    columns = (SpinnerColumn(), TextColumn("[bold]{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=5) as progress:
        task = progress.add_task(title, total=1)
        yield
        progress.update(task, completed=1)


def phases(console: Console, run: DemoRun) -> None:
    """Print one row per phase: the decisions on its documents and how long they took."""
    table = Table(title="Where the documents went", title_justify="left")
    for heading in ("phase", "documents", "local", "overflow", "escalated", "fallback", "failed", "served p50", "p99"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for phase in ("warming", "calm", "burst"):
        part = run.of(phase)
        counts = Counter(r.decision if r.answered else "failed" for r in part)
        waits = [r.served_s for r in part if not r.job.private]
        shares = (f"{100 * counts[kind] / max(1, len(part)):.1f}%" for kind in _KINDS[:-1])
        times = (f"{percentile(waits, q):.2f} s" for q in (0.5, 0.99))
        table.add_row(phase, str(len(part)), *shares, str(counts["failed"]), *times)
    console.print(table)


def accuracy(console: Console, results: Sequence[DocumentResult]) -> None:
    """Print the share of exactly right answers: of all, by decision, by noise of the document."""
    table = Table(title="Answers exactly right", title_justify="left")
    table.add_column("group")
    table.add_column("share", justify="right")
    for name, right, whole in accuracy_table(results):
        table.add_row(name, percent(right, whole))
    console.print(table)


def faults(console: Console, results: Sequence[DocumentResult]) -> None:
    """Print the faults by kind; nothing if there were none."""
    kinds = Counter(f"{r.job.phase}: {r.fault}" for r in results if not r.answered)
    for fault, count in kinds.most_common(8):
        console.print(f"  [red]{count} x[/] {escape(fault[:200])}")


def verdict(console: Console, claims: Sequence[Claim]) -> None:
    """Print each promise with the observed figures."""
    table = Table(title="What was promised, and what was seen", title_justify="left", show_lines=True)
    for heading in ("", "promise", "seen"):
        table.add_column(heading)
    for claim in claims:
        mark = "[green]yes[/]" if claim.holds else "[yellow]busy[/]" if claim.excused else "[bold red]NO[/]"
        table.add_row(mark, f"[bold]{escape(claim.name)}[/]: {escape(claim.says)}", escape(claim.seen))
    console.print(table)
