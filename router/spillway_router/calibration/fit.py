"""Fits scores -> P(right) and puts it into the shape that the router applies (core/calibration.py: Stage).

Candidates: logistic regression over all scores, and a small gradient boosting of shallow trees. Their settings are
chosen by an inner cross-validation within every outer fold, and the candidate by the outer folds' log-loss (nested:
no answer judges a setting that it helped to choose). The baselines, always reported and never hidden: k nearest
neighbours, and the single score with the best AUROC. The curve is an isotonic regression on the outer folds' held-out
outputs; the model itself is then fitted on all rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spillway_router.core.calibration import Calibration, Curve, Stage, Tree

Floats = NDArray[np.float64]
OUTER, INNER = 5, 3
FEWEST = 60
"""Labelled rows below which nothing is fitted."""
RISE = 5e-4
"""How much a curve rises beyond its last and below its first stretch: ties break in the model's order."""


class FitError(Exception):
    """The labelled answers don't allow a fit; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of scores as a matrix (NaN where a row lacks one), labels 1.0 = right, groups that stay together."""

    names: tuple[str, ...]
    x: Floats
    y: Floats
    groups: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A stage and how its making went: held-out outputs of the chosen candidate (`raw`), out-of-fold probabilities of
    every candidate and baseline, by name, and the rows' labels, 1.0 = right."""

    stage: Stage
    chosen: str
    out_of_fold: Mapping[str, Floats]
    best_single: str
    labels: Floats
    raw: Floats


def table(rows: Sequence[tuple[Mapping[str, float], bool, str]], names: Sequence[str] | None = None) -> Table:
    """Scores, labels and groups as arrays. Without `names`: all scores that at least half of the rows have.

    Raises FitError where there are too few rows, or only right or only wrong ones.
    """
    right = sum(good for _, good, _ in rows)
    if len(rows) < FEWEST or right < OUTER or len(rows) - right < OUTER:
        told = f"{len(rows)} labelled answers with a signal, {right} of them right"
        raise FitError(f"{told}: at least {FEWEST} are needed, {OUTER} right and {OUTER} wrong ones among them")
    if names is None:
        count: dict[str, int] = {}
        for scores, _, _ in rows:
            for name in scores:
                count[name] = count.get(name, 0) + 1
        names = sorted(name for name, held in count.items() if 2 * held >= len(rows))
    x = np.array([[scores.get(name, np.nan) for name in names] for scores, _, _ in rows], dtype=np.float64)
    _, groups = np.unique(np.array([group for _, _, group in rows]), return_inverse=True)
    return Table(tuple(names), x, np.array([float(good) for _, good, _ in rows]), groups.astype(np.int64))


def filled(data: Table) -> tuple[Floats, Floats]:
    """The matrix with each missing score set to the middle of its column, and those middles."""
    middles = np.nanmedian(data.x, axis=0)
    return np.where(np.isnan(data.x), middles, data.x), middles


def logistic(c: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))


def boosted(depth: int, trees: int) -> Any:
    return GradientBoostingClassifier(
        max_depth=depth, n_estimators=trees, learning_rate=0.1, subsample=0.7, min_samples_leaf=20, random_state=0
    )


CANDIDATES: Mapping[str, tuple[Any, ...]] = {
    "logistic": (logistic(0.01), logistic(0.1), logistic(1.0)),
    "trees": (boosted(2, 60), boosted(3, 60)),
}
NEIGHBOURS = make_pipeline(StandardScaler(), KNeighborsClassifier(n_neighbors=25))


def fit(data: Table, tokens: int = 0, candidates: Mapping[str, tuple[Any, ...]] = CANDIDATES) -> Fitted:
    """The best candidate on these labelled rows, with its curve. Raises FitError as `table` does."""
    x, middles = filled(data)
    folds = list(GroupKFold(OUTER).split(x, data.y, data.groups))
    outputs = {name: _nested(x, data, folds, options) for name, options in candidates.items()}
    chosen = min(outputs, key=lambda name: log_loss(data.y, _sigmoid(outputs[name])))
    model = clone(_best_option(x, data.y, data.groups, candidates[chosen])).fit(x, data.y)
    curve = isotonic(outputs[chosen], data.y)
    stage = _exported(model, data.names, middles, curve, tokens)
    best, single = _best_single(x, data, folds)
    probabilities = {name: _crossed(raw, data.y, folds) for name, raw in outputs.items()}
    probabilities["neighbours"] = _held_out(
        x, data, folds, lambda fx, fy, tx: NEIGHBOURS.fit(fx, fy).predict_proba(tx)[:, 1]
    )
    probabilities["best single"] = single
    return Fitted(stage, chosen, probabilities, best, data.y, outputs[chosen])


def _nested(x: Floats, data: Table, folds: Sequence[Any], options: tuple[Any, ...]) -> Floats:
    """Held-out log-odds of every row, each fold's setting chosen inside it."""

    def outputs(fx: Floats, fy: Floats, tx: Floats, fit_rows: Any) -> Floats:
        best = clone(_best_option(fx, fy, data.groups[fit_rows], options)).fit(fx, fy)
        return np.asarray(best.decision_function(tx), dtype=np.float64)

    held = np.zeros(len(data.y))
    for fit_rows, test_rows in folds:
        held[test_rows] = outputs(x[fit_rows], data.y[fit_rows], x[test_rows], fit_rows)
    return held


def _best_option(x: Floats, y: Floats, groups: NDArray[np.int64], options: tuple[Any, ...]) -> Any:
    if len(options) == 1:
        return options[0]
    folds = list(GroupKFold(INNER).split(x, y, groups))

    def loss(option: Any) -> float:
        total = 0.0
        for fit_rows, test_rows in folds:
            model = clone(option).fit(x[fit_rows], y[fit_rows])
            total += float(log_loss(y[test_rows], model.predict_proba(x[test_rows])[:, 1], labels=[0.0, 1.0]))
        return total

    return min(options, key=loss)


def _held_out(x: Floats, data: Table, folds: Sequence[Any], one: Callable[[Floats, Floats, Floats], Any]) -> Floats:
    held = np.zeros(len(data.y))
    for fit_rows, test_rows in folds:
        held[test_rows] = one(x[fit_rows], data.y[fit_rows], x[test_rows])
    return held


def _crossed(raw: Floats, y: Floats, folds: Sequence[Any]) -> Floats:
    """Probabilities of held-out outputs, each fold's curve fitted on the other folds."""
    held = np.zeros(len(y))
    for fit_rows, test_rows in folds:
        curve = isotonic(raw[fit_rows], y[fit_rows])
        held[test_rows] = [curve.at(float(value)) for value in raw[test_rows]]
    return held


def _best_single(x: Floats, data: Table, folds: Sequence[Any]) -> tuple[str, Floats]:
    """Name of the single score with the best AUROC, and its calibrated held-out probabilities."""
    aurocs = [roc_auc_score(data.y, x[:, column]) for column in range(x.shape[1])]
    best = int(np.argmax(aurocs))
    return data.names[best], _crossed(x[:, best], data.y, folds)


def isotonic(raw: Floats, y: Floats) -> Curve:
    """A rising piecewise-linear curve: isotonic regression, drawn through the middles of its flat stretches (centred
    isotonic regression, Oron and Flournoy 2017) so that the model's order survives; ends softened as if half an answer
    of each kind more had been seen there, since no finite sample shows a probability of 0 or 1."""
    order = np.argsort(raw, kind="stable")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(raw[order], y[order])
    xs: list[float] = []
    ys: list[float] = []
    starts = np.flatnonzero(np.diff(level, prepend=-1.0))
    for begin, end in zip(starts, [*starts[1:], len(level)], strict=True):
        size = end - begin
        xs.append(float(np.mean(raw[order][begin:end])))
        ys.append(float((np.sum(y[order][begin:end]) + 0.5) / (size + 1.0)))
    lowest, highest = float(raw[order[0]]), float(raw[order[-1]])
    if lowest < xs[0]:
        xs, ys = [lowest, *xs], [max(0.0, ys[0] - RISE), *ys]
    if highest > xs[-1]:
        xs, ys = [*xs, highest], [*ys, min(1.0, ys[-1] + RISE)]
    # A hair of slope where softening left none: answers that the model tells apart stay apart, so that a threshold
    # certified on them means the same answers under any curve.
    rising = np.maximum.accumulate(ys) * (1.0 - 1e-6) + np.linspace(0.0, 1e-6, len(ys))
    return Curve(tuple(float(x) for x in xs), tuple(round(float(level), 10) for level in rising))


def _exported(model: Any, names: tuple[str, ...], middles: Floats, curve: Curve, tokens: int) -> Stage:
    fill = tuple(float(x) for x in middles)
    if isinstance(model, GradientBoostingClassifier):
        trees, bias = _trees(model)
        return Stage(names, fill, (), (), (), bias, trees, curve, tokens)
    scaler, line = model[0], model[1]
    columns = (scaler.mean_, scaler.scale_, line.coef_[0])
    centre, scale, weights = (tuple(float(value) for value in column) for column in columns)
    return Stage(names, fill, centre, scale, weights, float(line.intercept_[0]), (), curve, tokens)


def _trees(model: GradientBoostingClassifier) -> tuple[tuple[Tree, ...], float]:
    prior = float(model.init_.class_prior_[1])
    trees = []
    for (regressor,) in model.estimators_:
        t = regressor.tree_
        leaf = t.children_left < 0
        trees.append(
            Tree(
                tuple(int(f) for f in np.where(leaf, -1, t.feature)),
                # scikit-learn compares scores rounded to float32; ours are float64, which differs at a cut only.
                tuple(float(c) for c in np.where(leaf, 0.0, t.threshold)),
                tuple(int(i) for i in np.where(leaf, 0, t.children_left)),
                tuple(int(i) for i in np.where(leaf, 0, t.children_right)),
                tuple(float(v) * model.learning_rate for v in t.value[:, 0, 0]),
            )
        )
    return tuple(trees), float(np.log(prior / (1.0 - prior)))


def _sigmoid(raw: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(raw, -40.0, 40.0))), dtype=np.float64)


def confidences(stage: Stage, rows: Sequence[Mapping[str, float]]) -> list[float]:
    """What the router will say of these rows: the exported stage applied in plain Python."""
    return [stage.probability(scores) for scores in rows]


__all__ = ["Calibration", "FitError", "Fitted", "Table", "confidences", "fit", "isotonic", "table"]
