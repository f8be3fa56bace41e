"""Reads the traits of a conversation: one search for all words, then the score and the task.

The task is the first of these that holds:

 1. embeddings   the endpoint says so
 2. vision       the prompt has pictures
 3. code         the message has a block of code, or words of programming
 4. translation, summary, extraction   words that ask for it; extraction also if a JSON schema is demanded
 5. reasoning    words that ask for it, or a demanded effort of reasoning
 6. chat         nothing of this
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from spillway_router.core.routing.traits.complexity import WEIGHTS, complexity
from spillway_router.core.routing.traits.conversation import Conversation, Task, Traits
from spillway_router.core.routing.traits.language import language
from spillway_router.core.routing.traits.learned import LEARNED, LearnedComplexity
from spillway_router.core.routing.traits.words import KINDS, WORDS

LONG_WORDS = 120
"""Words from which on a message is long."""
SEVERAL_MESSAGES = 2
TASKS: tuple[Task, ...] = get_args(Task)
_BY_WORDS: tuple[Task, ...] = ("translation", "summary", "extraction")
_FENCE = "```"


class TraitReader:
    """Judges conversations by the words of some languages, and by those that are added to them.

    A `learned` complexity takes the place of the sum of weights. Raises ValueError for a language without words, and
    for words of an unknown kind.
    """

    def __init__(
        self,
        languages: Sequence[str] = tuple(WORDS),
        more_words: Mapping[str, Iterable[str]] | None = None,
        weights: Mapping[str, int] = WEIGHTS,
        long_words: int = LONG_WORDS,
        learned: LearnedComplexity | None = None,
    ) -> None:
        more = more_words or {}
        for name in languages:
            if name not in WORDS:
                raise ValueError(f"there are no words for the language {name!r}; use {', '.join(WORDS)}")
        for kind in more:
            if kind not in KINDS:
                raise ValueError(f"no factor or task is called {kind!r}; use {', '.join(KINDS)}")
        self._weights = {**WEIGHTS, **weights}
        self._long_words = long_words
        self._learned = learned
        import re2  # only where a rule looks at texts

        options = re2.Options()
        options.case_sensitive = False
        self._set = re2.Set.SearchSet(options)
        for kind in KINDS:
            words = [*(word for name in languages for word in WORDS[name][kind]), *more.get(kind, ())]
            self._set.Add(_expression(words))
        self._set.Compile()

    def traits(self, conversation: Conversation) -> Traits:
        """Return the judgement on a conversation."""
        kinds = frozenset([KINDS[index] for index in self._set.Match(conversation.asked) or ()])
        factors = self._factors(conversation, kinds)
        learned = self._learned
        return Traits(
            task=_task(conversation, kinds),
            complexity=complexity(factors, self._weights)
            if learned is None
            else learned.complexity(conversation, factors),
            factors=factors if learned is None else (LEARNED, *factors),
            language=language(conversation.asked),
        )

    def _factors(self, conversation: Conversation, kinds: frozenset[str]) -> tuple[str, ...]:
        holds = {
            "multi_turn": conversation.user_messages >= SEVERAL_MESSAGES,
            "personal_data": conversation.has_personal_data or "personal_data" in kinds,
            "length": conversation.words >= self._long_words,
        }
        return tuple([factor for factor in WEIGHTS if holds.get(factor, factor in kinds)])


def _task(conversation: Conversation, kinds: frozenset[str]) -> Task:
    if conversation.is_embedding:  # 1
        return "embeddings"
    if conversation.has_pictures:  # 2
        return "vision"
    if "code" in kinds or _FENCE in conversation.asked:  # 3
        return "code"
    for task in _BY_WORDS:  # 4
        if task in kinds:
            return task
    if conversation.wants_json:
        return "extraction"
    if "reasoning" in kinds or conversation.wants_reasoning:  # 5
        return "reasoning"
    return "chat"  # 6


def _expression(words: Iterable[str]) -> str:
    """Return an expression that finds any of the words, each as a whole.

    A `*` at the end of a word stands for any ending, one between words for up to four others.
    """
    alternatives = "|".join(_one(word.strip()) for word in words if word.strip())
    return rf"(?:^|[^\pL\pN])(?:{alternatives})(?:$|[^\pL\pN])" if alternatives else r"[^\s\S]"


def _one(word: str) -> str:
    escaped = r"\s+".join(re.escape(part) if part != "*" else r"\S+(?:\s+\S+){0,3}" for part in word.split())
    return escaped.removesuffix(r"\*") + r"\pL*" if escaped.endswith(r"\*") else escaped
