"""What a reply to "is your answer right?" is worth, and when it is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from spillway_router.core.confidence.calibration import Calibration, CalibrationKey, Certificate, ConfidenceCurve, Stage
from spillway_router.core.confidence.judge import ConfidenceVerdict, with_score
from spillway_router.core.confidence.self_check import SelfCheck, is_worth_asking, p_true, stated, word_probabilities

WORDS = ("True", "False")
RULE = SelfCheck(kind="p_true", band=0.1, longest_s=0.5, question="?", words=WORDS)


def alternatives(*likely: tuple[str, float]) -> Sequence[tuple[str, float]]:
    return [(text, math.log(p)) for text, p in likely]


@pytest.mark.parametrize(
    ("likely", "score"),
    [
        ([("True", 0.6), ("False", 0.2)], 0.75),
        ([(" true", 0.3), ("TRUE", 0.3), ("\nfalse", 0.2)], 0.75),  # however it is written
        ([("T", 0.6), ("Fa", 0.2), ("Tr", 0.0001)], 0.75),  # a vocabulary of pieces
        ([("True", 0.3), ("Yes", 0.4)], 1.0),
        ([("Truly", 0.9), ("Falsely", 0.1)], None),  # other words
        ([("", 0.5), (" ", 0.4)], None),
        ([("True", 0.05), ("False", 0.04), ("{", 0.9)], None),  # it was not answering
        ([("True", 1.0)], None),  # one alternative is no choice
        ([("True", 1.0), ("False", 1.0)], None),  # all zeros: no signal
        ([], None),
    ],
)
def test_p_true(likely: list[tuple[str, float]], score: float | None) -> None:
    assert p_true(alternatives(*likely), WORDS) == (None if score is None else pytest.approx(score, abs=1e-3))


def test_what_is_no_log_probability_counts_for_nothing() -> None:
    odd = [("True", math.nan), ("False", -9999.0), ("T", math.log(0.5)), ("F", math.log(0.25))]
    assert word_probabilities(odd, WORDS) == pytest.approx((0.5, 0.25))
    assert word_probabilities(odd[:3], WORDS) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "score"),
    [("0", 0.0), ("100", 1.0), (" 85%\n", 0.85), ("7.", 0.07), ("101", None), ("-5", None), ("0.85", None),
     ("85 of 100", None), ("eighty", None), ("", None), ("٨٥", 0.85)],
)  # fmt: skip
def test_stated(text: str, score: float | None) -> None:
    assert stated(text) == score


def verdict(confidence: float | None, *, calibrated: bool = True, flaws: tuple[str, ...] = ()) -> ConfidenceVerdict:
    return ConfidenceVerdict(
        confidence=confidence, calibrated=calibrated, scores={"min": -1.0, "window_low": -1.0}, fields={}, flaws=flaws
    )


@pytest.mark.parametrize(
    ("candidate", "asks"),
    [
        (verdict(0.75), True),
        (verdict(0.85), True),
        (verdict(0.69), False),
        (verdict(0.91), False),
        (verdict(None), False),
        (verdict(0.8, calibrated=False), False),
        (verdict(0.8, flaws=("schema",)), False),
        (verdict(0.8, flaws=("not_in_source",)), True),
    ],
)
def test_it_is_asked_near_the_threshold_alone(candidate: ConfidenceVerdict, asks: bool) -> None:
    assert is_worth_asking(RULE, candidate, 0.8) is asks


def test_a_later_score_counts_where_the_calibration_knows_it() -> None:
    one = (1.0, 1.0)
    stage = Stage(
        features=("min", "p_true"),
        fill=(-1.0, 0.5),
        centre=(0.0, 0.0),
        scale=one,
        weights=one,
        bias=0.0,
        trees=(),
        curve=ConfidenceCurve((-1.0, 1.0), (0.0, 1.0)),
    )
    calibration = Calibration(
        key=CalibrationKey(model="m", quantisation="*", template="*", task="json"),
        answer=stage,
        stages=(),
        value=None,
        certificate=Certificate(threshold=0.8, alpha=0.05, delta=0.1, n=100, coverage=0.5, errors=1),
        provenance={},
    )
    before = verdict(stage.probability({"min": -1.0}))
    after = with_score(before, "p_true", 1.0, "json", calibration)
    assert (before.confidence, after.confidence) == (0.25, 0.5)
    assert after.scores == {**before.scores, "p_true": 1.0}
    assert with_score(before, "stated", 1.0, "json", calibration).confidence == 0.25
    assert not with_score(before, "p_true", 1.0, "chat", calibration).calibrated
    assert with_score(verdict(0.0, flaws=("rule",)), "p_true", 1.0, "json", calibration).confidence == 0.0
