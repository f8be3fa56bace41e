"""Labelled answers -> a calibration file: split, fit, certify, write.

Groups are split once: FIT_SHARE of them fit the models, the rest certify the threshold. The certificate is sound as its
answers played no part in the fit, which alone decides their order. The curve over that order is drawn through the
held-out outputs of both parts: a rising curve changes no answer's place, so the certificate stands, and more labels
make it steadier. What the report says of the calibration is judged on the second part by the first part's curve.
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
    """P(wrong | kept) <= alpha with probability >= 1 - delta."""

    alpha: float
    delta: float


@dataclass(frozen=True, slots=True)
class Built:
    """The file's content, and what the report is drawn from: the certifying answers, and the confidences that a curve
    made without them gives them."""

    data: dict[str, Any]
    fitted: Fitted
    certified: Certified
    held: Sequence[Labelled]
    confidences: Sequence[float]

    @property
    def text(self) -> str:
        """The file's text."""
        return json.dumps(self.data, separators=(",", ":")) + "\n"

    @property
    def calibration(self) -> Calibration:
        """The file as the router reads it."""
        return Calibration.from_json(self.text)


def build(rows: Sequence[Labelled], key: CalibrationKey, promise: Promise, made: Mapping[str, Any]) -> Built:
    """Fits and certifies. Raises FitError where the labelled answers don't allow it."""
    fitting = [row for row in rows if in_share(row.group, FIT_SHARE, SALT)]
    held = [row for row in rows if not in_share(row.group, FIT_SHARE, SALT)]
    fitted = fit(table([(row.scores, row.right, row.group) for row in fitting]))
    if not held:
        raise FitError("every answer is of one group: give rows of different documents different `group` names")
    judged = confidences(fitted.stage, [row.scores for row in held])
    stage = _steadied(fitted, held)
    found = confidences(stage, [row.scores for row in held])
    certified = certify(found, [row.right for row in held], promise.alpha, promise.delta)
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
    data = {
        "format": FORMAT,
        "key": asdict(key),
        "certificate": certificate,
        "answer": stage_json(stage),
        "stages": [stage_json(stage) for stage in _prefix_stages(fitting)],
        "value": None if value is None else stage_json(value),
        "reference": [round(float(q), 6) for q in np.quantile(found, np.linspace(0, 1, QUANTILES))],
        "made": {
            **made,
            **_alternatives(rows),
            "fitted_on": len(fitting),
            "certified_on": len(held),
            "model": fitted.chosen,
        },
    }
    return Built(data, fitted, certified, held, judged)


def _alternatives(rows: Sequence[Labelled]) -> dict[str, int]:
    """How many alternatives per token the labelled scores were made of: the router then asks for as many.

    Raises FitError where answers differ in it: their scores of alternatives mean different things.
    """
    known = Counter(row.alternatives for row in rows if row.alternatives)
    if not known:
        return {}
    (most, count), total = known.most_common(1)[0], known.total()
    if count < total - total // 20:
        told = ", ".join(f"{n} with {k}" for k, n in sorted(known.items()))
        raise FitError(f"the answers have different numbers of alternatives per token ({told}): calibrate them apart")
    return {"top_logprobs": most}


def _steadied(fitted: Fitted, held: Sequence[Labelled]) -> Stage:
    """The fitted model under a curve drawn through the held-out outputs of both parts."""
    raw = np.array([fitted.stage.raw(row.scores) for row in held])
    right = np.array([float(row.right) for row in held])
    # No group is on both sides, so the second part's numbers start behind the first one's.
    _, groups = np.unique(np.array([row.group for row in held]), return_inverse=True)
    together = np.concatenate([fitted.groups, groups + int(fitted.groups.max()) + 1])
    curve = bagged(np.concatenate([fitted.raw, raw]), np.concatenate([fitted.labels, right]), together)
    return replace(fitted.stage, curve=curve)


def _prefix_stages(rows: Sequence[Labelled]) -> list[Stage]:
    """A stage for every prefix length that enough rows have."""
    stages = []
    for k in sorted({k for row in rows for k in row.prefixes}):
        known = [(row.prefixes[k], row.right, row.group) for row in rows if k in row.prefixes]
        try:
            stages.append(fit(table(known), k, PREFIX_CANDIDATES).stage)
        except FitError:
            continue
    return stages


def _value_stage(rows: Sequence[Labelled]) -> Stage | None:
    known = [(scores, good, row.group) for row in rows for scores, good in row.values]
    try:
        return fit(table(known), 0, PREFIX_CANDIDATES).stage
    except FitError:
        return None


def stage_json(stage: Stage) -> dict[str, Any]:
    """A stage as JSON: numbers to eight digits, empty parts left out."""
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
