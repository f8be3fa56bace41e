"""Fit of scores -> P(right), in the form that the router applies (core/confidence/calibration.py: Stage).

The candidates are a logistic regression over all scores, a small gradient boosting of shallow trees, and the mean of
both log-odds. An inner cross-validation within every outer fold chooses a candidate's settings, and the outer folds'
log-loss under its curve chooses the candidate (nested: no answer judges a setting that it helped to choose). Two
baselines are always reported: k nearest neighbours, and the single score with the best AUROC. The curve is drawn
through the outer folds' held-out outputs (calibration/curves.py); the model itself is then fitted on all rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spillway_router.calibration.curves import bagged
from spillway_router.core.confidence.calibration import ConfidenceCurve, Stage, Tree
from spillway_router.core.confidence.self_check import QUESTIONS

Floats = NDArray[np.float64]
OUTER, INNER = 5, 3
FEWEST = 60
"""The smallest number of labelled rows that a model is fitted on."""
AVERAGE = "average"


class FitError(Exception):
    """The labelled answers don't allow a fit; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of scores as the matrix `x` (NaN where a row lacks a score), with the column names `names`.

    `y`: 1.0 = right, 0.0 = wrong. `groups`: the number of each row's group, which no split divides.
    """

    names: tuple[str, ...]
    x: Floats
    y: Floats
    groups: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted stage, and the figures of the fit.

    `chosen`: the candidate's name. `raw`: its held-out outputs in log-odds. `out_of_fold`: the out-of-fold
    probabilities of every candidate and baseline by name. `best_single`: the name of the single score with the best
    AUROC. `labels` (1.0 = right) and `groups`: those of the rows.
    """

    stage: Stage
    chosen: str
    out_of_fold: Mapping[str, Floats]
    best_single: str
    labels: Floats
    groups: NDArray[np.int64]
    raw: Floats


def table(rows: Sequence[tuple[Mapping[str, float], bool, str]]) -> Table:
    """Return labels, groups and scores as arrays.

    A score becomes a column if at least half of the rows have it. FEWEST rows are enough for a score of a self-check,
    because few answers need one. Raises FitError where there are too few rows, or too few right or wrong ones.
    """
    right = sum(good for _, good, _ in rows)
    if len(rows) < FEWEST or right < OUTER or len(rows) - right < OUTER:
        raise FitError(
            f"there are {len(rows)} labelled answers with a signal, {right} of them right; at least {FEWEST} are "
            f"needed, among them {OUTER} right and {OUTER} wrong ones"
        )
    count = Counter(name for scores, _, _ in rows for name in scores)
    fewest = {name: FEWEST if name in QUESTIONS else len(rows) / 2 for name in count}
    names = sorted(name for name, rows_with_it in count.items() if rows_with_it >= fewest[name])
    x = np.array([[scores.get(name, np.nan) for name in names] for scores, _, _ in rows], dtype=np.float64)
    _, groups = np.unique(np.array([group for _, _, group in rows]), return_inverse=True)
    return Table(tuple(names), x, np.array([float(good) for _, good, _ in rows]), groups.astype(np.int64))


def filled(data: Table) -> tuple[Floats, Floats]:
    """Return the matrix with each missing score set to its column's median, and the medians."""
    middles = np.nanmedian(data.x, axis=0)
    return np.where(np.isnan(data.x), middles, data.x), middles


def logistic(c: float) -> Any:
    """Return a logistic regression over scaled scores; `c` is the inverse of its regularisation."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))


def boosted(depth: int, trees: int) -> Any:
    """Return a gradient boosting of `trees` trees of the depth `depth`."""
    return GradientBoostingClassifier(
        max_depth=depth, n_estimators=trees, learning_rate=0.1, subsample=0.7, min_samples_leaf=20, random_state=0
    )


CANDIDATES: Mapping[str, tuple[Any, ...]] = {
    "logistic": (logistic(0.01), logistic(0.1), logistic(1.0)),
    "trees": (boosted(2, 60), boosted(3, 60)),
}
NEIGHBOURS = make_pipeline(StandardScaler(), KNeighborsClassifier(n_neighbors=25))


def fit(data: Table, tokens: int = 0, candidates: Mapping[str, tuple[Any, ...]] = CANDIDATES) -> Fitted:
    """Return the best candidate on these labelled rows, with its curve. `tokens`: as in `Stage`."""
    x, middles = filled(data)
    folds = list(GroupKFold(OUTER).split(x, data.y, data.groups))
    outputs = {name: _nested(x, data, folds, options) for name, options in candidates.items()}
    if len(outputs) > 1:
        outputs[AVERAGE] = np.mean(list(outputs.values()), axis=0)
    probabilities = {name: _crossed(raw, data, folds) for name, raw in outputs.items()}
    chosen = min(outputs, key=lambda name: log_loss(data.y, probabilities[name]))
    curve = bagged(outputs[chosen], data.y, data.groups)
    parts = [
        _exported(
            clone(best_option(x, data.y, data.groups, options)).fit(x, data.y), data.names, middles, curve, tokens
        )
        for name, options in candidates.items()
        if chosen in (name, AVERAGE)
    ]
    stage = averaged(parts)
    best, single = _best_single(x, data, folds)
    probabilities["neighbours"] = _held_out(
        x, data, folds, lambda fx, fy, tx: NEIGHBOURS.fit(fx, fy).predict_proba(tx)[:, 1]
    )
    probabilities["best single"] = single
    return Fitted(
        stage=stage,
        chosen=chosen,
        out_of_fold=probabilities,
        best_single=best,
        labels=data.y,
        groups=data.groups,
        raw=outputs[chosen],
    )


def _nested(x: Floats, data: Table, folds: Sequence[Any], options: tuple[Any, ...]) -> Floats:
    """Return the held-out log-odds of every row; each fold's training rows choose its setting."""
    outputs = np.zeros(len(data.y))
    for fit_rows, test_rows in folds:
        fx, fy = x[fit_rows], data.y[fit_rows]
        best = clone(best_option(fx, fy, data.groups[fit_rows], options)).fit(fx, fy)
        outputs[test_rows] = best.decision_function(x[test_rows])
    return outputs


def best_option(x: Floats, y: Floats, groups: NDArray[np.int64], options: tuple[Any, ...]) -> Any:
    """Return the setting with the lowest cross-validated log-loss on these rows."""
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


def _held_out(
    x: Floats, data: Table, folds: Sequence[Any], fit_and_predict: Callable[[Floats, Floats, Floats], Any]
) -> Floats:
    """Return what `fit_and_predict` (training x, training y, test x) predicts for every row while it is held out."""
    predicted = np.zeros(len(data.y))
    for fit_rows, test_rows in folds:
        predicted[test_rows] = fit_and_predict(x[fit_rows], data.y[fit_rows], x[test_rows])
    return predicted


def _crossed(raw: Floats, data: Table, folds: Sequence[Any]) -> Floats:
    """Return the probabilities of held-out outputs; each fold's curve is fitted on the other folds."""
    probabilities = np.zeros(len(data.y))
    for fit_rows, test_rows in folds:
        curve = bagged(raw[fit_rows], data.y[fit_rows], data.groups[fit_rows])
        probabilities[test_rows] = [curve.at(float(value)) for value in raw[test_rows]]
    return probabilities


def _best_single(x: Floats, data: Table, folds: Sequence[Any]) -> tuple[str, Floats]:
    """Return the name of the single score with the best AUROC, and its calibrated held-out probabilities."""
    aurocs = [roc_auc_score(data.y, x[:, column]) for column in range(x.shape[1])]
    best = int(np.argmax(aurocs))
    return data.names[best], _crossed(x[:, best], data, folds)


def averaged(parts: Sequence[Stage]) -> Stage:
    """Return one stage whose log-odds are the mean of these stages' log-odds.

    At most one of the stages may have weights. The features, the fill, the curve and the tokens are the first stage's.
    """
    share = 1.0 / len(parts)
    linear = next((part for part in parts if part.weights), parts[0])
    trees = [replace(tree, value=tuple(v * share for v in tree.value)) for part in parts for tree in part.trees]
    return replace(
        parts[0],
        centre=linear.centre,
        scale=linear.scale,
        weights=tuple(weight * share for weight in linear.weights),
        bias=sum(part.bias for part in parts) * share,
        trees=tuple(trees),
    )


def _exported(model: Any, names: tuple[str, ...], middles: Floats, curve: ConfidenceCurve, tokens: int) -> Stage:
    """Return the stage that computes what this scikit-learn model computes."""
    fill = tuple(float(x) for x in middles)
    if isinstance(model, GradientBoostingClassifier):
        trees, bias = _trees(model)
        return Stage(
            features=names,
            fill=fill,
            centre=(),
            scale=(),
            weights=(),
            bias=bias,
            trees=trees,
            curve=curve,
            tokens=tokens,
        )
    scaler, linear = model[0], model[1]
    columns = (scaler.mean_, scaler.scale_, linear.coef_[0])
    centre, scale, weights = (tuple(float(value) for value in column) for column in columns)
    return Stage(
        features=names,
        fill=fill,
        centre=centre,
        scale=scale,
        weights=weights,
        bias=float(linear.intercept_[0]),
        trees=(),
        curve=curve,
        tokens=tokens,
    )


def _trees(model: GradientBoostingClassifier) -> tuple[tuple[Tree, ...], float]:
    prior = float(model.init_.class_prior_[1])
    trees = []
    for (regressor,) in model.estimators_:
        t = regressor.tree_
        leaf = t.children_left < 0
        trees.append(
            Tree(
                feature=tuple(int(f) for f in np.where(leaf, -1, t.feature)),
                # scikit-learn compares scores rounded to float32. Ours are float64; only a score at a cut differs.
                cut=tuple(float(c) for c in np.where(leaf, 0.0, t.threshold)),
                left=tuple(int(i) for i in np.where(leaf, 0, t.children_left)),
                right=tuple(int(i) for i in np.where(leaf, 0, t.children_right)),
                value=tuple(float(v) * model.learning_rate for v in t.value[:, 0, 0]),
            )
        )
    return tuple(trees), float(np.log(prior / (1.0 - prior)))


def confidences(stage: Stage, rows: Sequence[Mapping[str, float]]) -> list[float]:
    """Return the confidences that the router computes for these rows: it applies the exported stage in plain Python."""
    return [stage.probability(scores) for scores in rows]
