"""Whole requests, retained for "answer again one tier up": only where `retention` is on, and never private ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing.model import Endpoint, RequestFacts

MAX_RETAINED_BYTES = 64 * 1024 * 1024


@fast_frozen(frozen=True, slots=True)
class RetainedRequest:
    """A request as it came, to be answered again until `expires_s` (monotonic seconds)."""

    endpoint: Endpoint
    headers: Mapping[str, str]
    body: bytes
    expires_s: float


def _disabled() -> float:
    return 0.0


class RetainedRequests:
    """The latest requests, for `minutes` each and `max_bytes` of bodies in total; the oldest are forgotten first."""

    def __init__(self, minutes: Callable[[], float] = _disabled, max_bytes: int = MAX_RETAINED_BYTES) -> None:
        self._minutes = minutes
        self._max_bytes = max_bytes
        self._bytes = 0
        self._requests: OrderedDict[str, RetainedRequest] = OrderedDict()

    @property
    def enabled(self) -> bool:
        """True if requests are retained."""
        return self._minutes() > 0

    def add(self, facts: RequestFacts, headers: Mapping[str, str], body: bytes, monotonic_s: float) -> None:
        """Retain a request that is not private, with the headers that say how it is to be answered."""
        hints = {name: value for name, value in headers.items() if name.startswith("x-spillway-")}
        hints |= {"content-type": "application/json"}
        if "x-session-id" in headers:
            hints["x-session-id"] = headers["x-session-id"]
        expires_s = monotonic_s + 60 * self._minutes()
        self._drop_expired(monotonic_s)
        self._requests[facts.request_id] = RetainedRequest(facts.endpoint, hints, body, expires_s)
        self._bytes += len(body)
        while self._bytes > self._max_bytes:
            self._drop_oldest()

    def get(self, request_id: str, monotonic_s: float) -> RetainedRequest | None:
        """Return a request that is still retained, else None."""
        self._drop_expired(monotonic_s)
        return self._requests.get(request_id)

    def _drop_expired(self, monotonic_s: float) -> None:
        while self._requests and next(iter(self._requests.values())).expires_s <= monotonic_s:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._bytes -= len(self._requests.popitem(last=False)[1].body)
