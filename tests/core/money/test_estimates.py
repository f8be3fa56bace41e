"""Estimates of answers whose usage nobody told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.money.estimates import OutputCount, OutputHabit, UntoldCall, estimated_usage
from spillway_router.core.money.tariff import Usage


def counted(*texts: str) -> OutputCount:
    count = OutputCount()
    for text in texts:
        count.add(text)
    return count


def streamed(tokens: int, *, token: str = "abcd", per_event: int = 1) -> OutputCount:
    return counted(*[token * per_event] * (tokens // per_event))


def trained(*answers: tuple[OutputCount, Usage]) -> OutputHabit:
    habit = OutputHabit()
    for count, usage in answers:
        habit.learn(count, usage)
    return habit


def output(call: UntoldCall, habit: OutputHabit | None = None) -> int:
    return estimated_usage(call, habit or OutputHabit()).completion_tokens


def test_an_event_is_a_token_until_something_else_is_known() -> None:
    assert output(UntoldCall(10, 1000, count=streamed(40, token="ab"))) == 40


def test_several_tokens_in_an_event_are_counted_by_their_text() -> None:
    assert output(UntoldCall(10, 1000, count=streamed(40, per_event=8))) == 40


def test_whole_answers_teach_the_tokens_of_a_byte() -> None:
    """Text of two bytes per token, in events of ten tokens."""
    whole = streamed(200, token="ab", per_event=10)
    habit = trained(*[(whole, Usage(10, 200))] * 30)
    assert output(UntoldCall(10, 1000, count=streamed(60, token="ab", per_event=10)), habit) == pytest.approx(60, abs=3)


def test_events_count_where_they_tell_the_tokens_better_than_the_text() -> None:
    """One token per event, but words of very different lengths: another language comes, and the events are right."""
    habit = trained(
        *[(counted(*[letters * length] * 50), Usage(10, 50)) for letters in "ab" for length in (2, 9, 4, 7, 3)] * 3
    )
    assert output(UntoldCall(10, 1000, count=counted(*["x" * 30] * 20)), habit) == pytest.approx(20, abs=1)


def test_characters_of_several_bytes_count_their_bytes() -> None:
    count = counted("ä", "中", "\ud83d")
    assert count.text_bytes == 2 + 3 + 3


def test_hidden_reasoning_is_added_as_it_usually_is() -> None:
    habit = trained(*[(streamed(100), Usage(10, 600, reasoning_tokens=500))] * 60)
    estimate = estimated_usage(UntoldCall(10, 5000, count=streamed(20)), habit)
    assert estimate.completion_tokens == pytest.approx(520, abs=15)
    assert estimate.reasoning_tokens == pytest.approx(500, abs=15)


def test_reasoning_that_the_stream_shows_is_not_added_again() -> None:
    thought = streamed(100)
    thought.has_reasoning = True
    habit = trained(*[(thought, Usage(10, 100, reasoning_tokens=80))] * 60)
    assert output(UntoldCall(10, 5000, count=streamed(20)), habit) == pytest.approx(20, abs=1)


def test_before_the_first_word_hidden_reasoning_grows_with_the_time() -> None:
    habit = trained(*[(streamed(100), Usage(10, 600, reasoning_tokens=500))] * 60)
    half = UntoldCall(10, 5000, count=OutputCount(), waited_s=4.0, usual_first_s=8.0)
    assert output(half, habit) == pytest.approx(250, abs=10)


def test_an_answer_that_goes_on_counts_as_long_as_the_usual_one() -> None:
    habit = trained(*[(streamed(400), Usage(10, 400))] * 60)
    assert output(UntoldCall(10, 5000, count=streamed(20), goes_on=True), habit) == pytest.approx(400, abs=6)
    assert output(UntoldCall(10, 5000, count=streamed(900), goes_on=True), habit) == pytest.approx(900, abs=9)
    assert output(UntoldCall(10, 5000, unseen=True), habit) == pytest.approx(400, abs=6)


def test_tools_that_the_provider_ran_are_counted_and_read_the_prompt_again() -> None:
    count = streamed(20)
    count.add_call("web_search")
    count.add_call("web_search")
    estimate = estimated_usage(UntoldCall(100, 5000, count=count), OutputHabit())
    assert (estimate.prompt_tokens, estimate.calls) == (300, (("web_search", 2),))


def test_what_was_told_of_the_prompt_counts() -> None:
    so_far = Usage(1000, 1, cached_tokens=900, cache_write_tokens=50)
    estimate = estimated_usage(UntoldCall(10, 5000, told=so_far, count=streamed(20)), OutputHabit())
    assert estimate == Usage(1000, 20, cached_tokens=900, cache_write_tokens=50)


counts = st.lists(st.text(max_size=40), max_size=30).map(lambda texts: counted(*texts))
usages = st.builds(
    Usage, st.integers(0, 10**5), st.integers(0, 10**5), st.integers(0, 10**5), st.integers(0, 10**5)
)  # fmt: skip


@given(st.lists(st.tuples(counts, usages), max_size=20), st.none() | usages, st.none() | counts, st.integers(0, 10**6))
def test_no_estimate_is_below_what_was_told_or_above_what_is_permitted(
    past: list[tuple[OutputCount, Usage]], so_far: Usage | None, count: OutputCount | None, most: int
) -> None:
    call = UntoldCall(7, most, told=so_far, count=count, goes_on=True, unseen=True, waited_s=1.0)
    estimate = estimated_usage(call, trained(*past))
    least = 0 if so_far is None else so_far.completion_tokens
    assert least <= estimate.completion_tokens <= max(most, least)
    assert estimate.reasoning_tokens >= 0
    assert estimate.prompt_tokens >= (7 if so_far is None else so_far.prompt_tokens)
