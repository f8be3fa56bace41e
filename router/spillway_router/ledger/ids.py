"""Ids of requests, reviews and rentals. Request ids can't be guessed and sort by time.

    req_ + 11 hex digits of the epoch milliseconds + 17 hex digits (68 bits) of the system's randomness

The index of request ids is a B-tree. Ids that begin with the time land on its last pages. Random ids would each touch
another page, and a commit writes every page it touched, which would be most of the cost of a durable row.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

_TIME = 11
_HEX = frozenset("0123456789abcdef")
_RANDOM = 17
_POOL = 340


def request_ids(wall: Callable[[], float], prefix: str = "req_") -> Iterator[str]:
    """Yield new ids for ever. `wall` returns epoch seconds. Reviews use such ids too, with the prefix rev_.

    The randomness is drawn 340 ids at a time, because each draw is a system call.
    """
    latest_ms, beginning = -1, ""
    while True:
        pool = secrets.token_hex((_RANDOM * _POOL + 1) // 2)
        for at in range(0, _RANDOM * _POOL, _RANDOM):
            now_ms = int(wall() * 1000)
            if now_ms != latest_ms:
                latest_ms, beginning = now_ms, f"{prefix}{now_ms:011x}"
            yield beginning + pool[at : at + _RANDOM]


def arrival_ms(request_id: str) -> int | None:
    """Return when a request came, in epoch milliseconds, as its id says; None for an id of another form."""
    digits = request_id[len("req_") : len("req_") + _TIME]
    if not request_id.startswith("req_") or len(digits) < _TIME or not set(digits) <= _HEX:
        return None
    return int(digits, 16)


def first_id(ms: int, prefix: str = "req_") -> str:
    """Return the text before which the ids of all requests stand that came before a time, in epoch milliseconds."""
    return f"{prefix}{max(0, ms):011x}"


def new_rental_id() -> str:
    """Return an unused id for a rental."""
    return f"rent_{secrets.token_hex(8)}"
