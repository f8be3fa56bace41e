"""What a check of the running configuration says, as values for the page Setup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spillway_router.config.checkup import CheckReport


@dataclass(frozen=True, slots=True)
class Checkup:
    """The verdict in one sentence, the findings (their kind and their words), and how each backend answered: its name,
    the verdict, the detail, and the time in milliseconds."""

    sentence: str
    tone: str
    findings: tuple[tuple[str, str], ...]
    backends: tuple[tuple[str, str, str, str], ...]


def checkup_of(report: CheckReport, took_s: float, cut: Callable[[str], str]) -> Checkup:
    """Return the values of a check; every text goes through `cut`, which takes secrets out."""
    kinds = (("error", report.errors), ("disabled", report.disabled), ("warning", report.warnings))
    findings = tuple((kind, cut(f"{one.where} {one.problem}")) for kind, problems in kinds for one in problems)
    answering = sum(reach.verdict == "reachable" for reach in report.reached)
    backends = f"{answering} of {len(report.reached)} backends answered"
    counts = ", ".join(f"{len(problems)} {kind}{_plural(kind, problems)}" for kind, problems in kinds if problems)
    return Checkup(
        sentence=f"Checked in {took_s:.1f} s: {backends}, {counts or 'and nothing needs attention'}.",
        tone="bad" if report.errors else "warn" if findings else "good",
        findings=findings,
        backends=tuple(
            (reach.backend, reach.verdict, cut(reach.detail), f"{reach.ms:,.0f} ms") for reach in report.reached
        ),
    )


def _plural(kind: str, problems: Sequence[object]) -> str:
    return "" if kind == "disabled" or len(problems) == 1 else "s"
