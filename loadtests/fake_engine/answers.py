"""What the fake engine says: the answer of a corpus for what it knows, otherwise as many words as it may write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.fake_cloud.corpus import look_up, pieces

DEFAULT_TOKENS = 128
_WORDS = tuple(pieces(" the eye was measured twice and both values agree within a tenth of a unit so the report holds"))


@dataclass(frozen=True, slots=True)
class Answer:
    """The tokens of one answer, and why it ends (`stop` or `length`)."""

    tokens: Sequence[str]
    finish: str


def answer(corpus: Mapping[str, str], message: str, most: int | None) -> Answer:
    """The answer to a user message of at most `most` tokens (None: no limit was named)."""
    found = look_up(corpus, message)
    if found.known:
        tokens = pieces(found.answer)
        return Answer(tokens[:most], "stop" if most is None or len(tokens) <= most else "length")
    count = DEFAULT_TOKENS if most is None else most
    return Answer([_WORDS[i % len(_WORDS)] for i in range(count)], "stop" if most is None else "length")


def count(text: str) -> int:
    """Tokens of a text, as this engine cuts."""
    return len(pieces(text))
