"""Cross-origin requests from browsers (https://fetch.spec.whatwg.org/#http-cors-protocol), for the configured origins.

Cookies and other ambient credentials are never allowed: a page must send an API key like every other client.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

ANY_ORIGIN = "*"
_METHODS = b"GET, HEAD, POST, OPTIONS"
_EXPOSED = (
    b"x-request-id, x-should-retry, retry-after, x-spillway-backend, x-spillway-model, x-spillway-decision, "
    b"x-spillway-reason, x-spillway-policy, x-spillway-attempts, x-spillway-overhead-ms, x-spillway-cost-usd, "
    b"x-spillway-better, x-spillway-confidence, x-spillway-estimated, x-spillway-upstream-request-id, request-id, "
    b"openai-processing-ms, "
    b"x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, "
    b"x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, x-ratelimit-reset-tokens, *"
)
"""The names for browsers that don't know `*`, which exposes the providers' other rate limits. `*` holds only without
credentials, and no credentials are allowed here."""
_MAX_AGE_S = 600
_USUAL_HEADERS = "authorization, content-type"


def cors_headers(origins: Collection[str], headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return the headers that let the page of the request's origin read an answer; none for other origins."""
    origin = headers.get("origin", "")
    if not origin or (origin not in origins and ANY_ORIGIN not in origins):
        return []
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", _EXPOSED),
        (b"vary", b"origin"),
    ]


def cors_lines(origins: Collection[str], headers: Mapping[str, str]) -> bytes:
    """Return `cors_headers` as header lines."""
    return b"".join(b"%b: %b\r\n" % pair for pair in cors_headers(origins, headers))


def preflight_headers(origins: Collection[str], headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return the headers of the answer to a preflight request; none if it is none, or for other origins."""
    allowed = cors_headers(origins, headers)
    if not allowed or "access-control-request-method" not in headers:
        return []
    requested = headers.get("access-control-request-headers") or _USUAL_HEADERS
    return [
        *allowed,
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", requested.encode("latin-1")),
        (b"access-control-max-age", b"%d" % _MAX_AGE_S),
    ]
