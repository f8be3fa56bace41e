"""Labelled answers -> the content of a calibration file: split, fit, certify, write.

The groups are split once: FIT_SHARE of them fit the models, and the rest certify the threshold. The certificate is
sound because its answers play no part in the fit, and the fit alone decides their order. The curve over that order is
drawn through the held-out outputs of both parts: a rising curve changes no answer's place, so the certificate still
holds, and more labels make the curve steadier. The report's figures on the calibration's quality come from the second
part's answers under the first part's curve.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from spillway_router.calibration.certify import Certified, certify, labels_needed
from spillway_router.calibration.curves import bagged
from spillway_router.calibration.fit import CANDIDATES, FitError, Fitted, confidences, fit, table
from spillway_router.calibration.labelled import Labelled, in_share
from spillway_router.core.confidence.calibration import FORMAT, Calibration, CalibrationKey, Stage

FIT_SHARE = 0.6
SALT = "fit"
PREFIX_CANDIDATES: Mapping[str, tuple[Any, ...]] = {"logistic": CANDIDATES["logistic"][1:2]}
QUANTILES = 101


@dataclass(frozen=True, slots=True)
class Promise:
    """The promise P(wrong | kept) <= alpha, which holds with probability >= 1 - delta."""

    alpha: float
    delta: float


@dataclass(frozen=True, slots=True)
class Built:
    """The file's content (`data`), and what the report is drawn from.

    `certifying`: the answers that certified the threshold. `confidences`: those that a curve fitted without these
    answers gives to them, in the same order.
    """

    data: dict[str, Any]
    fitted: Fitted
    certified: Certified
    certifying: Sequence[Labelled]
    confidences: Sequence[float]

    @property
    def text(self) -> str:
        """The file's text, JSON with a final newline."""
        return json.dumps(self.data, separators=(",", ":")) + "\n"

    @property
    def calibration(self) -> Calibration:
        """The file as the router reads it."""
        return Calibration.from_json(self.text)


def build(
    rows: Sequence[Labelled],
    key: CalibrationKey,
    promise: Promise,
    provenance: Mapping[str, Any],
    candidates: Mapping[str, tuple[Any, ...]] = CANDIDATES,
) -> Built:
    """Fit the models and certify the threshold. Raises FitError where the labelled answers don't allow it.

    `provenance`: what the file says about how it was made, besides the counts and the model's name added here.
    `candidates`: the models to choose from, by name, each with the settings to choose from.
    """
    alternatives = _alternatives(rows)  # before the fit, which takes the longest
    fitting = [row for row in rows if in_share(row.group, FIT_SHARE, SALT)]
    certifying = [row for row in rows if not in_share(row.group, FIT_SHARE, SALT)]
    fitted = fit(table([(row.scores, row.right, row.group) for row in fitting]), candidates=candidates)
    if not certifying:
        raise FitError(
            "all labelled answers belong to one group; give rows of different documents different `group` names"
        )
    held_out_confidences = confidences(fitted.stage, [row.scores for row in certifying])
    stage = _with_common_curve(fitted, certifying)
    final_confidences = confidences(stage, [row.scores for row in certifying])
    certified = certify(final_confidences, [row.right for row in certifying], promise.alpha, promise.delta)
    certificate = {
        "threshold": certified.threshold,
        "alpha": promise.alpha,
        "delta": promise.delta,
        "n": certified.n,
        "coverage": round(certified.coverage, 6),
        "errors": certified.errors,
        "labels_needed_at_least": labels_needed(promise.alpha, promise.delta),
    }
    value = _value_stage(fitting)
    fields = {} if value is None else field_stages(fitting, certifying, value)
    data = {
        "format": FORMAT,
        "key": asdict(key),
        "certificate": certificate,
        "answer": stage_json(stage),
        "stages": [stage_json(stage) for stage in _prefix_stages(fitting)],
        "value": None if value is None else stage_json(value),
        "fields": {name: stage_json(stage) for name, stage in fields.items()},
        "reference": [round(float(q), 6) for q in np.quantile(final_confidences, np.linspace(0, 1, QUANTILES))],
        "made": {
            **provenance,
            **alternatives,
            "fitted_on": len(fitting),
            "certified_on": len(certifying),
            "model": fitted.chosen,
        },
    }
    return Built(data=data, fitted=fitted, certified=certified, certifying=certifying, confidences=held_out_confidences)


def _alternatives(rows: Sequence[Labelled]) -> dict[str, int]:
    """Return the number of alternatives per token that the labelled scores were computed from; {} if unknown.

    The router then requests as many. Raises FitError where more than one answer in 20 has another number, because
    scores of different numbers of alternatives are not comparable.
    """
    counts = Counter(row.alternatives for row in rows if row.alternatives)
    if not counts:
        return {}
    (alternatives, count), total = counts.most_common(1)[0], counts.total()
    if count < total - total // 20:
        listed = ", ".join(f"{n} with {k}" for k, n in sorted(counts.items()))
        raise FitError(
            f"the answers have different numbers of alternatives per token ({listed}); calibrate each number separately"
        )
    return {"top_logprobs": alternatives}


def _with_common_curve(fitted: Fitted, certifying: Sequence[Labelled]) -> Stage:
    """Return the fitted model under a curve drawn through the held-out outputs of both parts."""
    raw = np.array([fitted.stage.raw(row.scores) for row in certifying])
    right = np.array([float(row.right) for row in certifying])
    # No group is in both parts, so the second part's group numbers start after the first part's.
    _, groups = np.unique(np.array([row.group for row in certifying]), return_inverse=True)
    all_groups = np.concatenate([fitted.groups, groups + int(fitted.groups.max()) + 1])
    curve = bagged(np.concatenate([fitted.raw, raw]), np.concatenate([fitted.labels, right]), all_groups)
    return replace(fitted.stage, curve=curve)


def _prefix_stages(rows: Sequence[Labelled]) -> list[Stage]:
    """Return a stage for every prefix length that enough rows have."""
    stages = []
    for k in sorted({k for row in rows for k in row.prefixes}):
        labelled = [(row.prefixes[k], row.right, row.group) for row in rows if k in row.prefixes]
        try:
            stages.append(fit(table(labelled), k, PREFIX_CANDIDATES).stage)
        except FitError:
            continue
    return stages


def field_stages(rows: Sequence[Labelled], certifying: Sequence[Labelled], common: Stage) -> dict[str, Stage]:
    """Return a stage for each field whose values are judged better by one of its own than by the `common` one.

    A field has one only if it has enough labels to fit on `rows`, and if its Brier score on the `certifying` answers is
    lower: a field that errs seldom is better off with the others.
    """
    stages: dict[str, Stage] = {}
    for name in sorted({field for row in rows for field, _, _ in row.values}):
        labelled = [(scores, good, row.group) for row in rows for field, scores, good in row.values if field == name]
        held = [(scores, float(good)) for row in certifying for field, scores, good in row.values if field == name]
        try:
            own = fit(table(labelled), 0, PREFIX_CANDIDATES).stage
        except FitError:
            continue
        if held and _brier(own, held) < _brier(common, held):
            stages[name] = own
    return stages


def _brier(stage: Stage, held: Sequence[tuple[Mapping[str, float], float]]) -> float:
    return sum((stage.probability(scores) - good) ** 2 for scores, good in held) / len(held)


def _value_stage(rows: Sequence[Labelled]) -> Stage | None:
    labelled = [(scores, good, row.group) for row in rows for _, scores, good in row.values]
    try:
        return fit(table(labelled), 0, PREFIX_CANDIDATES).stage
    except FitError:
        return None


def stage_json(stage: Stage) -> dict[str, Any]:
    """Return a stage as JSON: numbers to eight significant digits, without the empty parts."""
    data: dict[str, Any] = {"features": list(stage.features), "fill": _short(stage.fill), "bias": _round(stage.bias)}
    if stage.weights:
        data.update(centre=_short(stage.centre), scale=_short(stage.scale), weights=_short(stage.weights))
    if stage.trees:
        data["trees"] = [
            {
                "feature": list(tree.feature),
                "cut": _short(tree.cut),
                "left": list(tree.left),
                "right": list(tree.right),
                "value": _short(tree.value),
            }
            for tree in stage.trees
        ]
    if stage.tokens:
        data["tokens"] = stage.tokens
    data["curve"] = {"x": list(stage.curve.x), "y": list(stage.curve.y)}
    return data


def _short(values: Sequence[float]) -> list[float]:
    return [_round(value) for value in values]


def _round(value: float) -> float:
    return float(f"{value:.8g}")
