"""What confidence is worth on a small general model: fitted on one part of the questions, judged on the other.

    python -m loadtests.confidence.small_bench          # prints the tables of docs/confidence.md

A calibration is fitted for each task and for all of them together, and each is judged on every task: what a certificate
says of one task says little of another. The rule is what the router uses without a calibration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from loadtests.confidence import trials
from loadtests.confidence.small_answers import MODEL, TASKS, SmallAnswer, answers
from loadtests.confidence.trials import AnswerPool, Floats
from spillway_router.calibration.build import Built, Promise, build
from spillway_router.calibration.certify import certify
from spillway_router.calibration.fit import CANDIDATES, FitError
from spillway_router.calibration.labelled import Labelled, in_share
from spillway_router.calibration.measures import auroc, ece
from spillway_router.core.confidence.calibration import CalibrationKey

ALPHA, DELTA = 0.25, 0.1
"""A promise that a model which is right on 39% of the questions can keep: at 0.1 nothing is certified."""
FIT_SHARE, SALT = 0.6, "small"
ALL = "all three"


@dataclass(frozen=True, slots=True)
class Judged:
    """How a calibration fitted on `source` does on the held-out answers of `target`.

    `kept` is the share of answers at or above its certified threshold, `wrong` the share of these that is wrong, and
    `accuracy` that of keeping them and sending the others to the made-up cloud; None where nothing is certified. AUROCs
    are None where all answers are right, or none.
    """

    source: str
    target: str
    n: int
    right: float
    auroc: float | None
    rule_auroc: float | None
    ece: float
    kept: float | None
    wrong: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Rows:
    """Answers with their labels, by position."""

    answers: tuple[SmallAnswer, ...]
    labelled: tuple[Labelled, ...]

    def of(self, task: str) -> Rows:
        """Return those of one task, or all."""
        if task == ALL:
            return self
        chosen = [number for number, answer in enumerate(self.answers) if answer.task == task]
        return Rows(tuple(self.answers[n] for n in chosen), tuple(self.labelled[n] for n in chosen))

    @property
    def right(self) -> Floats:
        """1.0 where an answer is right."""
        return np.array([float(row.right) for row in self.labelled])


def split(listed: Iterable[SmallAnswer]) -> tuple[Rows, Rows]:
    """Return the answers to fit on, and those to judge by. Questions about the same thing stay together."""
    parts: tuple[list[tuple[SmallAnswer, Labelled]], ...] = ([], [])
    for answer in listed:
        row = answer.labelled()
        if row is not None:
            parts[not in_share(row.group, FIT_SHARE, SALT)].append((answer, row))
    fitting, held = (Rows(tuple(a for a, _ in part), tuple(r for _, r in part)) for part in parts)
    return fitting, held


def calibrations_of(fitting: Rows, tasks: Iterable[str] = (*TASKS, ALL)) -> dict[str, Built]:
    """Return a calibration for each of these tasks, as far as they can be fitted."""
    calibrations: dict[str, Built] = {}
    for task in tasks:
        key = CalibrationKey(model=MODEL, quantisation="*", template="*", task="*")
        rows, candidates = fitting.of(task).labelled, {"logistic": CANDIDATES["logistic"]}
        try:
            calibrations[task] = build(rows, key, Promise(ALPHA, DELTA), {}, candidates)
        except FitError:
            continue  # too few, or too much alike
    return calibrations


def judged(calibrations: Mapping[str, Built], held: Rows) -> Iterator[Judged]:
    """Judge every calibration on every task."""
    for source, built in calibrations.items():
        for target in (*TASKS, ALL):
            yield _judged(source, built, target, held.of(target))


def _judged(source: str, built: Built, target: str, rows: Rows) -> Judged:
    confidence = np.array([built.calibration.answer.probability(row.scores) for row in rows.labelled])
    cloud = np.array([float(answer.cloud_is_right) for answer in rows.answers])
    threshold = built.calibration.threshold
    kept = np.zeros(len(confidence), dtype=bool) if threshold is None else confidence >= threshold
    is_mixed = 0 < rows.right.mean() < 1
    rule = np.array([answer.rule for answer in rows.answers])
    return Judged(
        source=source,
        target=target,
        n=len(confidence),
        right=float(rows.right.mean()),
        auroc=auroc(confidence, rows.right) if is_mixed else None,
        rule_auroc=auroc(rule, rows.right) if is_mixed else None,
        ece=ece(confidence, rows.right),
        kept=None if threshold is None else float(kept.mean()),
        wrong=float(1.0 - rows.right[kept].mean()) if kept.any() else None,
        accuracy=None if threshold is None else float(np.where(kept, rows.right, cloud).mean()),
    )


def violations(built: Built, held: Rows, resplits: int) -> tuple[float, float]:
    """Return the share of random halves on which a certificate of the other half is broken, and the mean share kept."""
    confidence = np.array([built.calibration.answer.probability(row.scores) for row in held.labelled])
    groups = tuple(row.group for row in held.labelled)
    pool = AnswerPool(confidence, held.right, groups, tuple(answer.task for answer in held.answers))
    rng = np.random.default_rng(0)
    outcomes: list[tuple[bool, float]] = []
    for _ in range(resplits):
        one, other = trials.halves(pool.groups, rng)
        certified = certify(pool.confidence[one].tolist(), (pool.right[one] > 0).tolist(), ALPHA, DELTA)
        outcomes.append(trials.violation(certified, pool, other, ALPHA))
    return float(np.mean([bad for bad, _ in outcomes])), float(np.mean([kept for _, kept in outcomes]))


def main() -> None:
    fitting, held = split(answers())
    print(f"fitted on {len(fitting.labelled)}, judged on {len(held.labelled)}")
    head = ("fitted on", "judged on", "right", "AUROC", "the rule's", "calibration error", "kept", "of these wrong")
    print(f"| {' | '.join((*head, 'with the cloud'))} |\n|{'---|' * 9}")
    calibrations = calibrations_of(fitting)
    for row in judged(calibrations, held):
        shares = ("-" if value is None else f"{value:.1%}" for value in (row.kept, row.wrong, row.accuracy))
        areas = ("-" if value is None else f"{value:.3f}" for value in (row.auroc, row.rule_auroc, row.ece))
        print(f"| {row.source} | {row.target} | {row.right:.1%} | {' | '.join((*areas, *shares))} |")
    for source, built in calibrations.items():
        broken, kept = violations(built, held.of(source), 1000)
        print(f"certificates of halves, {source}: {broken:.1%} broken (delta {DELTA:.0%}), {kept:.1%} kept")


if __name__ == "__main__":
    main()
