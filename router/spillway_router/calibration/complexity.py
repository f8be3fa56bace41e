"""Fits the learned complexity on labelled requests, and compares it on held-out ones with the rule and with baselines.

60% of the groups fit, the others judge. Every scorer sends the requests that score highest to the dear backend; its
threshold is the lowest that sends at most a given share of the fitting part there, by scores of models that did not see
the row. Quality is the dear answer's where the dear backend answers, else 1 where the local answer is good enough.

Compared are the rule (core/routing/traits/complexity.py), the length of the message, k nearest neighbours in the space
of hashed words, a regression and k nearest neighbours on embeddings where there are some, a draw of lots at the same
share, "always local", "always dear", and "best single": the one of the last two that was better on the fitting part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from spillway_router.calibration.labelled import in_share
from spillway_router.calibration.measures import REPEATS, Figure, Floats, auroc, interval, resamples
from spillway_router.calibration.requests import LabelledRequest
from spillway_router.core.routing.traits.learned import BUCKETS, SHAPE, LearnedComplexity, buckets, shape
from spillway_router.core.routing.traits.reader import TraitReader

FIT_SHARE = 0.6
FOLDS = 5
FEWEST = 100
"""Labelled requests that a fit needs."""
NEIGHBOURS = 25
PENALTIES = (0.03, 0.3, 3.0)
"""Inverses of the regularisation that cross-validation chooses from."""
LEAST_WEIGHT = 1e-4
"""Log-odds below which a word's weight is left out of the file."""


class ComplexityFitError(Exception):
    """The labelled requests don't allow a fit; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What a scorer does to the held-out requests, each figure with its 95% bootstrap interval over groups.

    `share` of the requests go to the dear backend, `usd` is the mean cost of a request. `auroc` is the probability that
    a hard request scores above another one; None for what gives no score.
    """

    name: str
    auroc: Figure | None
    share: Figure
    usd: Figure
    quality: Figure


@dataclass(frozen=True, slots=True)
class FittedComplexity:
    """The fitted file's content and the comparison. `over_rule`: learned minus rule, by measure."""

    learned: LearnedComplexity
    fitted_on: int
    judged_on: int
    hard_share: float
    compared: tuple[Compared, ...]
    best_single: str
    over_rule: Mapping[str, Figure]

    @property
    def verdict(self) -> str:
        """Whether the learned complexity orders the held-out requests better than the rule, in words."""
        gain = self.over_rule["auroc"]
        span = f"AUROC {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        if gain.low > 0:
            return f"The learned complexity finds hard requests better than the rule: {span}."
        if gain.high < 0:
            return f"The rule finds hard requests better than the learned complexity: {span}. Keep the rule."
        return f"The learned complexity is not shown to be better than the rule: {span}. Keep the rule."


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one side of the split as arrays, in their order."""

    x: csr_matrix
    hard: Floats
    groups: tuple[str, ...]
    rule: Floats
    words: Floats
    dear_quality: Floats
    dear_usd: Floats
    vectors: Floats | None
    """The embedding of each message, of length 1; None without an embedder."""


def fit_complexity(
    rows: Sequence[LabelledRequest],
    dear_share: float,
    repeats: int = REPEATS,
    vectors: Mapping[str, Sequence[float]] | None = None,
) -> FittedComplexity:
    """Return the fit on 60% of the groups with the comparison on the others. Raises ComplexityFitError.

    `vectors` are the embeddings of the messages, by `conversation.asked`, where scorers on these are compared, too.
    """
    reader = TraitReader()
    fitting = [row for row in rows if in_share(row.group, FIT_SHARE, "complexity")]
    judging = [row for row in rows if not in_share(row.group, FIT_SHARE, "complexity")]
    for part, needed in ((fitting, FEWEST // 2), (judging, FEWEST // 4)):
        hard = sum(row.hard for row in part)
        if len(part) < needed or min(hard, len(part) - hard) < FOLDS or len({row.group for row in part}) < FOLDS:
            raise ComplexityFitError(
                f"there are {len(rows)} labelled requests; at least {FEWEST} in {4 * FOLDS} groups are needed, and in "
                f"each part of the split {FOLDS} hard and {FOLDS} other ones; here a part has {len(part)}, {hard} hard"
            )
    fit, judge = _part(fitting, reader, vectors), _part(judging, reader, vectors)
    words, words_of_judge = _scaled(fit, fit), _scaled(judge, fit)
    model = _chosen(fit, words)
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, len(fitting) // 2), metric="cosine", algorithm="brute")
    both = {
        "rule": (fit.rule, judge.rule),
        "length": (fit.words, judge.words),
        "nearest neighbours": _scored(neighbours, fit, words, words_of_judge),
    }
    if fit.vectors is not None and judge.vectors is not None:
        linear = _chosen(fit, fit.vectors)
        both["linear on embeddings"] = _scored(linear, fit, fit.vectors, judge.vectors)
        both["nearest neighbours on embeddings"] = _scored(neighbours, fit, fit.vectors, judge.vectors)
    both["learned"] = _scored(model, fit, words, words_of_judge)
    compared = _comparison(judge, both, dear_share, repeats)
    return FittedComplexity(
        learned=_exported(model, fit),
        fitted_on=len(fitting),
        judged_on=len(judging),
        hard_share=float(judge.hard.mean()),
        compared=compared[0],
        best_single="always dear" if fit.dear_quality.mean() > 1.0 - fit.hard.mean() else "always local",
        over_rule=compared[1],
    )


def _scored(model: Any, fit: _Part, x: Any, x_of_judge: Any) -> tuple[Floats, Floats]:
    """Return the scores of the fitting part, each by a model that did not see its group, and those of the judging
    part. The model is then the one fitted on all of the fitting part."""
    before = _out_of_fold(model, fit, x)
    return before, model.fit(x, fit.hard).predict_proba(x_of_judge)[:, 1]


def _part(rows: Sequence[LabelledRequest], reader: TraitReader, vectors: Mapping[str, Sequence[float]] | None) -> _Part:
    dense, places, columns, values, rule = [], [], [], [], []
    for place, row in enumerate(rows):
        traits = reader.traits(row.conversation)
        message = row.conversation.asked.encode("utf-8", "replace")
        dense.append(shape(message, row.conversation, traits.factors))
        rule.append(float(traits.complexity))
        row_words = sorted(buckets(message))
        places.extend([place] * len(row_words))
        columns.extend(row_words)
        values.extend([1.0 / np.sqrt(len(row_words))] * len(row_words))
    words = csr_matrix((values, (places, columns)), shape=(len(rows), BUCKETS))
    return _Part(
        x=csr_matrix(hstack([csr_matrix(np.array(dense)), words])),
        hard=np.array([float(row.hard) for row in rows]),
        groups=tuple(row.group for row in rows),
        rule=np.array(rule),
        words=np.array([float(row.conversation.words) for row in rows]),
        dear_quality=np.array([row.dear_quality for row in rows]),
        dear_usd=np.array([row.dear_usd for row in rows]),
        vectors=None if vectors is None else _unit([vectors[row.conversation.asked] for row in rows]),
    )


def _unit(vectors: Sequence[Sequence[float]]) -> Floats:
    """Return the vectors as rows of length 1."""
    rows = np.array(vectors, dtype=np.float64)
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _scales(fit: _Part) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of the fitting part's shape; a constant has the deviation 1."""
    dense = fit.x[:, : len(SHAPE)].toarray()
    deviation = dense.std(axis=0)
    return dense.mean(axis=0), np.where(deviation > 0, deviation, 1.0)


def _scaled(part: _Part, fit: _Part) -> csr_matrix:
    mean, deviation = _scales(fit)
    dense = (part.x[:, : len(SHAPE)].toarray() - mean) / deviation
    return csr_matrix(hstack([csr_matrix(dense), part.x[:, len(SHAPE) :]]))


def _out_of_fold(model: Any, fit: _Part, x: Any) -> Floats:
    """Return the probabilities of models that did not see the row's group."""
    probabilities: Floats = cross_val_predict(
        model, x, fit.hard, groups=fit.groups, cv=GroupKFold(FOLDS), method="predict_proba"
    )[:, 1]
    return probabilities


def _chosen(fit: _Part, x: Any) -> Any:
    """Return the regression whose penalty has the least log-loss out of fold."""
    models = {c: LogisticRegression(C=c, max_iter=2000) for c in PENALTIES}
    losses = {c: log_loss(fit.hard, _out_of_fold(model, fit, x)) for c, model in models.items()}
    return models[min(losses, key=lambda c: losses[c])]


def _exported(model: Any, fit: _Part) -> LearnedComplexity:
    """Return the fitted regression with weights for the shape as it is, not scaled."""
    mean, deviation = _scales(fit)
    weights = model.coef_[0]
    dense = weights[: len(SHAPE)] / deviation
    words = {i: float(w) for i, w in enumerate(weights[len(SHAPE) :]) if abs(w) >= LEAST_WEIGHT}
    return LearnedComplexity(float(model.intercept_[0] - dense @ mean), tuple(map(float, dense)), words)


def _threshold(scores: Floats, share: float) -> float:
    """Return the lowest score from which on at most this share of the rows lies; infinity if there is none."""
    fitting = [float(score) for score in np.unique(scores) if (scores >= score).mean() <= share]
    return min(fitting, default=float("inf"))


def _comparison(
    judge: _Part, scores: Mapping[str, tuple[Floats, Floats]], dear_share: float, repeats: int
) -> tuple[tuple[Compared, ...], Mapping[str, Figure]]:
    draws, n = resamples(judge.groups, repeats), len(judge.hard)
    local_quality = 1.0 - judge.hard

    def figure(values: Floats) -> Figure:
        return interval(lambda rows: float(values[rows].mean()), n, draws)

    def one(name: str, dear: Floats, score: Floats | None = None) -> Compared:
        return Compared(
            name=name,
            auroc=None if score is None else interval(_auroc_of(score, judge.hard), n, draws),
            share=figure(dear),
            usd=figure(dear * judge.dear_usd),
            quality=figure(dear * judge.dear_quality + (1.0 - dear) * local_quality),
        )

    sent = {name: (now >= _threshold(then, dear_share)).astype(np.float64) for name, (then, now) in scores.items()}
    compared = [one(name, sent[name], now) for name, (_, now) in scores.items()]
    compared.append(one("lots", np.full(n, float(sent["learned"].mean()))))
    compared.extend([one("always local", np.zeros(n)), one("always dear", np.ones(n))])
    learned, rule = scores["learned"][1], scores["rule"][1]
    gain = (sent["learned"] - sent["rule"]) * (judge.dear_quality - local_quality)
    of_learned, of_rule = _auroc_of(learned, judge.hard), _auroc_of(rule, judge.hard)
    over = {
        "auroc": interval(lambda rows: of_learned(rows) - of_rule(rows), n, draws),
        "quality": figure(gain),
        "usd": figure((sent["learned"] - sent["rule"]) * judge.dear_usd),
    }
    return tuple(compared), over


def _auroc_of(score: Floats, hard: Floats) -> Callable[[NDArray[np.int64]], float]:
    return lambda rows: auroc(score[rows], hard[rows])
