"""A stored answer and its bytes: a line of JSON about it, then the answer as its client got it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from spillway_router.core.caching.key import VERSION

_ABOUT = {
    "made_ms": int,
    "request_id": str,
    "backend": str,
    "model": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "cached_tokens": int,
    "reasoning_tokens": int,
    "cost_nano": int,
    "usage_added": bool,
    "tail_bytes": int,
}


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A complete answer of status 200 that a client got.

    `made_ms` is when, in epoch milliseconds, and `request_id` the request that it was made for. `backend` and `model`
    gave it, for `cost_nano` nano-dollars, which is what all attempts of that request cost. `body` is a whole answer, or
    the events of a stream, whose `tail` has the events that were held for the ledger row. `usage_added`: the usage in
    the tail was asked for by the router alone.
    """

    made_ms: int
    request_id: str
    backend: str
    model: str
    confidence: float | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_nano: int
    body: bytes
    tail: bytes = b""
    usage_added: bool = False


def to_bytes(answer: StoredAnswer) -> bytes:
    """Return the bytes by which an answer is stored."""
    about = asdict(answer)
    body, tail = about.pop("body"), about.pop("tail")
    return b"".join((orjson.dumps({**about, "version": VERSION, "tail_bytes": len(tail)}), b"\n", body, tail))


def from_bytes(data: bytes) -> StoredAnswer | None:
    """Return the answer that is stored as these bytes; None if they are none of `to_bytes`, or of another version."""
    line, _, rest = data.partition(b"\n")
    try:
        about = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(about, dict) or about.pop("version", None) != VERSION or not _is_right(about, len(rest)):
        return None
    split = len(rest) - about.pop("tail_bytes")
    return StoredAnswer(**about, body=rest[:split], tail=rest[split:])


def _is_right(about: dict[str, Any], rest_bytes: int) -> bool:
    if about.keys() != {*_ABOUT, "confidence"} or not isinstance(about["confidence"], float | None):
        return False
    if any(type(about[name]) is not kind for name, kind in _ABOUT.items()):
        return False
    return all(about[name] >= 0 for name, kind in _ABOUT.items() if kind is int) and about["tail_bytes"] <= rest_bytes
