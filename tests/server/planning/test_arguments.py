"""vLLM flags as data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_server.planning.arguments import Flag, StrayWord, integer, merge, parse, value_of


def flags(*words: str) -> tuple[Flag, ...]:
    parsed = parse(words)
    assert not isinstance(parsed, str)
    return parsed


def test_spellings_of_one_flag() -> None:
    for words in (("--max-model-len", "8"), ("--max_model_len", "8"), ("--max-model-len=8",)):
        assert value_of(flags(*words), "--max-model-len") == "8"
    assert value_of(flags("-tp", "2"), "--tensor-parallel-size") == "2"


def test_negative_numbers_are_values() -> None:
    assert value_of(flags("--max-logprobs", "-1"), "--max-logprobs") == "-1"


def test_a_word_without_a_flag_is_named() -> None:
    assert parse(("oops", "--a")) == StrayWord("oops")


def test_the_last_of_a_name_wins() -> None:
    planned = (Flag("--seed", ("1",)), Flag("--dtype", ("half",)))
    assert merge(planned, flags("--seed", "2", "--seed=3")) == ("--dtype", "half", "--seed=3")


@pytest.mark.parametrize(("text", "number"), [("8192", 8192), ("8k", 8000), ("8K", 8192), ("1.5m", 1_500_000)])
def test_counts(text: str, number: int) -> None:
    assert integer(text) == number


@pytest.mark.parametrize("text", ["", "k", "8x", "many"])
def test_bad_counts(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        integer(text)


NAMES = st.sampled_from(["--alpha", "--beta", "--gamma-delta", "--no-alpha"])
VALUES = st.lists(st.sampled_from(["1", "x", "-2"]), max_size=2).map(tuple)
FLAGS = st.lists(st.builds(Flag, NAMES, VALUES), max_size=6).map(tuple)


@given(FLAGS, FLAGS)
def test_merged_line_says_each_thing_once_and_keeps_the_users(
    planned: tuple[Flag, ...], requested: tuple[Flag, ...]
) -> None:
    line = flags(*merge(planned[:1], requested))
    names = [flag.name.replace("--no-", "--") for flag in line]
    assert len(names) == len(set(names))
    for flag in requested:
        last = next(f for f in reversed(requested) if f.name.replace("--no-", "--") == flag.name.replace("--no-", "--"))
        assert Flag(last.name, last.values) in [Flag(f.name, f.values) for f in line]
