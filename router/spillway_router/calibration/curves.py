"""Curves from a model's log-odds to P(right): isotonic regression, and its mean over resampled groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

from spillway_router.core.confidence.calibration import ConfidenceCurve

Floats = NDArray[np.float64]
RISE = 5e-4
"""How much a curve rises before its first and after its last flat stretch, so that ties keep the model's order."""
BAGS, KNOTS = 30, 33
"""The number of resamples that a curve is the mean of, and the number of points that it is written with."""


def bagged(raw: Floats, y: Floats, groups: NDArray[np.int64]) -> ConfidenceCurve:
    """Return the mean of the isotonic curves of BAGS bootstrap samples of groups, at KNOTS quantiles of `raw`.

    `raw`: log-odds; `y`: 1.0 = right, 0.0 = wrong. A single isotonic regression follows the jumps of its sample; the
    mean of many (bagging, Breiman 1996) is smoother and still rises. On the demo model's labelled answers it has the
    lowest cross-validated log-loss of six curves.
    """
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    rng = np.random.default_rng(0)
    knots = np.unique(np.quantile(raw, np.linspace(0.0, 1.0, KNOTS)))
    total = np.zeros(len(knots))
    for _ in range(BAGS):
        rows = np.concatenate([members[number] for number in rng.integers(0, len(members), len(members))])
        curve = isotonic(raw[rows], y[rows])
        total += np.interp(knots, curve.x, curve.y)
    return ConfidenceCurve(tuple(float(x) for x in knots), _rising(total / BAGS))


def isotonic(raw: Floats, y: Floats) -> ConfidenceCurve:
    """Return a rising piecewise-linear curve by isotonic regression.

    The curve goes through the middles of the regression's flat stretches (centred isotonic regression, Oron and
    Flournoy 2017), so that it preserves the model's order. Every stretch counts half a right and half a wrong answer
    more than it has, because no finite sample shows a probability of 0 or 1.
    """
    order = np.argsort(raw, kind="stable")
    ordered, outcomes = raw[order], y[order]
    firsts = np.flatnonzero(np.diff(ordered, prepend=-np.inf))  # equal outputs are one place of the curve
    counts = np.diff(firsts, append=len(ordered)).astype(float)
    means = np.add.reduceat(outcomes, firsts) / counts
    level = isotonic_regression(means, sample_weight=counts, y_min=0.0, y_max=1.0)
    starts = firsts[np.flatnonzero(np.diff(level, prepend=-1.0))]
    sizes = np.diff(starts, append=len(ordered))
    xs: list[float] = (np.add.reduceat(ordered, starts) / sizes).tolist()
    ys: list[float] = ((np.add.reduceat(outcomes, starts) + 0.5) / (sizes + 1.0)).tolist()
    lowest, highest = float(ordered[0]), float(ordered[-1])
    if lowest < xs[0]:
        xs, ys = [lowest, *xs], [max(0.0, ys[0] - RISE), *ys]
    if highest > xs[-1]:
        xs, ys = [*xs, highest], [*ys, min(1.0, ys[-1] + RISE)]
    return ConfidenceCurve(tuple(xs), _rising(np.array(ys)))


def _rising(heights: Floats) -> tuple[float, ...]:
    """Return the heights with a minimal slope on flat stretches.

    Answers that the model ranks differently then keep different confidences, so that a certified threshold separates
    the same answers under any curve.
    """
    rising = np.maximum.accumulate(heights) * (1.0 - 1e-6) + np.linspace(0.0, 1e-6, len(heights))
    return tuple(round(float(level), 10) for level in rising)
