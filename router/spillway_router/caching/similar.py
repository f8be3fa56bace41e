"""The questions of stored answers, and whether their embedder may be asked now.

An embedder that failed or took too long is left alone for a moment, so that an outage delays one request in a second.
The log hears of an outage once, and of its end.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from spillway_router.caching.neighbours import Neighbours
from spillway_router.core.caching.rules import SemanticRules
from spillway_router.core.caching.vectors import Vector

log = logging.getLogger("spillway.cache")

PAUSE_S = 1.0
"""How long an embedder that failed is left alone."""
MOST_AT_ONCE = 32
"""Questions that are embedded at a time; further ones are misses."""


class NoVectorError(Exception):
    """The embedder gave no vector. The message says why."""


class TextRefusedError(NoVectorError):
    """The embedder refuses this text, as one that is too long for it, and may well embed others."""


class SimilarQuestions:
    """An index of questions, and the state of the backend that embeds them. `clock` is monotonic seconds."""

    def __init__(self, rules: SemanticRules, clock: Callable[[], float]) -> None:
        self.rules = rules
        self.index = Neighbours()
        self._clock = clock
        self._at_once = 0
        self._away_until = 0.0
        self._is_away = False

    async def vector(self, embedding: Callable[[], Awaitable[Vector]]) -> Vector | None:
        """Return what `embedding` gives, which raises NoVectorError; None while too many are asked for, or if it gives
        none."""
        if self._at_once >= MOST_AT_ONCE or self._clock() < self._away_until:
            return None
        self._at_once += 1
        try:
            vector = await embedding()
        except TextRefusedError:
            return None
        except NoVectorError as error:
            self._failed(error)
            return None
        finally:
            self._at_once -= 1
        if self._is_away:
            self._is_away = False
            log.warning("%s embeds questions for the cache again", self.rules.embedder)
        return vector

    def _failed(self, error: Exception) -> None:
        self._away_until = self._clock() + PAUSE_S
        if not self._is_away:
            self._is_away = True
            log.warning("%s embeds no questions, so that similar ones are misses: %s", self.rules.embedder, error)
