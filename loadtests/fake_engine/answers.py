"""What the fake engine answers: the text of a corpus for a known document, otherwise as many words as it may write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.fake_cloud.corpus import look_up, pieces

DEFAULT_TOKENS = 128
TEMPLATE_TOKENS = 8
"""Tokens that the chat template adds to a prompt."""
_WORDS = tuple(pieces(" the eye was measured twice and both values agree within a tenth of a unit so the report holds"))


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """The tokens of one answer, and its finish reason (`stop` or `length`)."""

    tokens: Sequence[str]
    finish: str


def answer(corpus: Mapping[str, str], message: str, max_tokens: int | None) -> EngineAnswer:
    """Return the answer to a user message with at most `max_tokens` tokens (None: no limit)."""
    entry = look_up(corpus, message)
    if entry.known:
        tokens = pieces(entry.answer)
        return EngineAnswer(
            tokens[:max_tokens], "stop" if max_tokens is None or len(tokens) <= max_tokens else "length"
        )
    count = DEFAULT_TOKENS if max_tokens is None else max_tokens
    words = [_WORDS[index % len(_WORDS)] for index in range(count)]
    return EngineAnswer(words, "stop" if max_tokens is None else "length")


def count_tokens(text: str) -> int:
    """Return how many tokens this engine cuts a text into."""
    return len(pieces(text))
