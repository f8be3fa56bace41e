"""Verdicts on whole answers and on prefixes: value tokens, reasoning, tool calls, flaws, and silence."""

from __future__ import annotations

import math

import pytest

from spillway_router.core.confidence.judge import AnswerContext, PrefixScore, judge
from spillway_router.core.confidence.scores import FORCED, Token, token_scores
from spillway_router.core.confidence.validators import ValueRule

SCHEMA = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "string"}}, "required": ["a"]}


def tokens(*parts: tuple[str, float]) -> list[Token]:
    return [Token(text, logprob, (logprob, logprob - 3.0)) for text, logprob in parts]


ANSWER = tokens(('{"', -0.9), ('a":', -0.9), ("1", -0.2), ("2", -0.3), (',"b":"', -0.9), ("x", -2.0), ('"}', -0.1))
TEXT = '{"a":12,"b":"x"}'


def test_a_document_is_as_sure_as_its_least_sure_required_value() -> None:
    verdict = judge(ANSWER, TEXT, AnswerContext(SCHEMA), None)
    assert verdict.confidence == pytest.approx(math.exp(-0.5))
    assert not verdict.calibrated
    assert verdict.fields["/a"] == pytest.approx(math.exp(-0.5))
    assert verdict.fields["/b"] == pytest.approx(math.exp(-0.9 - 2.0 - 0.1))  # its quotes are its own
    assert judge(ANSWER, TEXT, AnswerContext(), None).confidence == pytest.approx(math.exp(-3.0))  # all count


@pytest.mark.parametrize(
    ("text", "asked", "flaws"),
    [
        ("", AnswerContext(), ("empty",)),
        ("no json", AnswerContext(SCHEMA), ("json",)),
        ('{"a":"12"}', AnswerContext(SCHEMA), ("schema",)),
        (TEXT, AnswerContext(SCHEMA, rules=(ValueRule("/a", most=11.0),)), ("rule",)),
    ],
)
def test_a_fatal_flaw_is_no_confidence_at_all(text: str, asked: AnswerContext, flaws: tuple[str, ...]) -> None:
    given = ANSWER if text == TEXT else tokens((text or " ", -0.1))
    verdict = judge(given, text, asked, None)
    assert (verdict.confidence, verdict.flaws) == (0.0, flaws)


def test_a_number_that_stands_nowhere_in_the_source_is_told_but_not_fatal() -> None:
    verdict = judge(ANSWER, TEXT, AnswerContext(SCHEMA, source="eleven"), None)
    assert verdict.flaws == ("not_in_source",)
    assert verdict.confidence == pytest.approx(math.exp(-0.5))


def test_silence_is_no_confidence_but_no_zero_either() -> None:
    silent = [Token(token.text, 0.0) for token in ANSWER]
    assert judge(silent, TEXT, AnswerContext(SCHEMA), None).confidence is None
    assert judge([], TEXT, AnswerContext(SCHEMA), None).confidence is None


def test_forced_tokens_count_for_nothing() -> None:
    forced = [Token(t.text, 0.0, (0.0, FORCED)) if '"' in t.text else t for t in ANSWER]
    assert judge(forced, TEXT, AnswerContext(), None).confidence == pytest.approx(math.exp(-2.0))


def test_reasoning_is_scored_apart() -> None:
    thoughts = tokens(("<think>", -4.0), ("hm", -4.0), ("</think>", -4.0))
    for text in (TEXT, "<think>hm</think>" + TEXT):
        verdict = judge([*thoughts, *ANSWER], text, AnswerContext(), None)
        assert verdict.scores["reasoning_mean"] == pytest.approx(-4.0)
        assert verdict.scores["mean"] == pytest.approx(token_scores(ANSWER)["mean"])


def test_a_tool_call_is_judged_by_its_arguments_wherever_they_stand() -> None:
    call = tokens(("<tool_call>", -0.1), ('{"name":"f",', -0.1), ('"arguments":', -0.1), ("{", -0.1), ('"q":', -0.1))
    call += tokens(("7", -1.5), ("}}", -0.1), ("</tool_call>", -0.1))
    verdict = judge(call, '{"q":7}', AnswerContext(tools=True), None)
    assert verdict.confidence == pytest.approx(math.exp(-1.5))
    assert verdict.flaws == ()


def test_a_prefix_scores_as_the_whole_would() -> None:
    score = PrefixScore()
    many = tokens(*((str(i), -0.01 * (i % 23) - 0.001) for i in range(60)))
    for token in many:
        score.add(token)
    whole = token_scores(many)
    assert score.tokens == 60
    assert all(value == pytest.approx(whole[name]) for name, value in score.scores().items())
    assert score.confidence(None) == pytest.approx(math.exp(whole["window_low"]))


@pytest.mark.parametrize("bad", [math.nan, 0.0])
def test_a_prefix_without_a_signal_has_no_confidence(bad: float) -> None:
    score = PrefixScore()
    assert score.confidence(None) is None
    for _ in range(30):
        score.add(Token("x", bad))
    assert score.confidence(None) is None
