"""Idempotency keys (`idempotency-key`): a request that is sent twice is worked on, and paid, once.

The store knows of each key with which body it came, whether that request is in progress, and what its reply was. A key
that comes with another body is a conflict. What a repeated key gets is up to its endpoint: a 409, the stored reply, or
the reply of the request in progress. A failure releases its key, so that a client may retry.

Keys live in this process only, within bounds: behind several routers, send a client's retries to the same one. The
store is pure: it has no clock and does no I/O. All times are monotonic seconds.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from spillway_router.core.routing.model import Refusal

HEADER = "idempotency-key"
MAX_KEY_CHARS = 256

CallerKey = tuple[str, str]
"""Id of the API key, and the idempotency key that its user chose: callers never share a key."""
Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class KeyRetention:
    """How long, and within which bounds, keys and replies of finished requests are remembered.

    `delivered_s` counts from the end of a request whose reply somebody received, `undelivered_s` (not shorter) from the
    end of one whose reply nobody received yet. Beyond `max_reply_bytes` the oldest replies of the caller who has most
    bytes are dropped, with `key_outlives_reply` only the reply and otherwise the key too. Beyond `max_keys` the oldest
    finished keys of the caller who has most of them are dropped, so that nobody pushes out those of others; a key in
    progress is never dropped, and the endpoint limits how many of those there are.
    """

    delivered_s: float
    undelivered_s: float
    key_outlives_reply: bool
    max_keys: int = 20_000
    max_reply_bytes: int = 64 * 1024 * 1024


INFERENCE = KeyRetention(600.0, 600.0, key_outlives_reply=True)
"""An inference request is cancelled when its client leaves, so every stored reply was delivered."""
DOCUMENTS = KeyRetention(600.0, 86_400.0, key_outlives_reply=False)
"""An extraction continues when its client leaves: somebody will come back for what may have been paid already."""


@dataclass(slots=True)
class KeyUse(Generic[Reply]):
    """The request that uses a key. `ended_s` is None while it is in progress, `reply` None unless it is stored."""

    body_digest: bytes
    request_id: str
    ended_s: float | None = None
    reply: Reply | None = None
    reply_bytes: int = 0
    delivered: bool = False


@dataclass(frozen=True, slots=True)
class KeyLookup(Generic[Reply]):
    """A key's use. `repeated`: the same request used the key before; otherwise the use is new and must be ended."""

    use: KeyUse[Reply]
    repeated: bool


def key_flaw(key: str) -> Refusal | None:
    """Return a 400 unless the key has a valid length."""
    if 0 < len(key) <= MAX_KEY_CHARS:
        return None
    return Refusal(400, "invalid_request", f"{HEADER} must have 1 to {MAX_KEY_CHARS} characters.", HEADER)


def conflict(problem: str) -> Refusal:
    """Return a 409; `problem` continues the sentence "This idempotency-key"."""
    return Refusal(409, "idempotency_conflict", f"This {HEADER} {problem}", HEADER)


class _Kept(Generic[Reply]):
    """Uses in the order in which they ended, of all callers and of each. `weigh` returns what a use counts."""

    def __init__(self, weigh: Callable[[KeyUse[Reply]], int]) -> None:
        self._weigh = weigh
        self.uses: OrderedDict[CallerKey, KeyUse[Reply]] = OrderedDict()
        self.weight = 0
        self._of_caller: dict[str, OrderedDict[CallerKey, None]] = {}
        self._weights: Counter[str] = Counter()

    def add(self, key: CallerKey, use: KeyUse[Reply]) -> None:
        """Add the use that ended last."""
        weight = self._weigh(use)
        self.uses[key] = use
        self._of_caller.setdefault(key[0], OrderedDict())[key] = None
        self._weights[key[0]] += weight
        self.weight += weight

    def pop(self, key: CallerKey) -> KeyUse[Reply]:
        """Take out a use."""
        use, caller = self.uses.pop(key), key[0]
        weight = self._weigh(use)
        self.weight -= weight
        self._weights[caller] -= weight
        own = self._of_caller[caller]
        del own[key]
        if not own:
            del self._of_caller[caller], self._weights[caller]
        return use

    def oldest_of_greatest(self) -> CallerKey:
        """Return the oldest key of the caller whose uses count most."""
        greatest = max(self._weights, key=self._weights.__getitem__)
        return next(iter(self._of_caller[greatest]))


class IdempotencyKeys(Generic[Reply]):
    """The keys of one endpoint or of several; see the module docstring."""

    def __init__(self, retention: KeyRetention) -> None:
        self._retention = retention
        self._in_progress: dict[CallerKey, KeyUse[Reply]] = {}
        self._finished: _Kept[Reply] = _Kept(lambda _: 1)
        self._stored: _Kept[Reply] = _Kept(lambda use: use.reply_bytes)
        """The finished ones that have a reply."""

    def begin(
        self, key: CallerKey, body_digest: bytes, request_id: str, monotonic_s: float
    ) -> KeyLookup[Reply] | Refusal:
        """Look a key up, and take it if it is free. Return a 409 if it came with another body before."""
        self._forget(monotonic_s)
        use = self._in_progress.get(key) or self._finished.uses.get(key)
        if use is None:
            use = self._in_progress[key] = KeyUse(body_digest, request_id)
            return KeyLookup(use, repeated=False)
        if use.body_digest != body_digest:
            return conflict(f"came with another body before ({use.request_id}). Use a new key for a new request.")
        return KeyLookup(use, repeated=True)

    def finish(self, key: CallerKey, reply: Reply | None, reply_bytes: int, monotonic_s: float) -> None:
        """Record that the request in progress was answered. `reply` None: the reply is not to be stored."""
        use = self._in_progress.pop(key)
        use.ended_s = monotonic_s
        self._finished.add(key, use)
        if reply is not None:
            use.reply, use.reply_bytes = reply, reply_bytes
            self._stored.add(key, use)
        self._forget(monotonic_s)

    def release(self, key: CallerKey) -> None:
        """Free the key of a request in progress that failed."""
        del self._in_progress[key]

    def _forget(self, monotonic_s: float) -> None:
        """Drop what is too old or beyond the bounds."""
        retention = self._retention
        for key in self._expired(monotonic_s):
            self._drop(key)
        while self._stored.weight > retention.max_reply_bytes:
            oldest = self._stored.oldest_of_greatest()
            if retention.key_outlives_reply:
                self._drop_reply(oldest)
            else:
                self._drop(oldest)
        while self._finished.uses and len(self._in_progress) + self._finished.weight > retention.max_keys:
            self._drop(self._finished.oldest_of_greatest())

    def _expired(self, monotonic_s: float) -> list[CallerKey]:
        expired: list[CallerKey] = []
        for key, use in self._finished.uses.items():
            age_s = monotonic_s - (use.ended_s or 0.0)
            if age_s <= self._retention.delivered_s:
                break  # those that follow ended later
            if use.delivered or age_s > self._retention.undelivered_s:
                expired.append(key)
        return expired

    def _drop(self, key: CallerKey) -> None:
        if key in self._stored.uses:
            self._drop_reply(key)
        self._finished.pop(key)

    def _drop_reply(self, key: CallerKey) -> None:
        self._stored.pop(key).reply = None
