"""Which stored answers belong to similar questions: an index in the router's own memory, over the keys of the cache.

It holds vectors and keys, no answers. Those are wherever the cache stores them, so that an answer which has expired or
was forgotten there is not found here either.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import nsmallest

from spillway_router.core.caching.key import Neighbourhood
from spillway_router.core.caching.vectors import Vector

MOST_TOGETHER = 1024
"""Vectors with one key: a search looks at them all."""
MOST_BYTES = 32 * 1024 * 1024
"""Of all vectors."""
ENTRY_BYTES = 512
"""What an entry takes besides its numbers, with room to spare."""
COMPARED = 8
"""Vectors that are compared exactly: those whose signs differ least. Comparing signs takes a hundredth of the time."""


class Neighbours:
    """Vectors by the key of their neighbourhood. When there is no room, what was added first goes."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._together: dict[bytes, dict[bytes, Vector]] = {}
        self._by_age: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._by_age)

    def add(self, place: Neighbourhood, answer_key: bytes) -> None:
        """Add the question of a stored answer, in place of an earlier one with the same key of an answer."""
        self.forget(place.key, answer_key)
        together = self._together.setdefault(place.key, {})
        if len(together) >= MOST_TOGETHER:
            self.forget(place.key, next(iter(together)))
        self._together.setdefault(place.key, together)[answer_key] = place.vector
        self._by_age[place.key, answer_key] = None
        self.size_bytes += place.vector.size_bytes + ENTRY_BYTES
        while self.size_bytes > self._most_bytes:
            self.forget(*next(iter(self._by_age)))

    def nearest(self, place: Neighbourhood, threshold: float) -> tuple[bytes, float] | None:
        """Return the key of the answer to the most similar question and the similarity; None if there is none of at
        least `threshold`."""
        together = self._together.get(place.key)
        if not together:
            return None
        signs = place.vector.signs
        closest = nsmallest(COMPARED, together.items(), key=lambda item: (item[1].signs ^ signs).bit_count())
        similarity, key = max((vector.cosine(place.vector), key) for key, vector in closest)
        return (key, similarity) if similarity >= threshold else None

    def forget(self, key: bytes, answer_key: bytes) -> None:
        """Forget one question, if it is there."""
        together = self._together.get(key, {})
        vector = together.pop(answer_key, None)
        if vector is None:
            return
        if not together:
            del self._together[key]
        del self._by_age[key, answer_key]
        self.size_bytes -= vector.size_bytes + ENTRY_BYTES
