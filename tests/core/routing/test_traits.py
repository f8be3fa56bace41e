"""What a request asks for: its complexity, its task, its language, each by the documented words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.routing.traits.complexity import FACTORS, WEIGHTS, complexity
from spillway_router.core.routing.traits.conversation import MOST_CHARACTERS, Conversation, excerpt
from spillway_router.core.routing.traits.language import language
from spillway_router.core.routing.traits.reader import LONG_WORDS, TASKS, TraitReader
from spillway_router.core.routing.traits.words import KINDS, WORDS

READER = TraitReader()


@pytest.mark.parametrize(
    ("asked", "shape", "factors", "score"),
    [
        ("What is the capital of France?", {}, ("simple",), 0),
        ("Compare these two pension plans.", {}, ("analysis",), 2),
        ("Compare these two plans and come up with a better one.", {}, ("analysis", "creativity"), 4),
        ("Compare these two plans.", {"user_messages": 2}, ("multi_turn", "analysis"), 5),
        ("Compare these.", {"user_messages": 4, "words": LONG_WORDS}, ("multi_turn", "analysis", "length"), 6),
        ("My name is Ann. Evaluate my goals.", {}, ("analysis", "personal_data"), 3),
        ("Evaluate this.", {"has_personal_data": True}, ("analysis", "personal_data"), 3),
        ("Brainstorm slogans, for example like this: 'Just do it'", {}, ("creativity", "examples"), 1),
        ("I forgot my password", {"user_messages": 2}, ("multi_turn", "faq"), 1),
        ("I forgot my password, hello", {}, ("simple", "faq"), 0),
        ("", {}, (), 0),
    ],
)
def test_the_complexity_is_the_documented_sum(asked: str, shape: dict, factors: tuple[str, ...], score: int) -> None:
    traits = READER.traits(Conversation(asked, **shape))
    assert (traits.factors, traits.complexity) == (factors, score)


@given(st.sets(st.sampled_from(FACTORS)))
def test_the_complexity_lies_between_0_and_10(factors: set[str]) -> None:
    assert 0 <= complexity(factors) <= 10
    assert complexity(factors, dict.fromkeys(FACTORS, 10)) == min(10, 10 * len(factors))


def test_weights_words_and_the_length_come_from_the_configuration() -> None:
    reader = TraitReader(("en",), {"faq": ["vacation days"]}, {"faq": 4}, long_words=3)
    traits = reader.traits(Conversation("How many vacation days?", words=4))
    assert traits.factors == ("length", "simple", "faq")
    assert traits.complexity == WEIGHTS["length"] + WEIGHTS["simple"] + 4
    assert reader.traits(Conversation("Vergleiche das")).factors == ()  # German is not among its languages


@pytest.mark.parametrize(
    ("asked", "shape", "task"),
    [
        ("Write a python function that parses dates", {}, "code"),
        ("Why does it fail?\n```\nint main() {}\n```", {}, "code"),
        ("Translate this into German: good morning", {}, "translation"),
        ("Fasse den Text bitte zusammen", {}, "summary"),
        ("Extrae el nombre y la fecha", {}, "extraction"),
        ("The report follows.", {"wants_json": True}, "extraction"),
        ("Prove that there are infinitely many primes", {}, "reasoning"),
        ("Go on.", {"wants_reasoning": True}, "reasoning"),
        ("What do you see?", {"has_pictures": True}, "vision"),
        ("python", {"is_embedding": True}, "embeddings"),
        ("How are you today?", {}, "chat"),
        ("Our javanese guests are late", {}, "chat"),  # words count as a whole
    ],
)
def test_the_task(asked: str, shape: dict, task: str) -> None:
    assert READER.traits(Conversation(asked, **shape)).task == task


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What is the best way to do this for my team?", "en"),
        ("Wie kann ich das für den Kunden machen?", "de"),
        ("¿Cuál es la mejor manera de hacerlo para los clientes?", "es"),
        ("Quelle est la meilleure façon de faire cela pour les clients ?", "fr"),
        ("今日はいい天気ですね", "ja"),
        ("今天天气怎么样", "zh"),
        ("Как это сделать?", "ru"),
        ("def main(): pass", ""),
        ("", ""),
        ("12345 --- !!!", ""),
    ],
)
def test_the_language(text: str, code: str) -> None:
    assert language(text) == code


def test_a_long_message_is_looked_at_at_both_ends() -> None:
    text = "Translate this. " + "word " * 10_000 + "Thanks, and prove it."
    assert len(excerpt(text)) == MOST_CHARACTERS + 1
    traits = READER.traits(Conversation(excerpt(text)))
    assert traits.task == "translation"
    assert "simple" in traits.factors


@given(st.text(max_size=300))
def test_any_text_can_be_judged(text: str) -> None:
    traits = READER.traits(Conversation(text))
    assert traits.task in TASKS
    assert 0 <= traits.complexity <= 10


def test_unknown_languages_and_words_are_refused() -> None:
    with pytest.raises(ValueError, match="no words for the language 'xx'"):
        TraitReader(("xx",))
    with pytest.raises(ValueError, match="no factor or task is called 'sarcasm'"):
        TraitReader(("en",), {"sarcasm": ["yeah right"]})


def test_every_language_has_words_of_every_kind() -> None:
    for lists in WORDS.values():
        assert tuple(lists) == KINDS
        assert all(lists.values())
