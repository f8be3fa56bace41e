"""`spillway fleet`: how many GPUs to rent, why, and what other numbers would have cost."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened, say
from spillway_router.commands.fleet_targets import FleetTargetError, order_for, set_number
from spillway_router.commands.since import SinceOption, since_ms
from spillway_router.config.load import process_environment

if TYPE_CHECKING:
    from spillway_router.config.fleet_part import FleetPart
    from spillway_router.config.load import Loaded
    from spillway_router.core.fleet.scaler import ScalingDecision
    from spillway_router.replay.fleet import FleetPlan
    from spillway_router.replay.fleet_now import FleetSetup

DAY_S = 86_400
fleet_app = typer.Typer(help="Decide how many GPUs to rent: explain, plan, apply.", no_args_is_help=True)
RentedOption = Annotated[int | None, typer.Option(min=0, help="How many GPUs are rented now; default: gpu.count.")]


@fleet_app.command()
def explain(
    path: ConfigOption = None, since: SinceOption = "7d", rented: RentedOption = None, as_json: JsonOption = False
) -> None:
    """Say how many GPUs there should be now, with the reason for each."""
    loaded = load(path)
    decision, _ = _decided(loaded, since, rented)
    _show_decision(decision, as_json=as_json)


@fleet_app.command()
def plan(path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what yesterday (UTC) would have cost with each number of GPUs, by the scaler, and at best in hindsight."""
    loaded = load(path)
    today_s = now_ms() // 1000 // DAY_S * DAY_S
    from spillway_router.replay.fleet import plan_of
    from spillway_router.replay.fleet_now import history_of

    setup = _setup(loaded)
    terms, overflow = setup.terms, setup.overflow
    with opened(loaded, "read") as ledger:
        history = history_of(loaded, ledger, (today_s - DAY_S, today_s), setup)

    costs = plan_of(history.between(today_s - DAY_S, today_s), terms)
    day = datetime.fromtimestamp(today_s - DAY_S, UTC).date()
    if as_json:
        typer.echo(json.dumps(_plan_json(costs, str(day), history.requests, overflow.backend), indent=2))
        return
    say(f"{day} (UTC), {history.requests:,} requests, overflow at the price of {overflow.backend}, in USD")
    say(f"{'GPUs':>14}{'rent':>12}{'overflow':>12}{'in all':>12}")
    for gpus, cost in enumerate(costs.fixed):
        say(_line(str(gpus), cost.rent_nano, cost.overflow_nano))
    say(_line("scaler", costs.scaled.rent_nano, costs.scaled.overflow_nano))
    say(f"{'best possible':>14}{costs.best_nano / 1e9:>36.2f}")


@fleet_app.command()
def apply(
    path: ConfigOption = None,
    since: SinceOption = "7d",
    rented: RentedOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be run, and run nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Set the number of GPUs by fleet.target, if it differs from what is rented."""
    loaded = load(path)
    decision, present = _decided(loaded, since, rented)
    try:
        order = order_for(_fleet(loaded), decision.target)
    except FleetTargetError as error:
        fail(str(error))
    _show_decision(decision, as_json=as_json)
    if decision.target == present:
        typer.echo(f"nothing to do: {present} GPUs are rented", err=True)
        return
    if dry_run:
        typer.echo(f"would run: {order.shown()}", err=True)
        return
    try:
        set_number(order, process_environment())
    except FleetTargetError as error:
        fail(str(error))


def _fleet(loaded: Loaded) -> FleetPart:
    from spillway_router.replay.fleet_now import FleetError, fleet_of

    try:
        return fleet_of(loaded)
    except FleetError as error:
        fail(str(error))


def _setup(loaded: Loaded) -> FleetSetup:
    """Return the terms of the scaler, and where overflow goes. What is missing for them ends the command."""
    from spillway_router.config.load import ConfigError
    from spillway_router.replay.fleet_now import FleetError, fleet_setup

    try:
        return fleet_setup(loaded, datetime.now(UTC).date())
    except FleetError as error:
        fail(str(error))
    except ConfigError as error:
        fail("The configuration has errors:\n" + "\n".join(f"  - {problem}" for problem in error.problems))


def _decided(loaded: Loaded, since: str, rented: int | None) -> tuple[ScalingDecision, int]:
    """Return the decision from the ledger since some time, and how many GPUs are rented."""
    from spillway_router.replay.fleet_now import fleet_now

    now, setup = now_ms(), _setup(loaded)
    span_s = (since_ms(since, now) // 1000, now // 1000)
    with opened(loaded, "read") as ledger:
        present = fleet_now(loaded, ledger, span_s, setup, rented)
    return present.decision, present.rented


def _show_decision(decision: ScalingDecision, *, as_json: bool) -> None:
    if as_json:
        from spillway_router.replay.fleet_now import decision_values

        typer.echo(json.dumps(decision_values(decision), indent=2))
        return
    say(f"GPUs: {decision.target}")
    for one in decision.reasons:
        say(f"  {one.sentence()}")


def _line(name: str, rent_nano: float, overflow_nano: float) -> str:
    whole = rent_nano + overflow_nano
    return f"{name:>14}{rent_nano / 1e9:>12.2f}{overflow_nano / 1e9:>12.2f}{whole / 1e9:>12.2f}"


def _plan_json(costs: FleetPlan, day: str, requests: int, backend: str) -> dict[str, object]:
    def usd(rent_nano: float, overflow_nano: float) -> dict[str, float]:
        return {"rent_usd": round(rent_nano / 1e9, 6), "overflow_usd": round(overflow_nano / 1e9, 6)}

    return {
        "day": day,
        "requests": requests,
        "overflow_backend": backend,
        "fixed": [{"gpus": gpus, **usd(one.rent_nano, one.overflow_nano)} for gpus, one in enumerate(costs.fixed)],
        "scaler": {**usd(costs.scaled.rent_nano, costs.scaled.overflow_nano), "starts": costs.scaled.starts},
        "best_usd": round(costs.best_nano / 1e9, 6),
    }
