"""Calibration files: applied in plain Python, and refused with what to change."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest

from spillway_router.core.confidence.calibration import Calibration, CalibrationError, CalibrationKey, ConfidenceCurve

TREE = {"feature": [0, -1, -1], "cut": [0.5, 0, 0], "left": [1, 0, 0], "right": [2, 0, 0], "value": [0, -1.0, 2.0]}
STAGE: dict[str, Any] = {
    "features": ["mean", "min"],
    "fill": [-0.5, -1.0],
    "centre": [0.0, 1.0],
    "scale": [1.0, 2.0],
    "weights": [2.0, 4.0],
    "bias": 0.25,
    "trees": [TREE],
    "curve": {"x": [-10.0, 10.0], "y": [0.0, 1.0]},
}
FILE: dict[str, Any] = {
    "format": "spillway-calibration/1",
    "key": {"model": "demo", "quantisation": "*", "template": "*", "task": "json"},
    "certificate": {"threshold": 0.9, "alpha": 0.05, "delta": 0.1, "n": 100, "coverage": 0.5, "errors": 1},
    "answer": STAGE,
    "stages": [{**STAGE, "tokens": 16}, {**STAGE, "tokens": 4}],
    "value": None,
    "reference": [0.1, 0.9],
}


def changed(**parts: Any) -> str:
    return json.dumps({**copy.deepcopy(FILE), **parts})


def test_a_stage_is_line_and_trees_under_a_curve() -> None:
    stage = Calibration.from_json(json.dumps(FILE)).answer
    raw = 0.25 + 2.0 * 0.75 + 4.0 * (3.0 - 1.0) / 2.0 + 2.0
    assert stage.raw({"mean": 0.75, "min": 3.0}) == pytest.approx(raw)
    assert stage.probability({"mean": 0.75, "min": 3.0}) == pytest.approx((raw + 10) / 20)
    assert stage.raw({}) == pytest.approx(0.25 + 2.0 * -0.5 + 4.0 * -1.0 - 1.0)  # missing scores count as the middle


def test_a_curve_is_flat_outside_and_straight_between() -> None:
    curve = ConfidenceCurve((0.0, 1.0, 1.0, 2.0), (0.2, 0.4, 0.6, 0.8))
    assert [curve.at(x) for x in (-9.0, 0.0, 0.5, 2.0, 9.0)] == pytest.approx([0.2, 0.2, 0.3, 0.8, 0.8])
    assert ConfidenceCurve((1.0,), (0.3,)).at(5.0) == 0.3


def test_the_stage_of_a_stream_uses_what_has_come() -> None:
    calibration = Calibration.from_json(json.dumps(FILE))
    assert calibration.stage_after(3) is None
    assert [calibration.stage_after(k).tokens for k in (4, 15, 16, 999)] == [4, 4, 16, 16]  # type: ignore[union-attr]


def test_it_holds_for_its_model_and_task_only() -> None:
    calibration = Calibration.from_json(json.dumps(FILE))
    assert calibration.applies(CalibrationKey(model="demo", quantisation="awq", template="abc", task="json"))
    assert not calibration.applies(CalibrationKey(model="other", quantisation="awq", template="abc", task="json"))
    assert calibration.holds_for_task("json")
    assert not calibration.holds_for_task("chat")


def test_a_revoked_certificate_has_no_threshold() -> None:
    revoked = {**FILE["certificate"], "revoked": True}
    assert Calibration.from_json(changed()).threshold == 0.9
    assert Calibration.from_json(changed(certificate=revoked)).threshold is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "format is 'list'"),
        ('{"format": "spillway-calibration/9"}', "spillway-calibration/1"),
        (changed(answer={**STAGE, "fill": [1.0]}), "answer.fill has 1 numbers for 2 features"),
        (changed(answer={**STAGE, "scale": [1.0, 0.0]}), "scale contains 0"),
        (changed(answer={**STAGE, "weights": [1.0]}), "weights"),
        (changed(answer={**STAGE, "bias": "x"}), "not a finite number"),
        (changed(answer={**STAGE, "curve": {"x": [1, 0], "y": [0, 1]}}), "must rise"),
        (changed(answer={**STAGE, "curve": {"x": [0, 1], "y": [0, 2]}}), "between 0 and 1"),
        (changed(answer={**STAGE, "trees": [{**TREE, "left": [0, 0, 0]}]}), "points nowhere"),
        (changed(answer={**STAGE, "trees": [{**TREE, "feature": [7, -1, -1]}]}), "points nowhere"),
        (changed(answer={**STAGE, "trees": [{**TREE, "value": [1]}]}), "differ in length"),
        (changed(certificate={**FILE["certificate"], "alpha": 5}), "certificate.alpha"),
        (changed(reference=[0.9, 0.1]), "reference must rise"),
        (changed(stages=3), "remake it"),
        (changed(key={}), "lacks 'model'"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(CalibrationError, match="make it") as raised:
        Calibration.from_json(text)
    assert message in str(raised.value)


def test_a_number_that_is_none_is_refused() -> None:
    text = changed().replace('"bias": 0.25', '"bias": NaN', 1)
    assert not math.isfinite(json.loads(text)["answer"]["bias"])
    with pytest.raises(CalibrationError, match="finite"):
        Calibration.from_json(text)
