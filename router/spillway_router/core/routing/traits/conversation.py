"""What is looked at of a request to judge it, and the judgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["chat", "code", "extraction", "summary", "translation", "reasoning", "vision", "embeddings"]

MOST_CHARACTERS = 3_200
"""Characters of the last message that are looked at, half of them from its beginning and half from its end. People say
what they want at one of the two, and a judgement has 50 us: 4,000 characters of Japanese take 51 us, of English 20."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """The shape of a conversation and what its last message asks. It exists while a request is read, not after."""

    asked: str
    """The user's last message, `MOST_CHARACTERS` of it at most."""
    words: int = 0
    """Words of the user's last message, all of it."""
    user_messages: int = 1
    is_embedding: bool = False
    has_pictures: bool = False
    wants_json: bool = False
    """Whether the answer must follow a JSON schema."""
    wants_reasoning: bool = False
    """Whether the request sets an effort of reasoning."""
    has_personal_data: bool = False
    """Whether a privacy detector found something."""


@dataclass(frozen=True, slots=True)
class Traits:
    """The judgement on a request: values and the names of factors, none of its text."""

    task: Task
    complexity: int
    """0 (trivial) to 10."""
    factors: tuple[str, ...]
    """What the complexity is the sum of (complexity.py); after "learned", where a fitted file says it (learned.py)."""
    language: str
    """ISO 639-1 code of the language, "" if it is not known."""


def excerpt(text: str) -> str:
    """Return what is looked at of a message."""
    half = MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]} {text[-half:]}"
