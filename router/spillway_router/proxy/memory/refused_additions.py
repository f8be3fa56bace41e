"""What the router adds to requests and a backend refused: remembered, so that the next request leaves it out.

An entry holds for one shape of request only. llama.cpp, for instance, refuses log-probabilities in streams with tools,
but nowhere else. An entry is made only after the backend accepted the same request without the addition, so that no
client can make one with a request that is wrong anyway. Entries expire after a day, and a reload forgets them all.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, Literal

from spillway_router.core.routing.model import Endpoint

Addition = Literal["usage", "logprobs"]
"""`usage`: `stream_options.include_usage`. `logprobs`: the log-probabilities that confidence needs."""
ADDITIONS: Final[tuple[Addition, ...]] = ("usage", "logprobs")
NOTHING: Final[frozenset[Addition]] = frozenset()
KEPT_S = 24 * 3600.0
MOST_ENTRIES = 10_000
"""More than the shapes of any configuration. When they are reached, the oldest entry is dropped."""

log = logging.getLogger("spillway")


@dataclass(frozen=True, slots=True)
class RequestShape:
    """What a backend's refusal of an addition may depend on."""

    backend: str
    endpoint: Endpoint
    stream: bool
    tools: bool


class RefusedAdditions:
    """The additions that backends refused. All times are monotonic seconds."""

    __slots__ = ("_until_s",)

    def __init__(self) -> None:
        self._until_s: dict[tuple[RequestShape, Addition], float] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no backend has refused anything."""
        return not self._until_s

    def of(self, shape: RequestShape, monotonic_s: float) -> frozenset[Addition]:
        """Return the additions that requests of this shape leave out."""
        return frozenset(
            addition for addition in ADDITIONS if self._until_s.get((shape, addition), monotonic_s) > monotonic_s
        )

    def remember(self, shape: RequestShape, addition: Addition, monotonic_s: float) -> None:
        """Leave an addition out of requests of this shape from now on."""
        self._until_s.pop((shape, addition), None)
        self._until_s[shape, addition] = monotonic_s + KEPT_S
        if len(self._until_s) > MOST_ENTRIES:
            del self._until_s[next(iter(self._until_s))]
        where = "streams" if shape.stream else "requests"
        more = " with tools" if shape.tools else ""
        log.warning(
            "backend %s refuses the %s that the router adds to %s of %s%s; they are left out from now on",
            shape.backend, addition, where, shape.endpoint, more,
        )  # fmt: skip

    def forget(self) -> None:
        """Send every addition again: the configuration is a new one."""
        self._until_s.clear()
