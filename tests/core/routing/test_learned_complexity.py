"""The learned complexity: what its file holds, what it says, and what it costs."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.routing.traits.conversation import Conversation
from spillway_router.core.routing.traits.learned import (
    BUCKETS,
    SHAPE,
    LearnedComplexity,
    LearnedComplexityError,
    buckets,
    shape,
)
from spillway_router.core.routing.traits.reader import TraitReader

LEARNED = LearnedComplexity(-1.0, tuple(0.1 for _ in SHAPE), dict.fromkeys(range(BUCKETS), 0.01))
NOTHING = LearnedComplexity(0.0, tuple(0.0 for _ in SHAPE), {})


def test_the_probability_is_the_regression_over_shape_and_words() -> None:
    (merger,) = buckets(b"merger")
    learned = LearnedComplexity(-2.0, tuple(0.5 * (name == "digits") for name in SHAPE), {merger: 3.0})
    expected = -2.0 + 0.5 * (4 / 13) + 3.0 / math.sqrt(2)  # four of 13 bytes are digits; two different words
    probability = learned.probability(Conversation("MERGER, 12 12"), ())
    assert probability == pytest.approx(1 / (1 + math.exp(-expected)))
    assert learned.complexity(Conversation("MERGER, 12 12"), ()) == round(10 * probability)


def test_the_shape_says_length_marks_and_factors() -> None:
    asked = "Compare A, B!"
    numbers = shape(asked.encode(), Conversation(asked, words=3, wants_json=True), ("analysis",))
    values = dict(zip(SHAPE, numbers, strict=True))
    assert values["log_characters"] == pytest.approx(math.log(14))
    assert values["log_words"] == pytest.approx(math.log(4))
    assert (values["capitals"], values["marks"]) == (pytest.approx(3 / 13), pytest.approx(2 / 13))
    assert (values["json"], values["further_messages"], values["analysis"], values["faq"]) == (1.0, 0.0, 1.0, 0.0)


def test_a_file_is_read_as_it_was_written() -> None:
    assert LearnedComplexity.from_json(LEARNED.to_json({"on": "2026-11-30"})) == LEARNED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(format="other/1"), "it is no spillway-complexity/1"),
        (lambda data: data["model"].update(intercept=5.0), "its digest does not fit its weights"),
        (lambda data: data.pop("model"), "it is no spillway-complexity/1"),
    ],
)
def test_a_changed_file_is_refused(change, message: str) -> None:
    data = json.loads(LEARNED.to_json({}))
    change(data)
    with pytest.raises(LearnedComplexityError, match=f"{message}.*spillway calibrate-complexity"):
        LearnedComplexity.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_what_is_no_file_is_refused(text: str) -> None:
    with pytest.raises(LearnedComplexityError, match="spillway calibrate-complexity"):
        LearnedComplexity.from_json(text)


def test_a_weight_that_is_no_number_is_refused() -> None:
    with pytest.raises(LearnedComplexityError, match="no finite number"):
        LearnedComplexity.from_json(replace(LEARNED, intercept=math.inf).to_json({}))


@given(st.text(max_size=300), st.integers(1, 5))
def test_any_text_gets_a_complexity(text: str, messages: int) -> None:
    conversation = Conversation(text, user_messages=messages)
    assert 0.0 <= LEARNED.probability(conversation, ("multi_turn",)) <= 1.0
    assert 0 <= LEARNED.complexity(conversation, ()) <= 10


def test_the_reader_says_that_the_complexity_is_learned_and_keeps_the_factors() -> None:
    traits = TraitReader(learned=NOTHING).traits(Conversation("Compare these two plans."))
    assert (traits.complexity, traits.factors) == (5, ("learned", "analysis"))


def test_1100_characters_take_at_most_50_us() -> None:
    words = " ".join(f"word{n} of, the Report" for n in range(100))[:1100]
    conversation = Conversation(words, words=words.count(" ") + 1)

    def block_us() -> float:
        begun_ns = time.thread_time_ns()
        for _ in range(100):
            LEARNED.complexity(conversation, ("analysis", "length"))
        return (time.thread_time_ns() - begun_ns) / 1000 / 100

    assert min(block_us() for _ in range(30)) <= 50
