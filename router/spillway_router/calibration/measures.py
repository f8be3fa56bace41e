"""Measures of a confidence's quality on answers outside the fit: AUROC, AURC, ECE, Brier; bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BINS = 15
REPEATS = 1000


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def rounded(self) -> list[float]:
        """Return [value, low, high] to four decimal places."""
        return [round(self.value, 4), round(self.low, 4), round(self.high, 4)]


def auroc(score: Floats, right: Floats) -> float:
    """Return P(a right answer scores above a wrong one), a tie counted as half (Mann-Whitney).

    The result is 0.5 where all answers are right or all are wrong.
    """
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    _, first, inverse, count = np.unique(ordered, return_index=True, return_inverse=True, return_counts=True)
    ranks = (first + (count + 1) / 2)[inverse]
    good = right[order] > 0
    n, m = int(good.sum()), int((~good).sum())
    return float((ranks[good].sum() - n * (n + 1) / 2) / (n * m)) if n and m else 0.5


def aurc(score: Floats, right: Floats) -> float:
    """Return the area under the risk-coverage curve: the mean of the error rates of the surest 1, 2, ..., n answers.

    Less is better.
    """
    wrong = 1.0 - right[np.argsort(-score, kind="stable")]
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))


def ece(probability: Floats, right: Floats) -> float:
    """Return the expected calibration error over BINS bins of equal width (Guo et al. 2017)."""
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(place, weights=probability - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def brier(probability: Floats, right: Floats) -> float:
    """Return the mean squared difference between probability and outcome."""
    return float(np.mean((probability - right) ** 2))


def resamples(groups: Sequence[str], repeats: int = REPEATS, seed: int = 0) -> list[NDArray[np.int64]]:
    """Return the row numbers of bootstrap samples that draw whole groups: one document's rows are not independent."""
    _, index = np.unique(np.array(groups), return_inverse=True)
    order = np.argsort(index, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(index))[:-1])
    rng = np.random.default_rng(seed)
    return [np.concatenate([rows[g] for g in rng.integers(0, len(rows), len(rows))]) for _ in range(repeats)]


def interval(
    measure: Callable[[NDArray[np.int64]], float], everything: int, draws: Sequence[NDArray[np.int64]]
) -> Figure:
    """Return a measure over all `everything` rows, with the 2.5% and 97.5% quantiles over the bootstrap samples."""
    resampled = np.array([measure(rows) for rows in draws])
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Figure(measure(np.arange(everything)), float(low), float(high))


def reliability(probability: Floats, right: Floats) -> list[tuple[float, float, int]]:
    """Return (mean probability, share of right answers, number of answers) of every bin that is not empty."""
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    bins = [place == b for b in range(BINS)]
    return [(float(probability[b].mean()), float(right[b].mean()), int(b.sum())) for b in bins if b.any()]


def summary(
    scores: Mapping[str, Floats], right: Floats, draws: Sequence[NDArray[np.int64]], probabilities: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """Return AUROC and AURC of every score, also ECE and Brier of those in `probabilities`, each with its interval."""
    n = len(right)
    by_score: dict[str, dict[str, list[float]]] = {}
    for name, score in scores.items():
        measures: dict[str, Callable[[Floats, Floats], float]] = {"auroc": auroc, "aurc": aurc}
        if name in probabilities:
            measures |= {"ece": ece, "brier": brier}
        by_score[name] = {
            measure: interval(lambda rows, f=function, s=score: f(s[rows], right[rows]), n, draws).rounded()  # type: ignore[misc]
            for measure, function in measures.items()
        }
    return by_score
