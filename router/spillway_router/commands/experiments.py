"""`spillway report experiments`: what each arm of an experiment did, and whether it differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened
from spillway_router.commands.since import SinceOption, since_ms
from spillway_router.core.comparison.thompson import Worth

if TYPE_CHECKING:
    from rich.table import Table

    from spillway_router.core.money.tariff import Tariff
    from spillway_router.ledger.reports.experiments import ExperimentReport


def experiments(
    path: ConfigOption = None,
    name: Annotated[str, typer.Option("--name", help="Only this experiment.")] = "",
    since: SinceOption = "4w",
    bandit: Annotated[
        Worth | None, typer.Option(help="Also show the shares that Thompson sampling on this, per dollar, would give.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws of --bandit; the same seed draws the same shares.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show cost, time, escalations and ratings of each arm of an experiment, how it differs from the control, and a
    verdict in words. The intervals hold however often you look."""
    from random import Random

    from spillway_router.config.assemble import assembly_of
    from spillway_router.config.load import ConfigError
    from spillway_router.ledger.reports.bandit import bandit_shares
    from spillway_router.ledger.reports.experiments import ExperimentSetup, experiment_reports

    loaded = load(path)
    now = now_ms()
    order = {part.name: [arm.name for arm in part.arms] for part in loaded.settings.experiments}
    tariffs: dict[str, Tariff | None] = {}
    with suppress(ConfigError):  # what is past can be read under any configuration
        backends = assembly_of(loaded, datetime.now(UTC).date()).policy.backends
        tariffs = {name: backend.tariff for name, backend in backends.items()}
    with opened(loaded, "read") as ledger:
        span, table = (since_ms(since, now), now), ledger.experiments
        sums, choices, moves = table.arms(*span), table.dry_choices(*span), table.moves(*span)
    every = experiment_reports(sums, choices, ExperimentSetup(order, tariffs, moves), now)
    reports = [report for report in every if name in ("", report.name)]
    if not reports:
        what = f"no request of the experiment {name!r}" if name else "no request of an experiment"
        fail(f"there is {what} since {since}; try a longer --since, or add `experiments` to the configuration")
    shares = None if bandit is None else bandit_shares(sums, bandit, Random(seed))  # noqa: S311
    if as_json:
        from spillway_router.ledger.reports.json_report import with_usd

        shown = {report.name: shares[report.name] for report in reports} if shares is not None else None
        bandits = {} if shown is None else {"bandit": shown}
        typer.echo(json.dumps({"experiments": with_usd(reports), **bandits}, indent=2))
        return
    _print(reports, bandit, shares or {})


def _print(reports: list[ExperimentReport], bandit: Worth | None, shares: Mapping[str, Mapping[str, float]]) -> None:
    from rich.console import Console

    from spillway_router.ledger.reports.bandit import bandit_sentence

    console = Console()
    for report in reports:
        console.print(_table(report))
        for arm in report.arms:
            if arm.verdict:
                console.print(arm.verdict, markup=False)
        if report.moves is not None:
            console.print(report.moves.sentence, markup=False)
        if bandit is not None:
            console.print(bandit_sentence(shares.get(report.name, {}), bandit), markup=False)
        console.print()


def _table(report: ExperimentReport) -> Table:
    from rich.table import Table
    from rich.text import Text

    from spillway_router.core.printable import printable
    from spillway_router.ledger.reports.experiments import ARMS_HEAD, arm_row

    table = Table(title=f"Experiment {printable(report.name)}", title_justify="left")
    table.add_column(ARMS_HEAD[0], overflow="fold")
    for head in ARMS_HEAD[1:]:
        table.add_column(head.replace("cost per ", "cost per\n"), justify="right", no_wrap=True)
    for arm in report.arms:
        name, *figures = arm_row(arm)
        table.add_row(Text(printable(name)), *figures)
    return table
