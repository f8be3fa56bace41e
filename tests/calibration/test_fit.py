"""From labelled lines to a calibration file that the router applies as scikit-learn would."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spillway_router.calibration.build import Built, Promise, build, field_stages, stage_json
from spillway_router.calibration.curves import KNOTS, bagged, isotonic
from spillway_router.calibration.fingerprint import FingerprintError, fingerprint
from spillway_router.calibration.fit import AVERAGE, FitError, averaged, boosted, fit, logistic, table
from spillway_router.calibration.labelled import LabelError, Labelled, in_share, read
from spillway_router.calibration.measures import auroc, ece
from spillway_router.core.confidence.calibration import Calibration, CalibrationKey, ConfidenceCurve

SPILLWAY = Path(sys.executable).with_name("spillway")


FEW = {"logistic": (logistic(0.1),), "trees": (boosted(2, 20),)}
"""Models for tests of what does not depend on the choice of a setting: no setting is searched for."""


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Two scores that each tell a part, and one of noise."""
    rng = random.Random(seed)
    labelled_rows = []
    for number in range(count):
        a, b = rng.gauss(0, 1), rng.gauss(0, 1)
        right = rng.random() < 1 / (1 + 2.718281828 ** (-3 * (a + b) - 1))
        labelled_rows.append({"right": right, "group": str(number), "scores": {"a": a, "b": b, "noise": rng.random()}})
    return labelled_rows


def labelled(count: int, seed: int = 0) -> list[Labelled]:
    return list(read(json.dumps(row) for row in rows(count, seed)))


@pytest.fixture(scope="module")
def built() -> Built:
    """A fit is seconds of work: whoever needs no other one looks at this."""
    return build(
        labelled(1500), CalibrationKey(model="m", quantisation="*", template="*", task="json"), Promise(0.1, 0.1), {}
    )


@pytest.mark.parametrize("option", [logistic(1.0), boosted(2, 20)])
def test_the_exported_stage_says_what_scikit_learn_says(option: Any) -> None:
    data = table([(row.scores, row.right, row.group) for row in labelled(300)])
    stage = fit(data, 0, {"only": (option,)}).stage
    reference = option.fit(data.x, data.y).decision_function(data.x)
    ours = [stage.raw(dict(zip(data.names, x, strict=True))) for x in data.x]
    assert np.allclose(ours, reference, atol=1e-6)


def test_an_average_is_the_mean_of_both_log_odds(built: Built) -> None:
    data = table([(row.scores, row.right, row.group) for row in labelled(300)])
    options = (logistic(1.0), boosted(2, 20))
    fitted = fit(data, 0, {"logistic": options[:1], "trees": options[1:]})
    assert set(fitted.out_of_fold) == {"logistic", "trees", AVERAGE, "neighbours", "best single"}
    parts = [fit(data, 0, {"only": (option,)}).stage for option in options]
    both = averaged(parts)
    rows_of_scores = [dict(zip(data.names, x, strict=True)) for x in data.x[:50]]
    assert [both.raw(row) for row in rows_of_scores] == pytest.approx(
        [(parts[0].raw(row) + parts[1].raw(row)) / 2 for row in rows_of_scores]
    )
    again = Calibration.from_json(json.dumps({**built.data, "answer": stage_json(both)})).answer
    assert again.raw(rows_of_scores[0]) == pytest.approx(both.raw(rows_of_scores[0]), abs=1e-5)


def test_combining_beats_the_best_single_score_and_is_calibrated(built: Built) -> None:
    fresh = labelled(2000, 1)
    p = np.array([built.calibration.answer.probability(row.scores) for row in fresh])
    right = np.array([float(row.right) for row in fresh])
    assert auroc(p, right) > auroc(np.array([row.scores["a"] for row in fresh]), right) + 0.05
    assert ece(p, right) < 0.05
    kept = p >= (built.calibration.threshold or 2.0)
    assert kept.mean() > 0.2
    assert 1 - right[kept].mean() < 0.1


def test_the_file_is_the_same_for_any_order_of_the_lines() -> None:
    given = labelled(400)
    key, promise = CalibrationKey(model="m", quantisation="*", template="*", task="*"), Promise(0.1, 0.1)
    one = build(given, key, promise, {}, FEW)
    assert Calibration.from_json(one.text).certificate == one.calibration.certificate
    assert {row.group for row in one.certifying} == {
        row.group for row in build(given[::-1], key, promise, {}, FEW).certifying
    }


def test_a_curve_rises_strictly_and_never_claims_certainty() -> None:
    raw = np.linspace(-3, 3, 200)
    curve = isotonic(raw, (raw > 0).astype(float))
    heights = [curve.at(float(x)) for x in raw]
    assert all(b >= a for a, b in itertools.pairwise(heights))
    assert 0.0 < heights[0] < 0.02
    assert 0.98 < heights[-1] < 1.0


def test_a_bagged_curve_is_short_rises_and_lies_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(0)
    raw, grid = rng.normal(0, 2, 600), np.linspace(-3, 3, 61)
    y = (rng.random(600) < 1 / (1 + np.exp(-raw))).astype(float)
    smooth, steps = bagged(raw, y, np.arange(600)), isotonic(raw, y)
    assert len(smooth.x) == KNOTS
    assert all(b > a for a, b in itertools.pairwise(smooth.y))
    assert smooth == bagged(raw, y, np.arange(600))

    def off(curve: ConfidenceCurve) -> float:
        return float(np.mean([(curve.at(float(x)) - 1 / (1 + np.exp(-x))) ** 2 for x in grid]))

    assert off(smooth) < off(steps)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1"),
        ('{"scores": {}}', "right"),
        ('{"right": 1, "scores": {}}', "not true or false"),
        ('{"right": true}', "tokens"),
        ('{"right": true, "text": "x", "tokens": [["x"]]}', "IndexError"),
    ],
)
def test_a_bad_line_is_named(line: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        list(read([line]))


def test_tokens_become_scores_prefixes_and_value_scores() -> None:
    tokens = [['{"a":', -0.1, [-0.1, -3.0]], ["12", -0.7, [-0.7, -0.8]], ["}", -0.01, [-0.01, -5.0]]]
    line = {"right": True, "text": '{"a":12}', "source": "a is 12", "tokens": tokens, "values": {"/a": True}}
    (row,) = read([json.dumps(line)])
    assert row.scores["value_min"] == pytest.approx(-0.7)
    assert row.scores["in_source"] == 1.0
    assert row.prefixes[1]["sum"] == pytest.approx(-0.1)
    assert row.prefixes[64]["sum"] == pytest.approx(-0.81)
    assert (row.values[0][0], row.values[0][2]) == ("/a", True)
    silent = {**line, "tokens": [["x", 0.0, []]] * 30}
    assert list(read([json.dumps(silent), "", json.dumps({**line, "tokens": []})])) == []


def test_a_field_that_errs_otherwise_than_the_rest_gets_a_calibration_of_its_own() -> None:
    """Of the numbers every third is wrong however sure it is; names are wrong where they are unsure."""
    rng = random.Random(1)
    rows = []
    for number in range(900):
        sure = rng.random()
        number_is_right, name_is_right = rng.random() < 2 / 3, rng.random() < sure
        values = (("/number", {"logprob": sure}, number_is_right), ("/items/*/name", {"logprob": sure}, name_is_right))
        rows.append(Labelled(scores={"a": sure}, right=name_is_right, group=str(number), prefixes={}, values=values))
    fitting, certifying = rows[:500], rows[500:]
    pairs = [(scores, good, row.group) for row in fitting for _, scores, good in row.values]
    common = fit(table(pairs), 0, {"only": (logistic(0.1),)}).stage
    stages = field_stages(fitting, certifying, common)
    assert set(stages) == {"/number", "/items/*/name"}
    sure = {"logprob": 0.99}
    assert stages["/number"].probability(sure) < common.probability(sure) - 0.1
    assert stages["/items/*/name"].probability(sure) > common.probability(sure)
    few = rows[:40]
    assert field_stages(few, certifying, common) == {}


def test_a_value_is_judged_by_its_field_s_calibration_or_else_by_the_common_one(built: Built) -> None:
    data = json.loads(built.text)
    always = {"features": [], "fill": [], "bias": 0.0, "curve": {"x": [0.0], "y": [0.25]}}
    common = {**always, "curve": {"x": [0.0], "y": [0.75]}}
    calibration = Calibration.from_json(json.dumps({**data, "value": common, "fields": {"/items/*/id": always}}))
    judged = {pointer: calibration.value_stage(pointer) for pointer in ("/items/3/id", "/items/3/eye", "/id")}
    assert {p: s.probability({}) for p, s in judged.items() if s} == {
        "/items/3/id": 0.25, "/items/3/eye": 0.75, "/id": 0.75,
    }  # fmt: skip
    older = Calibration.from_json(json.dumps({key: part for key, part in data.items() if key != "fields"}))
    assert older.value_stage("/id") is older.value


def test_too_few_labels_are_refused() -> None:
    with pytest.raises(FitError, match="at least 60"):
        table([({"a": 1.0}, True, "x")] * 30)
    with pytest.raises(FitError, match="5 wrong"):
        table([({"a": 1.0}, True, "x")] * 100)


def test_groups_are_split_in_the_share_asked_for() -> None:
    share = sum(in_share(str(i), 0.6, "s") for i in range(5000)) / 5000
    assert abs(share - 0.6) < 0.03


def test_a_fingerprint_sees_weights_and_template(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "a"}')
    first = fingerprint(tmp_path)
    assert first == fingerprint(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "b"}')
    second = fingerprint(tmp_path)
    assert second["weights"] == first["weights"]
    assert second["template"] != first["template"]
    (tmp_path / "model.safetensors").write_bytes(bytes(range(255, -1, -1)) * 1000)
    assert fingerprint(tmp_path)["weights"] != first["weights"]
    with pytest.raises(FingerprintError, match="no weights"):
        fingerprint(tmp_path / "none")


def test_the_command_writes_file_and_report(tmp_path: Path) -> None:
    lines, out = tmp_path / "labelled.jsonl", tmp_path / "calibration.json"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows(400)))
    command = [str(SPILLWAY), "calibrate", str(lines), "--out", str(out), "--alpha", "0.2", "--report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "Certified on" in done.stdout
    assert Calibration.from_json(out.read_bytes()).threshold is not None
    page = (tmp_path / "calibration.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert (tmp_path / "calibration-reliability.png").read_bytes().startswith(b"\x89PNG")
    lines.write_text('{"right": true}\n')
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 1
    assert "line 1" in refused.stderr


def with_tokens(count: int, alternatives: int) -> list[Labelled]:
    rng = random.Random(3)
    lines = []
    for number in range(count):
        least = -rng.expovariate(2.0)
        top = [-0.05, *(-3.0 - i for i in range(alternatives - 1))]
        tokens = [["a", -0.05, top], ["b", least, [least, *(least - 1.0 - i for i in range(alternatives - 1))]]]
        right = rng.random() < 2.718281828**least
        lines.append(json.dumps({"right": right, "group": str(number), "text": "ab", "tokens": tokens}))
    return list(read(lines))


def test_the_file_says_how_many_alternatives_its_scores_are_made_of(built: Built) -> None:
    key, promise = (
        CalibrationKey(model="m", quantisation="*", template="*", task="*", weights="aaaa"),
        Promise(0.2, 0.1),
    )
    calibration = build(with_tokens(200, 3), key, promise, {}, FEW).calibration
    assert (calibration.alternatives, calibration.key.weights) == (3, "aaaa")
    assert built.calibration.alternatives is None
    mixed = with_tokens(200, 3) + with_tokens(60, 5)
    with pytest.raises(FitError, match="200 with 3, 60 with 5"):
        build(mixed, key, promise, {})


def test_a_second_look_is_a_score_even_where_few_answers_have_it() -> None:
    """As the router asks: only near the threshold, here where a + b is near 0, which is where it says most."""
    rng = random.Random(5)
    given = rows(900)
    for row in given:
        if abs(row["scores"]["a"] + row["scores"]["b"] + 0.3) < 0.6:
            row["self_check"] = {"p_true": min(1.0, max(0.0, rng.gauss(0.8 if row["right"] else 0.2, 0.2)))}
    asked = sum("self_check" in row for row in given)
    assert 60 <= asked < 450
    key, promise = CalibrationKey(model="m", quantisation="*", template="*", task="*"), Promise(0.2, 0.1)
    calibration = build(list(read(map(json.dumps, given))), key, promise, {}, FEW).calibration
    assert calibration.knows("p_true")
    unsure = {"a": -0.1, "b": -0.2, "noise": 0.5}
    low, middle, high = (
        calibration.answer.probability({**unsure, **more}) for more in ({"p_true": 0.1}, {}, {"p_true": 0.9})
    )
    assert low < middle < high


@pytest.mark.parametrize("wrong", [{"p_true": 1.5}, {"p_right": 0.5}])
def test_a_second_look_of_another_kind_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(LabelError, match="p_true or stated from 0 to 1"):
        list(read([json.dumps({"right": True, "scores": {"a": 1.0}, "self_check": wrong})]))
