"""Certification of a threshold by Learn-then-Test (Angelopoulos, Bates, Candès, Jordan, Lei 2021), in plain Python.

At a threshold t, n_t answers are kept and e_t of them are wrong. The hypothesis H_t is P(wrong | kept) > alpha. Its
p-value is BinomCDF(e_t; n_t, alpha), the probability of so few wrong answers. Thresholds are tested from strict to
loose, and the first failure ends a sequence (fixed-sequence testing needs no correction within a sequence). Five
sequences, which start at 10, 25, 40, 60 and 80% coverage, share delta. All thresholds that pass hold together with
probability >= 1 - delta; the loosest of them is the certified one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

STARTS = (0.10, 0.25, 0.40, 0.60, 0.80)


@dataclass(frozen=True, slots=True)
class Certified:
    """The certified `threshold` in [0, 1]; None if no threshold is certified.

    Of the `n` labelled answers, `kept` are at or above the threshold, and `errors` of these are wrong.
    """

    threshold: float | None
    n: int
    kept: int
    errors: int

    @property
    def coverage(self) -> float:
        """The share of the labelled answers at or above the threshold."""
        return self.kept / self.n if self.n else 0.0


def binomial_cdf(errors: int, n: int, p: float) -> float:
    """Return P(X <= errors) for a binomial X with n trials of probability p, 0 < p < 1.

    The sum starts at its largest term and ends once a term no longer changes it: tens of terms for thousands of trials.
    """
    if errors >= n:
        return 1.0
    if errors < 0:
        return 0.0
    if errors > n * p:  # the upper tail has fewer terms
        return max(0.0, 1.0 - binomial_cdf(n - errors - 1, n, 1.0 - p))
    log = math.lgamma(n + 1) - math.lgamma(errors + 1) - math.lgamma(n - errors + 1)
    term = math.exp(log + errors * math.log(p) + (n - errors) * math.log1p(-p))
    total, odds = 0.0, (1.0 - p) / p
    for k in range(errors, -1, -1):
        total += term
        term *= odds * k / (n - k + 1)
        if term < total * 1e-15:
            break
    return min(1.0, total)


def certify(confidences: Sequence[float], right: Sequence[bool], alpha: float, delta: float) -> Certified:
    """Return the loosest certified threshold on these labelled answers. Tied answers are kept or escalated together.

    Raises ValueError for an alpha or a delta that is not strictly between 0 and 1.
    """
    if not (0.0 < alpha < 1.0 and 0.0 < delta < 1.0):
        raise ValueError(f"alpha ({alpha}) and delta ({delta}) must lie strictly between 0 and 1")
    ordered = sorted(zip(confidences, right, strict=True), key=lambda pair: -pair[0])
    steps = _steps(ordered)
    best: tuple[float, int, int] | None = None
    for start in STARTS:
        for threshold, kept, errors in steps:
            if kept < start * len(ordered) or (best is not None and kept <= best[1]):
                continue  # before this start, or certified from an earlier start
            if binomial_cdf(errors, kept, alpha) > delta / len(STARTS):
                break
            best = (threshold, kept, errors)
    if best is None:
        return Certified(threshold=None, n=len(ordered), kept=0, errors=0)
    threshold, kept, errors = best
    return Certified(threshold=threshold, n=len(ordered), kept=kept, errors=errors)


def naive(confidences: Sequence[float], right: Sequence[bool], alpha: float) -> Certified:
    """Return the loosest threshold whose error rate on the labelled answers is <= alpha: the choice without a test."""
    ordered = sorted(zip(confidences, right, strict=True), key=lambda pair: -pair[0])
    within_alpha = [step for step in _steps(ordered) if step[2] <= alpha * step[1]]
    if not within_alpha:
        return Certified(threshold=None, n=len(ordered), kept=0, errors=0)
    threshold, kept, errors = within_alpha[-1]
    return Certified(threshold=threshold, n=len(ordered), kept=kept, errors=errors)


def _steps(ordered: Sequence[tuple[float, bool]]) -> list[tuple[float, int, int]]:
    """Return (threshold, kept, errors) at every distinct confidence, strict to loose."""
    steps: list[tuple[float, int, int]] = []
    errors = 0
    for index, (confidence, good) in enumerate(ordered):
        errors += not good
        if index + 1 == len(ordered) or ordered[index + 1][0] != confidence:
            steps.append((confidence, index + 1, errors))
    return steps


def labels_needed(alpha: float, delta: float) -> int:
    """Return the smallest number n of kept answers, all right, that certifies one threshold: (1 - alpha)^n <= delta."""
    return math.ceil(math.log(delta) / math.log1p(-alpha))
