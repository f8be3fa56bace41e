"""What the exchange and the drains know of each other: an answer that is still to come, and its attempt."""

from __future__ import annotations

from typing import Protocol

from spillway_router.core.routing.model import Attempt, Backend, Outcome, RequestFacts
from spillway_router.proxy.exchange.active_config import DrainLimits, Pace


class UnreadAnswer(Protocol):
    """What is still to come of an answer."""

    async def read(self, limits: DrainLimits, pace: Pace) -> Outcome:
        """Read it to its end or to the limits, parsing no faster than the pace. Raises TransportError."""

    def close(self) -> None:
        """Note what arrived, and give the connection back. Harmless when repeated."""


class DrainedAttempt(Protocol):
    """An attempt whose hold stays until its answer was read."""

    @property
    def backend(self) -> Backend:
        """The backend that is asked."""

    @property
    def facts(self) -> RequestFacts:
        """What is known of its request."""

    def let_go(self, outcome: Outcome) -> None:
        """End the attempt for its request; `outcome` is how it ended there."""

    def settle_drained(self, outcome: Outcome) -> Attempt:
        """Settle the hold and return the complete record; `outcome` is that of the answer."""


class DrainSink(Protocol):
    """Reads answers to their usage in the background."""

    def take(self, attempt: DrainedAttempt, unread: UnreadAnswer, outcome: Outcome) -> bool:
        """Read the rest of an answer; `outcome` is how it ended for its request. Return False if there is no room: the
        caller closes both."""
