"""`spillway replay`: what another policy would have done with the requests of the past. Nothing is sent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened
from spillway_router.commands.since import SinceOption, since_ms
from spillway_router.config.load import ConfigError

if TYPE_CHECKING:
    from spillway_router.config.load import Loaded
    from spillway_router.core.replay.replay import CloudModel
    from spillway_router.replay.policies import NamedPolicy
    from spillway_router.replay.rows import PolicyRow

NOW = "now"
"""The name of the present policy."""
PolicyOption = Annotated[
    Path | None,
    typer.Option("--policy", help="The policy to try: a spillway.yaml, or the sections of it that differ."),
]
CompareOption = Annotated[list[Path] | None, typer.Option("--compare", help="A further policy to try; repeatable.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Try the policy with a setting changed, such as slo.ttft_ms=3000; null takes it out."),
]
SweepOption = Annotated[
    str | None, typer.Option("--sweep", help="Try a range of values, such as slo.ttft_ms=500:3000:500.")
]
TraceOption = Annotated[
    Path | None,
    typer.Option("--trace", help="A CSV trace to replay instead of the ledger (TIMESTAMP,ContextTokens,…)."),
]
SpeedOption = Annotated[float, typer.Option("--speed", min=0.001, help="How many times as fast a trace comes.")]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which policies to compare."""

    policy: Path | None
    compare: Sequence[Path]
    changes: Sequence[str]
    sweep: str | None


def replay(
    path: ConfigOption = None,
    policy: PolicyOption = None,
    compare: CompareOption = None,
    change: SetOption = None,
    sweep: SweepOption = None,
    since: SinceOption = "7d",
    trace: TraceOption = None,
    speed: SpeedOption = 1.0,
    cloud_ttft_ms: Annotated[float, typer.Option(min=0, help="Time to the first token of every cloud.")] = 500.0,
    cloud_tokens_per_s: Annotated[
        float, typer.Option(min=0.1, help="Output tokens per second of every cloud.")
    ] = 100.0,
    cloud_fails: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the requests that fail at a cloud, each cloud by itself.")
    ] = 0.0,
    as_json: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option(help="Write one self-contained HTML file with a plot; - prints it.")
    ] = None,
) -> None:
    """Replay the requests of the ledger, or of a trace, under other policies: dollars, shares, waits, quality. Nothing
    is sent."""
    from spillway_router.core.replay.replay import CloudModel

    if as_json and html is not None:
        fail("--json and --html exclude each other")
    if trace is None and speed != 1.0:
        fail("--speed goes with --trace: a ledger is replayed as it was")
    loaded = load(path)
    cloud = CloudModel(cloud_ttft_ms / 1000, cloud_tokens_per_s, cloud_fails)
    policies = _policies(loaded, Wanted(policy, compare or (), change or (), sweep), cloud)
    began_s = time.monotonic()
    if trace is not None:
        rows, notes = _of_trace(trace, speed, policies, cloud)
    else:
        rows, notes = _of_ledger(loaded, since_ms(since, now_ms()), policies, cloud)
    if not rows[0].requests:
        fail(f"there is no request to replay {'in the trace' if trace else f'since {since}; try a longer --since'}")
    took_s = max(1e-6, time.monotonic() - began_s)
    done = rows[0].requests * len(policies)
    notes.append(f"{done:,} decisions in {took_s:.1f} s, {done / took_s:,.0f} per second.")
    _show(rows, notes, as_json=as_json, html=html)


def _policies(loaded: Loaded, wanted: Wanted, cloud: CloudModel) -> list[NamedPolicy]:
    """Return the present policy and the others. Problems end the command, as they end `spillway check`."""
    from spillway_router.replay import policies as those

    today = datetime.now(UTC).date()
    named: list[NamedPolicy] = []

    def add(name: str, of: Callable[[], Loaded]) -> Loaded:
        try:
            one = of()
            named.append(those.policy_of(name, one, today, cloud))
        except ConfigError as error:
            fail(f"The policy {name} has errors:\n" + "\n".join(f"  - {problem}" for problem in error.problems))
        except those.ChangeError as error:
            fail(str(error))
        return one

    base = add(NOW, lambda: loaded)
    for place, file in enumerate([*([wanted.policy] if wanted.policy else []), *wanted.compare]):
        one = add(file.name, lambda file=file: those.file_policy(loaded, file))  # type: ignore[misc]
        if place == 0 and wanted.policy is not None:
            base = one
    try:
        changes = [those.change_of(text) for text in wanted.changes]
        swept = those.sweep_of(wanted.sweep) if wanted.sweep else ()
    except those.ChangeError as error:
        fail(str(error))
    if changes:
        base = add(", ".join(map(str, changes)), lambda: those.changed(base, changes))
    for value in swept:
        add(str(value), lambda value=value: those.changed(base, [value]))  # type: ignore[misc]
    return named


def _of_trace(
    trace: Path, speed: float, policies: list[NamedPolicy], cloud: CloudModel
) -> tuple[list[PolicyRow], list[str]]:
    from spillway_router.replay.compare import compared
    from spillway_router.replay.notes import trace_notes
    from spillway_router.replay.trace import TraceError, read_trace

    try:
        with progress() as tell:
            rows = compared(read_trace(trace, speed), policies, tell)
    except TraceError as error:
        fail(str(error))
    return rows, trace_notes(policies, cloud)


def _of_ledger(
    loaded: Loaded, start_ms: int, policies: list[NamedPolicy], cloud: CloudModel
) -> tuple[list[PolicyRow], list[str]]:
    from spillway_router.replay.compare import Recorded, compared, ledger_requests
    from spillway_router.replay.notes import ledger_notes

    recorded = Recorded()
    with opened(loaded, "read") as ledger, progress() as tell:
        any_model = frozenset(policies[0].terms.policy.any_model)
        requests = ledger_requests(ledger, start_ms, now_ms(), any_model)
        rows = compared(recorded.passing(requests), policies, tell)
    return [recorded.row(), *rows], ledger_notes(requests, policies, cloud)


@contextmanager
def progress() -> Iterator[Callable[[int], object]]:
    """Show on stderr how many requests were replayed, where a person looks at it."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("replaying") as status:
        yield lambda number: status.update(f"replayed {number:,} requests")


def _show(rows: Sequence[PolicyRow], notes: Sequence[str], *, as_json: bool, html: Path | None) -> None:
    if as_json:
        from spillway_router.ledger.reports.json_report import with_usd

        typer.echo(json.dumps({"policies": with_usd(list(rows)), "notes": list(notes)}, indent=2))
        return
    if html is not None:
        from spillway_router.replay.page import replay_page

        text = replay_page(rows, notes)
        if str(html) == "-":
            typer.echo(text, nl=False)
            return
        try:
            html.write_text(text, encoding="utf-8")
        except OSError as error:
            fail(f"{html} can't be written: {error.strerror or error}")
        typer.echo(f"wrote {html}")
        return
    from rich.console import Console

    from spillway_router.replay.table import print_comparison

    print_comparison(rows, notes, Console())
