"""Failed logins: counted by reason, logged at a bounded rate, and slowed per address.

An address that fails too often gets a 429 in place of the 401 until a failure is permitted again. That delays nobody
else: a key is looked up before its address is judged, so that a valid key behind the same proxy is served as ever. No
connection is kept open for the delay, and the table of addresses is bounded.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

from spillway_router.core.routing.model import Refusal
from spillway_router.proxy.request.peers import address_group

FailureReason = Literal["missing", "invalid", "foreign"]
"""No key where one is needed; a key that is malformed, unknown, wrong, expired or revoked; no key in a request that did
not come from a program on this machine."""

MOST_ADDRESSES = 4096
"""Addresses whose failures are remembered; the one that failed longest ago is forgotten for a new one."""
MOST_LINES = 10.0
"""Log lines at once. After them there is one per `LINE_EVERY_S` seconds, which tells how many were left out."""
LINE_EVERY_S = 1.0
_DIGEST_DIGITS = 8
_MINUTE_S = 60.0

log = logging.getLogger("spillway")


class FailedLogin(NamedTuple):
    """A request that was refused with `refusal`: why, what it sent as its key, and the host of its peer."""

    reason: FailureReason
    token: str
    host: str
    refusal: Refusal


class _Permits(NamedTuple):
    """What is left of a number of permits that grow back with time, and when it was counted (monotonic seconds)."""

    left: float
    counted_s: float

    def at(self, monotonic_s: float, most: float, per_s: float) -> float:
        """Return how many there are now."""
        return min(most, self.left + max(0.0, monotonic_s - self.counted_s) * per_s)


class FailedLogins:
    """The failed logins of this process."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(get_args(FailureReason), 0))
        self.slowed = 0
        """Failures that were answered with a 429."""
        self._addresses: dict[str, _Permits] = {}
        """By address, the one that failed last at the end."""
        self._lines = _Permits(MOST_LINES, 0.0)
        self._unlogged = 0

    def answer(self, failure: FailedLogin, monotonic_s: float, per_minute: int) -> Refusal:
        """Note a failure, of which an address has so many permitted per minute (0: any number); return its answer."""
        self.counts[failure.reason] += 1
        wait_s = self._wait_s(address_group(failure.host), monotonic_s, per_minute) if per_minute else 0.0
        if wait_s > 0:
            self.slowed += 1
        self._log(failure, monotonic_s)
        if wait_s <= 0:
            return failure.refusal
        retry_after_s = max(1.0, math.ceil(wait_s))
        said = failure.refusal.message.rstrip(".")
        message = f"{said}. This address failed too often: wait {retry_after_s:.0f} s before the next try."
        return replace(failure.refusal, status=429, code="rate_limited", message=message, retry_after_s=retry_after_s)

    def addresses(self) -> int:
        """Return the number of addresses that are remembered."""
        return len(self._addresses)

    def _wait_s(self, address: str, monotonic_s: float, per_minute: int) -> float:
        """Take a permit of this address and return 0, or return the seconds until it has one."""
        most, per_s = float(per_minute), per_minute / _MINUTE_S
        before = self._addresses.pop(address, None)
        left = most if before is None else before.at(monotonic_s, most, per_s)
        if before is None and len(self._addresses) >= MOST_ADDRESSES:
            del self._addresses[next(iter(self._addresses))]
        taken = 1.0 if left >= 1 else 0.0
        self._addresses[address] = _Permits(left - taken, monotonic_s)
        return 0.0 if taken else (1 - left) / per_s

    def _log(self, failure: FailedLogin, monotonic_s: float) -> None:
        """Write a log line, unless there were many lately. Of the key it has the beginning of its SHA-256."""
        left = self._lines.at(monotonic_s, MOST_LINES, 1 / LINE_EVERY_S)
        if left < 1:
            self._lines = _Permits(left, monotonic_s)
            self._unlogged += 1
            return
        self._lines = _Permits(left - 1, monotonic_s)
        key = f", key with SHA-256 {_digest(failure.token)}..." if failure.reason == "invalid" else ""
        more = f"; {self._unlogged} more were not logged" if self._unlogged else ""
        self._unlogged = 0
        log.warning("failed login from %s: %s key%s%s", failure.host or "a Unix socket", failure.reason, key, more)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_DIGITS]
