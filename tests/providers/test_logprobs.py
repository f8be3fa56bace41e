"""Tokens out of OpenAI-shaped choices, however malformed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from spillway_router.core.confidence.scores import Token
from spillway_router.providers.logprobs import answer_text, tokens_of_choice


def test_the_chat_shape_with_alternatives_best_first() -> None:
    item = {
        "token": "7",
        "logprob": -1.5,
        "top_logprobs": [{"token": "1", "logprob": -0.5}, {"token": "x", "logprob": -2}],
    }
    assert tokens_of_choice({"logprobs": {"content": [item]}}) == (Token("7", -1.5, (-0.5, -1.5, -2.0)),)
    assert tokens_of_choice({"delta": {}, "logprobs": {"content": [{"token": "a", "logprob": 0}]}}) == (
        Token("a", 0.0),
    )


def test_the_completions_shape() -> None:
    logprobs = {
        "tokens": ["a", "b", "c"],
        "token_logprobs": [None, -1.0, -9999.0],
        "top_logprobs": [None, {"b": -1.0, "x": -3.0}, {"c": -9999.0}],
    }
    tokens = tokens_of_choice({"text": "abc", "logprobs": logprobs})
    assert tokens == (Token("b", -1.0, (-1.0, -3.0)), Token("c", -9999.0, (-9999.0,)))
    assert tokens[1].forced


@pytest.mark.parametrize("logprobs", [None, [], {}, {"content": None}, {"content": "x"}, {"token_logprobs": None}])
def test_no_tokens_were_sent(logprobs: Any) -> None:
    assert tokens_of_choice({"logprobs": logprobs}) == ()


@pytest.mark.parametrize("item", [None, 1, {"logprob": "x"}, {"logprob": None}, {"logprob": True}, {}])
def test_an_unreadable_token_is_no_signal(item: Any) -> None:
    (token,) = tokens_of_choice({"logprobs": {"content": [item]}})
    assert math.isnan(token.logprob)


def test_the_text_of_an_answer() -> None:
    calls = [{"function": {"arguments": '{"a":1}'}}, {"function": {"arguments": "{}"}}, None]
    assert answer_text({"message": {"content": "hi"}}) == "hi"
    assert answer_text({"message": {"content": None, "tool_calls": calls}}) == '{"a":1}\n{}\n'
    assert answer_text({"text": "flat"}) == "flat"
    assert answer_text({"message": {"content": None}}) == answer_text({}) == ""
