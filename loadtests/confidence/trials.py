"""Trials on held-out answers: certificates over resplits, the cost of escalation at equal accuracy, and drift.

An `AnswerPool` is what a trial needs to know of every answer: its confidence, whether it was right, its document and
kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spillway_router.calibration.certify import Certified
from spillway_router.core.confidence import drift

Floats = NDArray[np.float64]
BEFORE, AFTER, LOOKED_AT = 1000, 2000, 1000
"""Requests before a drift, requests that the controller then gets to adapt, and requests that are then judged."""


@dataclass(frozen=True, slots=True)
class AnswerPool:
    """Answers by position: confidence in [0, 1], 1.0 where right, document, kind of damage."""

    confidence: Floats
    right: Floats
    groups: tuple[str, ...]
    kinds: tuple[str, ...]


# certificates


def halves(groups: Sequence[str], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row numbers of a random half of the documents and of the other half."""
    names, index = np.unique(np.array(groups), return_inverse=True)
    first = rng.random(len(names)) < 0.5
    rows = np.arange(len(index))
    return rows[first[index]], rows[~first[index]]


def violation(certified: Certified, pool: AnswerPool, other: NDArray[np.int64], alpha: float) -> tuple[bool, float]:
    """Return whether more than alpha of what this threshold keeps of the other half is wrong, and
    the share it keeps.
    """
    if certified.threshold is None:
        return False, 0.0
    kept = pool.confidence[other] >= certified.threshold
    if not kept.any():
        return False, 0.0
    return bool(1.0 - pool.right[other][kept].mean() > alpha), float(kept.mean())


# cost


@dataclass(frozen=True, slots=True)
class Saving:
    """`kept` is the share of answers not paid for; `gain` is accuracy minus that of always escalating."""

    kept: float
    gain: float


def loosest_equal(score: Floats, right: Floats, strong: Floats) -> float:
    """Return the loosest threshold at which keeping loses no accuracy against the strong model; inf where there is
    none.
    """
    order = np.argsort(-score, kind="stable")
    gained = np.cumsum((right - strong)[order])
    ends = np.append(np.diff(score[order]) != 0, True)  # ties are kept or escalated together
    good = np.flatnonzero((gained >= 0) & ends)
    return float(score[order][good[-1]]) if len(good) else float("inf")


def saving(score: Floats, right: Floats, strong: Floats, threshold: float) -> Saving:
    """Return what a threshold saves, and its effect on accuracy."""
    kept = score >= threshold
    return Saving(float(kept.mean()), float(np.mean(np.where(kept, right, strong)) - strong.mean()))


# drift


@dataclass(frozen=True, slots=True)
class Control:
    """A certified threshold with its reference quantiles, and the controller's terms. With `moves` False the threshold
    stays fixed.
    """

    certified: float
    reference: tuple[float, ...]
    terms: drift.DriftTerms
    moves: bool = True


@dataclass(frozen=True, slots=True)
class Risk:
    """Risks over runs.

    `expected` is the mean of a run's share of wrong answers among those kept, 0 where it kept none. `pooled` is the
    number of wrong answers of all runs over the kept answers of all runs. `of_all` is wrong and kept, of all requests.
    `kept` is the share kept. `revoked` is the share of runs in which the certificate was revoked.
    """

    expected: float
    pooled: float
    of_all: float
    kept: float
    revoked: float


def draw(pool: AnswerPool, mix: Mapping[str, float], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the row numbers of `count` answers, with the kinds in the proportions of `mix`."""
    kinds = np.array(pool.kinds)
    weight = np.zeros(len(kinds))
    for kind, share in mix.items():
        rows = kinds == kind
        weight[rows] = share / rows.sum()
    return rng.choice(len(kinds), count, p=weight / weight.sum())


def drifting(
    before: tuple[AnswerPool, Mapping[str, float]],
    after: tuple[AnswerPool, Mapping[str, float]],
    control: Control,
    runs: int,
    seed: int,
) -> Risk:
    """Send requests of one mixture, then of another, through the controller, with random audits, in many runs."""
    rng = np.random.default_rng(seed)
    tallies = [_run(before, after, control, rng) for _ in range(runs)]
    wrong, kept = (np.array([tally[i] for tally in tallies], dtype=np.float64) for i in (0, 1))
    return Risk(
        expected=float(np.mean(wrong / np.maximum(1.0, kept))),
        pooled=float(wrong.sum() / max(1.0, kept.sum())),
        of_all=float(wrong.mean() / LOOKED_AT),
        kept=float(kept.mean() / LOOKED_AT),
        revoked=float(np.mean([tally[2] for tally in tallies])),
    )


def _run(
    before: tuple[AnswerPool, Mapping[str, float]],
    after: tuple[AnswerPool, Mapping[str, float]],
    control: Control,
    rng: np.random.Generator,
) -> tuple[int, int, bool]:
    """Return (wrong among kept, kept) of the last LOOKED_AT requests, and whether the certificate was revoked."""
    state = drift.initial_state(control.certified, control.reference)
    level = control.certified
    wrong = kept = 0
    for (pool, mix), count in ((before, BEFORE), (after, AFTER + LOOKED_AT)):
        rows = draw(pool, mix, count, rng)
        audits = rng.random(count) < control.terms.share
        for number, (confidence, right) in enumerate(zip(pool.confidence[rows], pool.right[rows], strict=True)):
            bad = right == 0.0
            keeps = confidence >= level
            if keeps and pool is after[0] and mix is after[1] and number >= AFTER:
                kept += 1
                wrong += int(bad)
            if not control.moves:
                continue
            if keeps and audits[number]:
                state = drift.observe(state, bool(bad), control.terms)
            elif not keeps and drift.is_probe(state, float(confidence), control.terms, control.reference):
                state = drift.observe(state, bool(bad), control.terms, kept=False)
            else:
                continue
            level = drift.threshold(state, control.terms, control.certified, control.reference)
    return wrong, kept, state.revoked
