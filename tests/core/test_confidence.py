"""Confidence from token logprobs: forced tokens carry nothing, and silence is not certainty."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.confidence import answer_confidence, mean_confidence, token_logprobs


def token(text: str, logprob: object, **others: float) -> dict[str, Any]:
    top = [{"token": text, "logprob": logprob}, *({"token": t, "logprob": x} for t, x in others.items())]
    return {"token": text, "logprob": logprob, "top_logprobs": top if others else []}


def choice(*tokens: object) -> dict[str, Any]:
    return {"index": 0, "logprobs": {"content": list(tokens)}}


def test_the_geometric_mean_of_the_token_probabilities() -> None:
    body = {"choices": [choice(token("a", math.log(0.5)), token("b", math.log(0.125)))]}
    assert answer_confidence(body) == pytest.approx(0.25)


def test_forced_tokens_are_left_out() -> None:
    forced = token("{", 0.0, x=-9999.0, y=-math.inf)
    chosen = token("7", -0.5, x=-1.0, y=-9999.0)
    assert token_logprobs(choice(forced, chosen, forced)) == [-0.5]
    assert answer_confidence({"choices": [choice(*[forced] * 30, chosen)]}) == pytest.approx(math.exp(-0.5))
    assert answer_confidence({"choices": [choice(forced, forced)]}) is None


def test_a_sure_token_with_real_alternatives_counts() -> None:
    assert token_logprobs(choice(token("7", 0.0, x=-20.0))) == [0.0]


def test_a_masked_chosen_token_says_nothing() -> None:
    assert token_logprobs(choice(token("7", -9999.0), token("8", -math.inf), token("9", -1.0))) == [-1.0]


@pytest.mark.parametrize("count", [1, 2, 100])
def test_all_zero_is_no_signal(count: int) -> None:
    assert mean_confidence([0.0] * count) is None
    assert mean_confidence([-0.0] * count) is None


def test_more_than_95_percent_zero_is_no_signal() -> None:
    assert mean_confidence([0.0] * 96 + [-0.1] * 4) is None
    assert mean_confidence([0.0] * 95 + [-0.1] * 5) == pytest.approx(math.exp(-0.005))


@pytest.mark.parametrize("values", [[], [math.nan], [-1.0, math.nan], [-math.inf, -1.0]])
def test_no_number_no_signal(values: list[float]) -> None:
    assert mean_confidence(values) is None


def test_the_least_sure_choice_counts_and_a_silent_one_silences() -> None:
    sure, unsure = choice(token("a", -0.1)), choice(token("a", -2.0))
    assert answer_confidence({"choices": [sure, unsure]}) == pytest.approx(math.exp(-2.0))
    assert answer_confidence({"choices": [sure, {"index": 1, "logprobs": None}]}) is None


def test_completions_have_a_flat_list() -> None:
    body = {"choices": [{"text": "ab", "logprobs": {"tokens": ["a", "b"], "token_logprobs": [None, -1.0, -9999.0]}}]}
    assert answer_confidence(body) == pytest.approx(math.exp(-1.0))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"logprobs": []}]},
        {"choices": [{"logprobs": {"content": None}}]},
        {"choices": [{"logprobs": {"content": [None, 1, {"logprob": "x"}, {"logprob": None}, {"logprob": True}]}}]},
    ],
)
def test_malformed_answers_have_no_signal(body: dict[str, Any]) -> None:
    assert answer_confidence(body) is None


@given(st.lists(st.floats(-50, 0), min_size=1))
def test_a_confidence_is_a_probability_and_grows_with_the_tokens(values: list[float]) -> None:
    found = mean_confidence(values)
    if found is None:
        assert values.count(0.0) > 0.95 * len(values)
        return
    assert 0 <= found <= 1
    lower = mean_confidence([x - 1.0 for x in values])
    assert lower is not None
    assert lower <= found
