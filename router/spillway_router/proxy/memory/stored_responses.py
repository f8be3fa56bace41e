"""Which backend made a response of /v1/responses, and for whose key: bounded, in this process only.

A response that a provider stores can be read, deleted or followed (`previous_response_id`) at that provider's account
only, and by nobody but the key that it was made for.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MOST_RESPONSES = 20_000
LONGEST_ID = 200
"""Characters of an id that is remembered. OpenAI's have about 60."""
KEPT_S = 30 * 24 * 3600.0
"""OpenAI stores a response for 30 days."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """Where a response is stored. `made_s` is monotonic seconds."""

    key_id: str
    backend: str
    made_s: float


class StoredResponses:
    """The newest responses by id."""

    __slots__ = ("_by_id",)

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, StoredResponse] = OrderedDict()

    def add(self, response_id: str, stored: StoredResponse) -> None:
        """Remember a response; the oldest one is forgotten when there are too many."""
        if not response_id or len(response_id) > LONGEST_ID:
            return
        self._by_id[response_id] = stored
        self._by_id.move_to_end(response_id)
        if len(self._by_id) > MOST_RESPONSES:
            self._by_id.popitem(last=False)

    def get(self, response_id: str, monotonic_s: float) -> StoredResponse | None:
        """Return where a response is stored; None if that is not known."""
        stored = self._by_id.get(response_id)
        return None if stored is None or monotonic_s - stored.made_s > KEPT_S else stored

    def forget(self, response_id: str) -> None:
        """Forget a response that was deleted."""
        self._by_id.pop(response_id, None)
