"""The marks that two wordings of one question must share, and the questions that may be compared at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.caching.marks import marks_of, scripts_of
from spillway_router.core.caching.question import MOST_BYTES, question_of

NAMES = st.sampled_from(("Rome", "Milan", "Anna", "iPhone", "PDF", "Österreich"))
NUMBERS = st.from_regex(r"[0-9]{1,4}([.,:][0-9]{1,2})?", fullmatch=True)
WORDS = st.lists(st.sampled_from(("train", "invoice", "printer", "quickly", "das", "konto")), max_size=4).map(" ".join)
LATIN = frozenset({"LATIN"})


@given(NUMBERS, NUMBERS, WORDS, WORDS)
def test_texts_with_other_numerals_never_agree(one: str, other: str, before: str, after: str) -> None:
    texts = [f"what {before} {number} {after}?" for number in (one, other)]
    assert (marks_of(texts[0]) == marks_of(texts[1])) == (one == other)


@given(NAMES, NAMES, WORDS)
def test_names_and_quotations_count_in_their_order(one: str, other: str, between: str) -> None:
    for form in ("how far from {} {} to {}?", "is „{}“ {} like „{}“?", "does '{}' {} mean \"{}\""):
        there, back = form.format(one, between, other), form.format(other, between, one)
        assert (marks_of(there) == marks_of(back)) == (one == other)


@given(
    st.sampled_from(("not", "never", "isn't", "isn’t", "nicht", "keine", "ohne", "off", "before", "weniger")),
    WORDS,
    WORDS,
)
def test_a_negation_or_a_turn_in_one_text_alone_separates(word: str, before: str, after: str) -> None:
    assert marks_of(f"which {before} {word} {after}?") != marks_of(f"which {before} {after}?")


@given(st.text(max_size=80), st.sampled_from(("", " ", "\n", "  \t")))
def test_marks_are_the_same_with_more_space_around(text: str, space: str) -> None:
    assert marks_of(f"{space}{text}{space}") == marks_of(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset my password?", "What is the way to reset my password"),
        ("Please list the sights of Rome.", "What are the sights of Rome?"),
        ("Is Anna's train late?", "is the train of Anna late"),
        ("Wie lange dauert der Flug nach Rom?", "Bitte sag mir, wie lange der Flug nach Rom dauert."),
    ],
)
def test_wordings_of_one_question_agree(one: str, other: str) -> None:
    assert marks_of(one) == marks_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Convert 5 km to miles", "Convert 5 miles to km"),
        ("Is a < b?", "Is a > b?"),
        ("Paris weather today?", "Rome weather today?"),
        ("turn the heating on", "turn the heating off"),
        ("the largest lake", "the smallest lake"),
        ("Wie kann ich die Tür öffnen?", "Wie kann ich die Tür schließen?"),
    ],
)
def test_near_misses_do_not_agree(one: str, other: str) -> None:
    assert marks_of(one) != marks_of(other)


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": list(messages), **fields}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_the_frame_is_everything_but_the_question() -> None:
    system = {"role": "system", "content": "Be short."}
    one = question_of("chat", chat(system, user("What is it?"), seed=1), LATIN)
    part = question_of("chat", chat(system, user([{"type": "text", "text": "What is it?"}]), seed=1), LATIN)
    assert one is not None
    assert one == part
    assert one.text == "What is it?"
    assert one.frame == {"model": "auto", "messages": [system, {"role": "user"}], "seed": 1}
    said = question_of("responses", {"input": "What is it?", "instructions": "x"}, LATIN)
    assert said is not None
    assert said.frame == {"input": "", "instructions": "x"}


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("chat", chat(user("a"), {"role": "assistant", "content": "b"}, user("c"))),
        ("chat", chat(user("a"), user("b"))),
        ("chat", chat(user("a"), tools=[{"type": "function"}])),
        ("chat", chat(user([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]))),
        ("chat", chat(user("x" * (MOST_BYTES + 1)))),
        ("chat", chat(user(" "))),
        ("chat", chat(user("Что это?"))),
        ("chat", chat()),
        ("chat", {"messages": "no list"}),
        ("responses", {"input": [user("a")]}),
        ("completions", {"prompt": "a"}),
        ("embeddings", {"input": "a"}),
    ],
)
def test_other_requests_have_no_question(endpoint: Any, body: dict[str, Any]) -> None:
    assert question_of(endpoint, body, LATIN) is None


def test_scripts_are_those_of_letters() -> None:
    assert scripts_of("Ist das 1 мир? 你") == {"LATIN", "CYRILLIC", "CJK"}
