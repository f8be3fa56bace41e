"""Bodies that a backend answered with a failure, so that one request which always fails is not blamed on its backend.

Only digests are kept. A body is hashed after it failed, or if one of its length did: ordinary requests cost nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

KEPT_S: Final = 60.0
"""How long after its latest failure a body is remembered."""
MOST_FAILURES: Final = 6
"""Failures after which a body is not sent to the backend again, if others succeeded there meanwhile. A client that
retries twice, and a router that retries each of these once, may use up all of them."""
MOST_ENTRIES: Final = 4096
"""When they are reached, the oldest entry is dropped."""

BodyId = tuple[int, bytes]
"""Length and digest of a body."""
_Key = tuple[str, int, bytes]
"""Backend, length and digest."""


@dataclass(slots=True)
class _Failures:
    first_at: float
    latest_at: float
    count: int = 1


class FailingBodies:
    """The failures by backend and body. Times are monotonic seconds."""

    __slots__ = ("_failures", "_lengths")

    def __init__(self) -> None:
        self._failures: dict[_Key, _Failures] = {}
        self._lengths: dict[int, int] = {}
        """How many entries have bodies of each length."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing failed lately."""
        return not self._failures

    def __len__(self) -> int:
        return len(self._failures)

    def may_hold(self, length: int) -> bool:
        """Return whether a body of this length failed lately: if none did, a body of it need not be hashed."""
        return length in self._lengths

    def note(self, backend: str, body: BodyId, monotonic_s: float) -> None:
        """Remember that the backend failed on this body."""
        length, digest = body
        key = (backend, length, digest)
        entry = self._failures.pop(key, None)
        if entry is None or entry.latest_at + KEPT_S < monotonic_s:
            if entry is None:
                self._lengths[length] = self._lengths.get(length, 0) + 1
            self._failures[key] = _Failures(monotonic_s, monotonic_s)
        else:
            entry.count += 1
            entry.latest_at = monotonic_s
            self._failures[key] = entry
        self._drop_old(monotonic_s)

    def failed_before_at(self, backend: str, body: BodyId, monotonic_s: float) -> float:
        """Return when the backend first failed on this body; infinity if it did not lately."""
        entry = self._entry(backend, body, monotonic_s)
        return math.inf if entry is None else entry.first_at

    def is_hopeless(self, backend: str, body: BodyId, last_ok_at: float, monotonic_s: float) -> bool:
        """Return whether the backend failed on this body again and again, and succeeded on another one since."""
        entry = self._entry(backend, body, monotonic_s)
        return entry is not None and entry.count >= MOST_FAILURES and entry.first_at < last_ok_at

    def succeeded(self, backend: str, body: BodyId) -> None:
        """Forget the failures of this body: it was not at fault."""
        self._remove((backend, *body))

    def _entry(self, backend: str, body: BodyId, monotonic_s: float) -> _Failures | None:
        entry = self._failures.get((backend, *body))
        return None if entry is None or entry.latest_at + KEPT_S < monotonic_s else entry

    def _drop_old(self, monotonic_s: float) -> None:
        """Drop what is too old or too much; the entries stand in the order of their latest failures."""
        while self._failures:
            key = next(iter(self._failures))
            if len(self._failures) <= MOST_ENTRIES and self._failures[key].latest_at + KEPT_S >= monotonic_s:
                return
            self._remove(key)

    def _remove(self, key: _Key) -> None:
        if self._failures.pop(key, None) is None:
            return
        left = self._lengths[key[1]] - 1
        if left:
            self._lengths[key[1]] = left
        else:
            del self._lengths[key[1]]
