"""What the router adds to requests and a backend refused: remembered, so that the next request leaves it out.

An entry holds for one shape of request only. llama.cpp, for instance, refuses log-probabilities in streams with tools,
but nowhere else. An entry is made only after the backend accepted the same request without the addition, so that no
client can make one with a request that is wrong anyway. Entries expire after a day, and a reload forgets them all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from spillway_router.core.routing.model import Endpoint

Addition = Literal["usage", "logprobs", "spelling", "bound", "service", "prices", "tool_limits"]
"""`usage`: `stream_options.include_usage`. `logprobs`: the log-probabilities that confidence needs. `spelling`: the
bound of the output under the provider's usual name; without it the other name is sent. `bound`: that bound under any
name. `service`: `service_tier`. `prices`: OpenRouter's `max_price`. `tool_limits`: how often the provider's tools may
be used."""
ADDITIONS: Final[tuple[Addition, ...]] = ("usage", "logprobs", "spelling", "bound", "service", "prices", "tool_limits")
BOUNDING: Final[frozenset[Addition]] = frozenset(("bound", "service", "prices", "tool_limits"))
"""Those without which a hold no longer covers what the request may cost."""
ADDED_WORDS: Final[Mapping[Addition, str]] = MappingProxyType(
    {
        "usage": "usage",
        "logprobs": "logprobs",
        "spelling": "usual name of the output bound",
        "bound": "output bound",
        "service": "service_tier",
        "prices": "highest prices",
        "tool_limits": "limits of the provider's tools",
    }
)
"""Each addition in the words of a sentence."""
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
            shape.backend, ADDED_WORDS[addition], where, shape.endpoint, more,
        )  # fmt: skip

    def forget(self) -> None:
        """Send every addition again: the configuration is a new one."""
        self._until_s.clear()
