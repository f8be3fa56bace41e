"""The headers that pass through the router: an allow-list per protocol, as data. Everything else stays where it is.

Never listed: cookies, authorization and keys, addresses of the client, `baggage` (it may hold anything). A query string
does not pass either: the one that clients send, Anthropic's `?beta=true`, only repeats that `anthropic-beta` is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from spillway_router.core.redaction import PIECE, Redactor
from spillway_router.core.routing.model import Endpoint
from spillway_router.core.trace_context import TRACEPARENT, TRACESTATE, TraceContext
from spillway_router.proxy.client.replies import Lines
from spillway_router.proxy.request.passed_names import ACCOUNT_HEADERS, PASSED_NAMES, REQUEST_HEADERS

PassedHeaders = tuple[tuple[str, bytes], ...]
"""Lowercase names, each with its header line."""

PRICED_BETAS: Final = ("fast-mode-",)
"""Beginnings of `anthropic-beta` features that multiply the price, which the cost bound does not know: they are left
out, so that Anthropic refuses a body that asks for one."""
RESPONSE_HEADERS: Final = frozenset({"openai-processing-ms"})
RESPONSE_PREFIXES: Final = ("x-ratelimit-", "anthropic-ratelimit-")
"""Beginnings of the names of a cloud's headers that reach the client. They tell of the limits of this router's key."""
UPSTREAM_REQUEST_IDS: Final = ("x-request-id", "request-id", "cf-ray")
"""Under which names clouds send their id of a request, the best one first. The client gets it under a name of its own,
as `x-request-id` and `request-id` hold the router's."""
UPSTREAM_REQUEST_ID: Final = "x-spillway-upstream-request-id"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SAFE = re.compile(r"[\t\x20-\x7e]{1,4096}")


def passed_to_backend(endpoint: Endpoint, headers: Mapping[str, str], *, own_key: bool = False) -> PassedHeaders:
    """The client's headers that go to a backend. Nearly every request has none. `own_key`: the caller's key is used."""
    if PASSED_NAMES.isdisjoint(headers):
        return ()
    passed: list[tuple[str, bytes]] = []
    names = REQUEST_HEADERS[endpoint]
    if own_key and endpoint != "messages":
        names = (*ACCOUNT_HEADERS, *names)
    for name in names:
        value = headers.get(name, "")
        if name == "anthropic-beta":
            value = _without_priced_betas(value)
        if name == "traceparent" and not _TRACEPARENT.fullmatch(value):
            continue
        if _SAFE.fullmatch(value):
            passed.append((name, f"{name}: {value}\r\n".encode("ascii")))
    return tuple(passed)


def with_trace(passed: PassedHeaders, trace: TraceContext, number: int) -> PassedHeaders:
    """Return headers for an upstream with those of the router's own span: the one of the attempt with this number."""
    line = f"{TRACEPARENT}: {trace.parent_of_upstream(number)}\r\n".encode("ascii")
    left_out = (TRACEPARENT,) if trace.parent_id else (TRACEPARENT, TRACESTATE)
    return (*[one for one in passed if one[0] not in left_out], (TRACEPARENT, line))


def passed_to_client(headers: Mapping[str, str], redactor: Redactor) -> Lines:
    """Header lines of a cloud's answer that go to the client, without secrets."""
    lines: Lines = []
    for name, value in headers.items():
        if (name in RESPONSE_HEADERS or name.startswith(RESPONSE_PREFIXES)) and _SAFE.fullmatch(value):
            value = redactor.cut(value) if len(value) >= PIECE else value
            lines.append(f"{name}: {value}\r\n".encode("ascii"))
    request_id = next((headers[name] for name in UPSTREAM_REQUEST_IDS if headers.get(name)), "")
    if _SAFE.fullmatch(request_id):
        lines.append(f"{UPSTREAM_REQUEST_ID}: {redactor.cut(request_id)}\r\n".encode("ascii"))
    return lines


def _without_priced_betas(value: str) -> str:
    features = [feature.strip() for feature in value.split(",")]
    return ",".join(feature for feature in features if feature and not feature.startswith(PRICED_BETAS))
