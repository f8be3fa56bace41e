"""The short questions for a small model: always the same, each with an answer that is known for right."""

from __future__ import annotations

import json

from loadtests.confidence.small_model import line
from loadtests.confidence.small_questions import questions

from spillway_router.calibration.requests import read_requests


def test_the_list_is_always_the_same_and_asks_nothing_twice() -> None:
    listed = questions(1_500)
    assert listed == questions(1_500)
    assert len(listed) == 1_500
    assert len({question.kind for question in listed}) == 12


def test_an_answer_is_right_if_it_says_so_among_its_first_words() -> None:
    paris = next(question for question in questions() if question.group == "capital france")
    assert paris.is_answered_by("The capital of France is Paris.")
    assert not paris.is_answered_by("It is Lyon.")
    assert not paris.is_answered_by("word " * 30 + "Paris")


def test_a_line_is_a_labelled_request() -> None:
    question = questions(1)[0]
    for answer, hard in ((question.right[0], False), ("I am not sure.", True)):
        (row,) = read_requests([line(question, answer)])
        assert (row.hard, row.group, row.conversation.asked) == (hard, question.group, question.text)
        assert json.loads(line(question, answer))["answer"] == answer
