"""W3C Trace Context (https://www.w3.org/TR/trace-context/): the trace of a request, and the ids of its spans in it.

The ids of the router's own spans follow from the request's id, so that nothing has to be kept between the moment at
which an upstream is told of a span and the one at which the span is exported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
_RANGE = 1 << 64


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where the span of a request belongs. `parent_id` is the client's span, empty if the trace begins here."""

    request_id: str
    trace_id: str
    parent_id: str
    sampled: bool
    """Whether the spans are exported: as the client decided, else by the configured share."""

    @property
    def span_id(self) -> str:
        """The id of the request's own span, 16 hex digits."""
        return _hex(self.request_id, 16)

    def attempt_span_id(self, number: int) -> str:
        """Return the id of the span of an attempt, 16 hex digits."""
        return _hex(f"{self.request_id}.{number}", 16)

    def parent_of_upstream(self, number: int) -> str:
        """Return the `traceparent` that the upstream of an attempt gets: the attempt's span is its parent."""
        return f"00-{self.trace_id}-{self.attempt_span_id(number)}-{_SAMPLED if self.sampled else 0:02x}"


def trace_of(request_id: str, headers: Mapping[str, str], share: float) -> TraceContext:
    """Return the trace of a request: the client's, else a new one. `share` (0 to 1) of the new ones are sampled.

    A `traceparent` that is malformed, all zeros or of version ff counts as none. The client's `tracestate` may be any
    text, so it is no part of it: it goes on to backends with the other headers, and is never exported.
    """
    match = _TRACEPARENT.fullmatch(headers.get(TRACEPARENT, ""))
    if match is not None:
        version, trace_id, parent_id, flags, more = match.groups()
        if version != "ff" and (version != "00" or more is None) and int(trace_id, 16) and int(parent_id, 16):
            return TraceContext(request_id, trace_id, parent_id, sampled=bool(int(flags, 16) & _SAMPLED))
    trace_id = _hex(f"{request_id}/trace", 32)
    sampled = int(trace_id[16:], 16) < share * _RANGE
    return TraceContext(request_id, trace_id, parent_id="", sampled=sampled)


def _hex(text: str, digits: int) -> str:
    return sha256(text.encode()).hexdigest()[:digits]
