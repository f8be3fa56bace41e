"""The Experiments page as values: what each arm did, by how much it differs from the first one, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spillway_router.core.comparison.differences import Interval
from spillway_router.dashboard.windows import LookBack
from spillway_router.ledger.reports.experiments import ARMS_HEAD, ArmReport, Comparison, ExperimentReport, arm_row

LOOK_BACK = LookBack(("7d", "4w", "12w"), usual="4w")
HEAD = (*ARMS_HEAD, "cost against the first", "time against the first", "share now")


@dataclass(frozen=True, slots=True)
class ExperimentShown:
    """One experiment: a row per arm, and a sentence per arm that is compared."""

    name: str
    rows: tuple[tuple[str, ...], ...]
    verdicts: tuple[str, ...]
    moves: str = ""
    """What a bandit did with the shares, in words."""


@dataclass(frozen=True, slots=True)
class Experiments:
    """Everything on the Experiments page."""

    sentence: str
    tone: str
    experiments: tuple[ExperimentShown, ...]


def experiments_page(
    reports: Sequence[ExperimentReport], days: int, in_force: Mapping[str, Mapping[str, float]]
) -> Experiments:
    """Return the page of the experiments of so many days. `in_force` are the shares of the arms now, by experiment."""
    shown = tuple(_shown(report, in_force.get(report.name, {})) for report in reports)
    if not reports:
        return Experiments(f"No request was in an experiment in the last {days} days.", "plain", ())
    decided = [arm for report in reports for arm in report.arms if arm.against is not None and _decided(arm.against)]
    count = "One experiment" if len(reports) == 1 else f"{len(reports)} experiments"
    words = {0: "no arm differs from the first one so far", 1: f"the arm {decided[0].name} differs" if decided else ""}
    said = words.get(len(decided), f"{len(decided)} arms differ")
    return Experiments(f"{count} had requests, and {said}.", "good" if decided else "plain", shown)


def _decided(against: Comparison) -> bool:
    measures = (against.cost, against.took, against.escalated, against.rating)
    return any(one is not None and one.decided for one in measures)


def _shown(report: ExperimentReport, shares: Mapping[str, float]) -> ExperimentShown:
    return ExperimentShown(
        name=report.name,
        rows=tuple(_row(arm, shares) for arm in report.arms),
        verdicts=tuple(arm.verdict for arm in report.arms if arm.verdict),
        moves="" if report.moves is None else report.moves.sentence,
    )


def _row(arm: ArmReport, shares: Mapping[str, float]) -> tuple[str, ...]:
    return (*arm_row(arm), *_intervals(arm), f"{shares.get(arm.name, 0.0):.1%}" if shares else "-")


def _intervals(arm: ArmReport) -> tuple[str, str]:
    if arm.against is None:
        return "-", "-"
    return _interval(arm.against.cost), _interval(arm.against.took)


def _interval(one: Interval | None) -> str:
    return "-" if one is None else f"{one.estimate:+.0%} ({one.low:+.0%} to {one.high:+.0%})"
