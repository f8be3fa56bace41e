"""The committed answers of a small general model, and what a certificate made on one task says of another."""

from __future__ import annotations

import pytest
from loadtests.confidence.small_answers import PER_TASK, TASKS, answers, asked
from loadtests.confidence.small_bench import ALPHA, Judged, calibrations_of, judged, split
from loadtests.confidence.small_questions import extractions


@pytest.fixture(scope="module")
def of_extraction() -> dict[str, Judged]:
    """Return how a calibration made on extraction does on each task."""
    fitting, held = split(answers())
    return {row.target: row for row in judged(calibrations_of(fitting, ["extraction"]), held)}


def test_every_question_of_every_task_is_answered_once() -> None:
    listed = list(answers())
    assert [(answer.task, answer.question) for answer in listed] == asked()
    assert len(listed) == PER_TASK * len(TASKS)
    assert all(answer.tokens for answer in listed)


def test_the_answer_to_an_extraction_is_in_its_text() -> None:
    for question in extractions(100):
        assert question.is_answered_by(question.right[0])
        assert question.right[0] in question.text.lower()


def test_a_certificate_holds_on_its_own_task(of_extraction: dict[str, Judged]) -> None:
    own = of_extraction["extraction"]
    assert own.wrong is not None
    assert own.wrong <= ALPHA
    assert own.kept is not None
    assert own.kept > 0.5
    assert own.auroc is not None
    assert own.rule_auroc is not None
    assert own.auroc > own.rule_auroc


def test_a_certificate_says_nothing_of_another_task(of_extraction: dict[str, Judged]) -> None:
    other = of_extraction["arithmetic"]
    assert other.wrong is not None
    assert other.wrong > 2 * ALPHA
