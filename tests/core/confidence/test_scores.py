"""Single scores: each against its definition, oriented so that more is surer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.confidence.scores import (
    FORCED,
    WINDOW,
    Token,
    entropy,
    informative,
    margin,
    quantile,
    signal_flaw,
    token_scores,
    window_means,
    with_alternatives,
)


def token(p: float, *rest: float) -> Token:
    return Token("x", math.log(p), tuple(sorted((math.log(q) for q in (p, *rest)), reverse=True)))


def test_every_score_of_three_tokens() -> None:
    scores = token_scores([token(0.5, 0.25), token(0.8, 0.1), token(0.9, 0.1)])
    logs = [math.log(p) for p in (0.5, 0.8, 0.9)]
    assert scores["sum"] == pytest.approx(sum(logs))
    assert scores["mean"] == pytest.approx(sum(logs) / 3)
    assert scores["min"] == pytest.approx(logs[0])
    assert scores["q25"] == pytest.approx((logs[0] + logs[1]) / 2)
    assert scores["margin_min"] == pytest.approx(0.25)
    assert scores["margin_mean"] == pytest.approx((0.25 + 0.7 + 0.8) / 3)
    assert scores["window_low"] == pytest.approx(scores["mean"])
    assert scores["group_low"] == pytest.approx(-(math.log(0.25) + 2 * math.log(0.1)) / 3)
    assert scores["tail"] == scores["group_bottom"] == scores["group_low"]


def test_entropy_counts_the_unseen_rest_as_one_outcome() -> None:
    expected = -(0.5 * math.log(0.5) + 0.25 * math.log(0.25) + 0.25 * math.log(0.25))
    assert entropy([math.log(0.5), math.log(0.25)]) == pytest.approx(expected)
    assert entropy([0.0]) == 0.0


def test_scores_of_alternatives_need_them_at_every_token() -> None:
    assert "margin_min" not in token_scores([token(0.5, 0.25), Token("x", -0.1)])
    assert token_scores([]) == {}


def test_forced_and_masked_tokens_say_nothing() -> None:
    forced = Token("{", 0.0, (0.0, FORCED, FORCED))
    masked = Token("7", FORCED, (-0.1, -2.0, FORCED))
    free = token(0.9, 0.05)
    assert informative([forced, free, masked]) == [free]
    assert margin(Token("x", -0.1)) == 0.0


@pytest.mark.parametrize(
    ("tokens", "flaw"),
    [
        ([], "none"),
        ([Token("x", math.nan)], "nan"),
        ([Token("x", -math.inf)], "nan"),
        ([Token("x", 0.0)] * 100, "zeros"),
        ([Token("x", -0.0)] * 96 + [Token("x", -1.0)] * 4, "zeros"),
        ([Token("x", 0.0)] * 95 + [Token("x", -1.0)] * 5, None),
    ],
)
def test_an_invalid_signal_is_named(tokens: list[Token], flaw: str | None) -> None:
    assert signal_flaw(tokens) == flaw


def test_windows_slide_by_one() -> None:
    values = [0.0] * WINDOW + [-float(WINDOW)]
    assert window_means(values) == pytest.approx([0.0, -1.0])
    assert window_means([1.0, 3.0]) == [2.0]
    assert quantile([1.0, 2.0, 4.0], 0.0) == 1.0
    assert quantile([1.0, 2.0, 4.0], 1.0) == 4.0


@given(st.lists(st.floats(-40, -1e-6), min_size=1, max_size=60), st.integers(0, 59))
def test_a_surer_token_lowers_no_score_of_the_chosen(values: list[float], place: int) -> None:
    surer = list(values)
    surer[place % len(values)] /= 2
    before = token_scores([Token("x", x) for x in values])
    after = token_scores([Token("x", x) for x in surer])
    assert all(after[name] >= before[name] - 1e-9 for name in before)


def test_fewer_alternatives_are_as_if_so_many_had_been_asked_for() -> None:
    best = Token("a", -0.1, (-0.1, -3.0, -5.0, -9.0))
    sampled = Token("z", -7.0, (-0.1, -3.0, -5.0, -7.0))  # the engine tells the chosen token beyond the best ones too
    assert [t.top for t in with_alternatives([best, sampled], 2)] == [(-0.1, -3.0), (-0.1, -3.0, -7.0)]
    assert token_scores(with_alternatives([best] * 3, 2)) == token_scores([Token("a", -0.1, (-0.1, -3.0))] * 3)
    forced = Token("a", 0.0, (0.0, -9999.0, -9999.0))
    assert with_alternatives([forced], 2)[0].forced
    plain = [best, Token("x", -1.0)]
    assert with_alternatives(plain, 4) is plain
