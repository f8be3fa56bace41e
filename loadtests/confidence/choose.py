"""How the demo's model and curve were chosen: by cross-validation on the fitting part alone, without the held-out
answers.

    python -m loadtests.confidence.choose --repeats 4

Each of five folds of documents goes once through what `spillway calibrate` does (fit on 60% of the rest, draw the curve
from that part's held-out outputs and the certifying answers), for every model under every curve. The rule takes the
lowest log-loss; results within one standard error of it (paired, by document) are ties, which the calibration error
decides. A repeat takes about 25 s of one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as Drawn
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from loadtests.confidence.dataset import answers, labelled
from spillway_router.calibration.build import FIT_SHARE
from spillway_router.calibration.curves import bagged, isotonic
from spillway_router.calibration.fit import AVERAGE, CANDIDATES, OUTER, Table, best_option, filled, table
from spillway_router.calibration.measures import brier, ece
from spillway_router.core.confidence.calibration import ConfidenceCurve

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Map = Callable[[Floats], Floats]
Candidates = Mapping[str, tuple[Any, ...]]
Drawer = Callable[[Floats, Floats, Rows], Map]
LARGE = 30.0
"""Log-odds beyond which values are not distinguished."""


def _drawn(curve: ConfidenceCurve) -> Map:
    return lambda raw: np.interp(raw, curve.x, curve.y)


def _platt(raw: Floats, y: Floats, _groups: Rows) -> Map:
    """Fit a logistic regression on the log-odds (Platt 1999)."""
    model = LogisticRegression(C=1e6).fit(raw[:, None], y)
    return lambda at: model.predict_proba(at[:, None])[:, 1]


def _beta(raw: Floats, y: Floats, _groups: Rows) -> Map:
    """Fit log-odds = a ln p - b ln(1 - p) + c with a, b >= 0 (Kull, Silva Filho and Flach 2017)."""

    def features(at: Floats) -> Floats:
        at = np.clip(at, -LARGE, LARGE)
        return np.stack([-np.logaddexp(0.0, -at), np.logaddexp(0.0, at), np.ones_like(at)], axis=1)

    x = features(raw)
    optimum = minimize(
        lambda w: np.mean(np.logaddexp(0.0, x @ w) - y * (x @ w)), [1, 1, 0], bounds=[(0, None)] * 2 + [(None, None)]
    )
    return lambda at: 1.0 / (1.0 + np.exp(-(features(at) @ optimum.x)))


def _blend(one: Drawer, other: Drawer) -> Drawer:
    def drawer(raw: Floats, y: Floats, groups: Rows) -> Map:
        first, second = one(raw, y, groups), other(raw, y, groups)
        return lambda at: (first(at) + second(at)) / 2.0

    return drawer


def _isotonic(raw: Floats, y: Floats, _groups: Rows) -> Map:
    return _drawn(isotonic(raw, y))


CURVES: Mapping[str, Drawer] = {
    "isotonic": _isotonic,
    "Platt": _platt,
    "beta": _beta,
    "isotonic + Platt": _blend(_isotonic, _platt),
    "isotonic + beta": _blend(_isotonic, _beta),
    "bagged isotonic": lambda raw, y, groups: _drawn(bagged(raw, y, groups)),
}


@dataclass(frozen=True, slots=True)
class Fold:
    """The rows that a curve is drawn from and the rows that it is judged on, with each model's log-odds of both."""

    curve: Rows
    judged: Rows
    outputs: Mapping[str, tuple[Floats, Floats]]


def folds(data: Table, seed: int, candidates: Candidates = CANDIDATES) -> Iterator[Fold]:
    """Return the outer folds of one shuffle of the documents. `candidates`: the models, each with its settings."""
    x, _ = filled(data)
    share = np.random.default_rng(seed).random(int(data.groups.max()) + 1)
    for rest, judged in GroupKFold(OUTER, shuffle=True, random_state=seed).split(x, data.y, data.groups):
        first = share[data.groups[rest]] < FIT_SHARE
        fitting, certifying = rest[first], rest[~first]
        outputs = {}
        for name, options in candidates.items():
            option = best_option(x[fitting], data.y[fitting], data.groups[fitting], options)
            raw = np.zeros(len(fitting))
            inner = GroupKFold(OUTER).split(x[fitting], data.y[fitting], data.groups[fitting])
            for fit_rows, test_rows in inner:
                model = clone(option).fit(x[fitting[fit_rows]], data.y[fitting[fit_rows]])
                raw[test_rows] = model.decision_function(x[fitting[test_rows]])
            model = clone(option).fit(x[fitting], data.y[fitting])
            seen = np.concatenate([raw, model.decision_function(x[certifying])])
            outputs[name] = (seen, model.decision_function(x[judged]))
        seen, unseen = (np.mean([pair[part] for pair in outputs.values()], axis=0) for part in (0, 1))
        yield Fold(np.concatenate([fitting, certifying]), judged, {**outputs, AVERAGE: (seen, unseen)})


def probabilities(data: Table, seed: int, candidates: Candidates = CANDIDATES) -> dict[tuple[str, str], Floats]:
    """Return P(right) of every row by a model and a curve that never saw its document."""
    by_model: dict[tuple[str, str], Floats] = {}
    for fold in folds(data, seed, candidates):
        for model, (seen, unseen) in fold.outputs.items():
            for name, drawer in CURVES.items():
                p = by_model.setdefault((model, name), np.zeros(len(data.y)))
                p[fold.judged] = drawer(seen, data.y[fold.curve], data.groups[fold.curve])(unseen)
    return by_model


def losses(p: Floats, y: Floats) -> Floats:
    """Return the log-loss of every row."""
    p = np.clip(p, 1e-6, 1.0 - 1e-6)
    return -(y * np.log(p) + (1.0 - y) * np.log(1.0 - p))


def standard_error(difference: Floats, groups: Rows) -> float:
    """Return the standard error of the mean of these rows, with the rows of one document taken together."""
    return float(np.sqrt(np.sum(np.bincount(groups, difference - difference.mean()) ** 2)) / len(difference))


def main() -> None:
    parser = argparse.ArgumentParser(description="Cross-validates models and curves on the fitting part.")
    parser.add_argument("--repeats", type=int, default=4)
    given = parser.parse_args()
    rows = [labelled(answer) for answer in answers() if not answer.held_out]
    data = table([(row.scores, row.right, row.group) for row in rows])
    repeats = [probabilities(data, seed) for seed in range(given.repeats)]
    loss = {key: np.mean([losses(p[key], data.y) for p in repeats], axis=0) for key in repeats[0]}
    ranked = sorted(loss, key=lambda key: float(loss[key].mean()))
    drawn = Drawn("model", "curve", "log-loss", "above the best", "s.e.", "tie", "Brier", "ECE")
    for key in ranked:
        above = loss[key] - loss[ranked[0]]
        error = standard_error(above, data.groups)
        judged = [float(np.mean([measure(p[key], data.y) for p in repeats])) for measure in (brier, ece)]
        figures = [loss[key].mean(), above.mean(), error]
        drawn.add_row(
            *key, *(f"{x:.4f}" for x in figures), "yes" * bool(above.mean() <= error), *(f"{x:.4f}" for x in judged)
        )
    Console(width=120).print(drawn)


if __name__ == "__main__":
    main()
