"""A calibration: the map from an answer's scores to the probability that it is right, and its certified threshold.

`spillway calibrate` makes it, a small versioned JSON file; this module applies it in plain Python, without numpy. A
file holds for one model, quantisation, chat template and task only, because scores mean something else under any other.

    probability = curve(model(scores))

The model is a logistic regression, a sum of small decision trees over the scores, or both; the curve is a monotone
piecewise-linear map (isotonic regressions on held-out answers). `stages` hold the same for the first k tokens of a
stream, `value` for the value of any field, and `fields` for that of a field which errs otherwise than the rest.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from spillway_router.core.frozen import fast_frozen

FORMAT = "spillway-calibration/1"
ANY = "*"


class CalibrationError(Exception):
    """A calibration file can't be used; the message says what to change."""


@fast_frozen(frozen=True, slots=True)
class CalibrationKey:
    """What a calibration holds for. `model`: the served name; `quantisation`: awq or bfloat16, say; `template` and
    `weights`: fingerprints of the chat template and of the weights (calibration/fingerprint.py); `task`: as in
    `AnswerContext.task`. A part that is "*" holds for all."""

    model: str
    quantisation: str
    template: str
    task: str
    weights: str = ANY

    def covers(self, other: CalibrationKey) -> bool:
        """Return whether a calibration with this key holds for `other`."""
        pairs = (
            (self.model, other.model),
            (self.quantisation, other.quantisation),
            (self.template, other.template),
            (self.task, other.task),
            (self.weights, other.weights),
        )
        return all(mine in (ANY, theirs) for mine, theirs in pairs)

    def compare(self, served: Fingerprint) -> FingerprintComparison:
        """Compare this key with what a backend serves."""
        pairs = (
            ("weights", self.weights, served.weights),
            ("template", self.template, served.template),
            ("quantisation", self.quantisation, served.quantisation),
        )
        required = [pair for pair in pairs if pair[1] != ANY]
        return FingerprintComparison(
            tuple(f"{part} {theirs}, not {mine}" for part, mine, theirs in required if theirs not in (ANY, mine)),
            tuple(part for part, _, theirs in required if theirs == ANY),
        )


@fast_frozen(frozen=True, slots=True)
class Fingerprint:
    """What a backend serves, as far as it is known; "*" for unknown parts. The parts are those of `CalibrationKey`."""

    weights: str = ANY
    template: str = ANY
    quantisation: str = ANY


@fast_frozen(frozen=True, slots=True)
class FingerprintComparison:
    """A calibration's key compared with a backend's fingerprint. `differs`: one phrase per part that differs;
    `unverified`: the parts that the calibration requires but that are unknown for the backend."""

    differs: tuple[str, ...]
    unverified: tuple[str, ...]


@fast_frozen(frozen=True, slots=True)
class Certificate:
    """P(wrong | kept local) <= alpha with probability >= 1 - delta, for answers like the `n` labelled ones.

    `threshold` in [0, 1]: answers at or above it are kept; None if no threshold could be certified. `coverage`: the
    share of the labelled answers at or above it, of which `errors` were wrong. `revoked`: set by hand once the
    certificate no longer holds.
    """

    threshold: float | None
    alpha: float
    delta: float
    n: int
    coverage: float
    errors: int
    revoked: bool = False


@fast_frozen(frozen=True, slots=True)
class Tree:
    """One decision tree as parallel arrays. At node i go `left` if scores[feature] <= cut, else `right`; a leaf has the
    feature -1 and contributes `value`."""

    feature: tuple[int, ...]
    cut: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: tuple[float, ...]

    def output(self, row: Sequence[float]) -> float:
        """Return the value of the leaf that one row of scores reaches."""
        node = 0
        while (feature := self.feature[node]) >= 0:
            node = self.left[node] if row[feature] <= self.cut[node] else self.right[node]
        return self.value[node]


@fast_frozen(frozen=True, slots=True)
class ConfidenceCurve:
    """A monotone piecewise-linear map, flat before its first point and after its last."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def at(self, value: float) -> float:
        """Return the curve's height at `value`, in [0, 1]."""
        after = bisect_right(self.x, value)
        if after == 0:
            return self.y[0]
        if after == len(self.x):
            return self.y[-1]
        x0, x1 = self.x[after - 1], self.x[after]
        share = (value - x0) / (x1 - x0) if x1 > x0 else 1.0
        return self.y[after - 1] + share * (self.y[after] - self.y[after - 1])


@fast_frozen(frozen=True, slots=True)
class Stage:
    """A model over named scores, and its curve. `tokens`: how many tokens of a stream it needs; 0: the whole answer.

    A score that an answer lacks counts as `fill`, the median of the labelled answers.
    """

    features: tuple[str, ...]
    fill: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    trees: tuple[Tree, ...]
    curve: ConfidenceCurve
    tokens: int = 0

    def probability(self, scores: Mapping[str, float]) -> float:
        """Return P(right) in [0, 1] of an answer with these scores."""
        return self.curve.at(self.raw(scores))

    def raw(self, scores: Mapping[str, float]) -> float:
        """Return the model's output before the curve, in log-odds."""
        row = [scores.get(name, fill) for name, fill in zip(self.features, self.fill, strict=True)]
        raw = self.bias
        if self.weights:
            terms = zip(row, self.centre, self.scale, self.weights, strict=True)
            raw += math.fsum((x - centre) / scale * weight for x, centre, scale, weight in terms)
        for tree in self.trees:
            raw += tree.output(row)
        return raw


@fast_frozen(frozen=True, slots=True)
class Calibration:
    """One calibration file. `value`: P(right) of one field from its own scores, None if not fitted; `fields` replaces
    it for single fields (`field_of` names them). `provenance`: what the file says about how it was made. `reference`:
    rising quantiles of the certified answers' confidences, for core/confidence/drift.py; () if unknown."""

    key: CalibrationKey
    answer: Stage
    stages: tuple[Stage, ...]
    value: Stage | None
    certificate: Certificate
    provenance: Mapping[str, Any]
    reference: tuple[float, ...] = ()
    fields: Mapping[str, Stage] | None = None

    @property
    def threshold(self) -> float | None:
        """The certified threshold; None if none could be certified or the certificate is revoked."""
        return None if self.certificate.revoked else self.certificate.threshold

    def applies(self, key: CalibrationKey) -> bool:
        """Return whether it holds for this model, quantisation, template and task."""
        return self.key.covers(key)

    @property
    def alternatives(self) -> int | None:
        """The number of alternatives per token that its scores were computed from; None if the file doesn't say."""
        count = self.provenance.get("top_logprobs")
        return count if isinstance(count, int) and not isinstance(count, bool) and count >= 2 else None

    def knows(self, score: str) -> bool:
        """Return whether a score of this name can change an answer's probability."""
        return score in self.answer.features

    def holds_for_task(self, task: str) -> bool:
        """Return whether it holds for answers of this task."""
        return self.key.task in (ANY, task)

    def value_stage(self, pointer: str) -> Stage | None:
        """Return the stage for the value at a JSON pointer: its field's own, or that of all fields."""
        own = None if self.fields is None else self.fields.get(field_of(pointer))
        return self.value if own is None else own

    def stage_after(self, tokens: int) -> Stage | None:
        """Return the stage that uses most of the `tokens` tokens of a stream so far; None before the first stage."""
        latest = None
        for stage in self.stages:
            if stage.tokens <= tokens:
                latest = stage
        return latest

    @staticmethod
    def from_json(text: str | bytes) -> Calibration:
        """Read a calibration file's text. Raises CalibrationError, which says what to change."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as malformed:
            raise CalibrationError(f"it is not JSON ({malformed}); make it with `spillway calibrate`") from malformed
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            actual = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise CalibrationError(f"its format is {actual!r}, not {FORMAT!r}; remake it with `spillway calibrate`")
        try:
            return _calibration(data)
        except KeyError as missing:
            raise CalibrationError(f"it lacks {missing}; remake it with `spillway calibrate`") from missing
        except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise CalibrationError(f"{error}; remake it with `spillway calibrate`") from error


def _calibration(data: Mapping[str, Any]) -> Calibration:
    key, provenance = data["key"], dict(data.get("made", {}))
    weights = str(key.get("weights") or provenance.get("weights") or ANY)  # older files have it only in `made`
    stages = tuple(sorted((_stage(s, f"stages[{i}]") for i, s in enumerate(data["stages"])), key=lambda s: s.tokens))
    return Calibration(
        key=CalibrationKey(
            model=str(key["model"]),
            quantisation=str(key["quantisation"]),
            template=str(key["template"]),
            task=str(key["task"]),
            weights=weights,
        ),
        answer=_stage(data["answer"], "answer"),
        stages=stages,
        value=_stage(data["value"], "value") if data.get("value") is not None else None,
        certificate=_certificate(data["certificate"]),
        provenance=provenance,
        reference=_reference(data.get("reference", ())),
        fields={str(name): _stage(s, f"fields.{name}") for name, s in data.get("fields", {}).items()},
    )


_ITEM = re.compile(r"/\d+(?=/|$)")


def field_of(pointer: str) -> str:
    """Return the field of a JSON pointer: every item of an array counts as the same field, written `*`."""
    return _ITEM.sub("/*", pointer)


def _reference(data: Sequence[Any]) -> tuple[float, ...]:
    quantiles = tuple(_share(value, "reference") for value in data)
    if len(quantiles) == 1 or list(quantiles) != sorted(quantiles):
        raise ValueError("reference must rise and have two quantiles or more, or none")
    return quantiles


def _certificate(data: Mapping[str, Any]) -> Certificate:
    threshold = None if data["threshold"] is None else _share(data["threshold"], "certificate.threshold")
    return Certificate(
        threshold=threshold,
        alpha=_share(data["alpha"], "certificate.alpha"),
        delta=_share(data["delta"], "certificate.delta"),
        n=int(data["n"]),
        coverage=_share(data["coverage"], "certificate.coverage"),
        errors=int(data["errors"]),
        revoked=bool(data.get("revoked", False)),
    )


def _stage(data: Mapping[str, Any], where: str) -> Stage:
    names = tuple(str(name) for name in data["features"])
    stage = Stage(
        features=names,
        fill=_numbers(data["fill"], f"{where}.fill"),
        centre=_numbers(data.get("centre", ()), f"{where}.centre"),
        scale=_numbers(data.get("scale", ()), f"{where}.scale"),
        weights=_numbers(data.get("weights", ()), f"{where}.weights"),
        bias=_number(data["bias"], f"{where}.bias"),
        trees=tuple(_tree(tree, len(names), f"{where}.trees[{i}]") for i, tree in enumerate(data.get("trees", ()))),
        curve=_curve(data["curve"], f"{where}.curve"),
        tokens=int(data.get("tokens", 0)),
    )
    for name, column in (("fill", stage.fill), ("weights", stage.weights)):
        if len(column) != len(names) and not (name == "weights" and not column):
            raise ValueError(f"{where}.{name} has {len(column)} numbers for {len(names)} features")
    if not len(stage.weights) == len(stage.centre) == len(stage.scale):
        raise ValueError(f"{where}.weights, .centre and .scale differ in length")
    if not all(stage.scale):
        raise ValueError(f"{where}.scale contains 0")
    return stage


def _tree(data: Mapping[str, Any], features: int, where: str) -> Tree:
    feature = tuple(int(x) for x in data["feature"])
    nodes = len(feature)
    left, right = tuple(int(x) for x in data["left"]), tuple(int(x) for x in data["right"])
    tree = Tree(
        feature=feature,
        cut=_numbers(data["cut"], where),
        left=left,
        right=right,
        value=_numbers(data["value"], where),
    )
    if not nodes or {len(tree.cut), len(left), len(right), len(tree.value)} != {nodes}:
        raise ValueError(f"{where}: its arrays differ in length or are empty")
    for node, column in enumerate(feature):
        # Children come after their parent, so that a walk always ends.
        if column >= 0 and not (column < features and node < left[node] < nodes and node < right[node] < nodes):
            raise ValueError(f"{where}: node {node} points nowhere")
    return tree


def _curve(data: Mapping[str, Any], where: str) -> ConfidenceCurve:
    x, y = _numbers(data["x"], where), tuple(_share(v, where) for v in data["y"])
    if not x or len(x) != len(y) or list(x) != sorted(x) or list(y) != sorted(y):
        raise ValueError(f"{where} must rise, and have as many x as y")
    return ConfidenceCurve(x, y)


def _numbers(values: Any, where: str) -> tuple[float, ...]:
    return tuple(_number(value, where) for value in values)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where} contains {value!r}, which is not a finite number")
    return float(value)


def _share(value: Any, where: str) -> float:
    number = _number(value, where)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{where} is {number}, which is not between 0 and 1")
    return number
