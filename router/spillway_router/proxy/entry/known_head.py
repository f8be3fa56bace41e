"""A request head that its connection has sent before.

A client sends the same head with each request of a connection, apart from the body's length. The parser and its
callbacks take a tenth of the time of a short request, so a head that it has read once is recognised by its bytes.
"""

from __future__ import annotations

from spillway_router.core.routing.model import Endpoint

MOST_BYTES = 8 * 1024
MOST_DIGITS = 9
_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_CHANGING = ("transfer-encoding", "upgrade", "expect")
"""Headers with which a request is read in another way."""


class KnownHead:
    """The bytes of a head before and after the digits of its body's length, and what a parser made of them."""

    __slots__ = ("_after", "_before", "_headers", "endpoint")

    def __init__(self, endpoint: Endpoint, headers: dict[str, str], before: bytes, after: bytes) -> None:
        self.endpoint = endpoint
        self._headers = headers
        self._before = before
        self._after = after

    def body_start(self, data: bytes) -> int:
        """Return where the body begins if `data` is one whole request with this head; otherwise 0."""
        before, after = self._before, self._after
        if not data.startswith(before):
            return 0
        start = len(before)
        end = data.find(b"\r", start, start + MOST_DIGITS + 1)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(after, end):
            return 0
        body = end + len(after)
        return body if len(data) - body == int(digits) else 0

    def headers(self, data: bytes) -> dict[str, str]:
        """Return the headers of a request for which `body_start` did not return 0."""
        start = len(self._before)
        headers = self._headers.copy()
        headers["content-length"] = data[start : data.find(b"\r", start)].decode("ascii")
        return headers


def known_head(data: bytes, endpoint: Endpoint, headers: dict[str, str], count: int) -> KnownHead | None:
    """Return the head of `data`, which is one whole request that a parser has read; None if it may be read otherwise
    another time.

    `count`: how many header lines the parser has read. As many lines must be there, which rules out continued lines
    and those that end without a carriage return.
    """
    end = data.find(_END, 0, MOST_BYTES)
    head = data[: end + len(_END)]
    if end < 0 or head.count(b"\n") != count + 2 or head.count(b"\r\n") != count + 2:
        return None
    lower = head.lower()
    if lower.count(_LENGTH) != 1 or not headers.keys().isdisjoint(_CHANGING):
        return None
    start = lower.find(_LENGTH) + len(_LENGTH)
    if head[start : start + 1] == b" ":
        start += 1
    before, after = head[:start], head[head.find(b"\r", start) :]
    candidate = KnownHead(endpoint, headers, before, after)
    return candidate if candidate.body_start(data) == len(head) else None
