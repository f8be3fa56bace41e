"""How good a confidence is on answers that nothing was fitted on: AUROC, AURC, ECE, Brier; bootstrap intervals."""

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
        """[value, low, high] to four digits."""
        return [round(self.value, 4), round(self.low, 4), round(self.high, 4)]


def auroc(score: Floats, right: Floats) -> float:
    """P(a right answer scores above a wrong one), ties half (Mann-Whitney); 0.5 where there is only one kind."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    _, first, inverse, count = np.unique(ordered, return_index=True, return_inverse=True, return_counts=True)
    ranks = (first + (count + 1) / 2)[inverse]
    good = right[order] > 0
    n, m = int(good.sum()), int((~good).sum())
    return float((ranks[good].sum() - n * (n + 1) / 2) / (n * m)) if n and m else 0.5


def aurc(score: Floats, right: Floats) -> float:
    """Area under the risk-coverage curve: mean error rate of the surest 1, 2, ..., n answers. Less is better."""
    wrong = 1.0 - right[np.argsort(-score, kind="stable")]
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))


def ece(probability: Floats, right: Floats) -> float:
    """Expected calibration error over BINS bins of equal width (Guo et al. 2017)."""
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(place, weights=probability - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def brier(probability: Floats, right: Floats) -> float:
    """Mean squared difference of probability and outcome."""
    return float(np.mean((probability - right) ** 2))


def resamples(groups: Sequence[str], repeats: int = REPEATS, seed: int = 0) -> list[NDArray[np.int64]]:
    """Row numbers of bootstrap samples that draw whole groups: rows of one document are not independent."""
    _, index = np.unique(np.array(groups), return_inverse=True)
    order = np.argsort(index, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(index))[:-1])
    rng = np.random.default_rng(seed)
    return [np.concatenate([rows[g] for g in rng.integers(0, len(rows), len(rows))]) for _ in range(repeats)]


def interval(
    measure: Callable[[NDArray[np.int64]], float], everything: int, draws: Sequence[NDArray[np.int64]]
) -> Figure:
    """A measure over all rows with the 2.5% and 97.5% quantiles over the bootstrap samples."""
    found = np.array([measure(rows) for rows in draws])
    low, high = np.quantile(found, [0.025, 0.975])
    return Figure(measure(np.arange(everything)), float(low), float(high))


def reliability(probability: Floats, right: Floats) -> list[tuple[float, float, int]]:
    """(mean probability, share right, answers) of every bin that holds any."""
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    bins = [place == b for b in range(BINS)]
    return [(float(probability[b].mean()), float(right[b].mean()), int(b.sum())) for b in bins if b.any()]


def summary(
    scores: Mapping[str, Floats], right: Floats, draws: Sequence[NDArray[np.int64]], probabilities: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """AUROC and AURC of every score; ECE and Brier of those that are probabilities; each with its interval."""
    n = len(right)
    found: dict[str, dict[str, list[float]]] = {}
    for name, score in scores.items():
        measures: dict[str, Callable[[Floats, Floats], float]] = {"auroc": auroc, "aurc": aurc}
        if name in probabilities:
            measures |= {"ece": ece, "brier": brier}
        found[name] = {
            measure: interval(lambda rows, f=function, s=score: f(s[rows], right[rows]), n, draws).rounded()  # type: ignore[misc]
            for measure, function in measures.items()
        }
    return found
