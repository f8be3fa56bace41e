"""Tell whether a request without a key comes from a program on this machine.

A loopback address is no wall. A web page that the user visits reaches it with the browser's help, also by a DNS name
that was rebound to 127.0.0.1, and a proxy on the same machine passes on the requests of the whole internet. Both leave
traces in the headers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_LOOPBACK = re.compile(
    r"(?:localhost|127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}|\[(?:0{0,4}:){2,7}0{0,3}1\])(?::[0-9]{1,5})?", re.IGNORECASE
)
"""A loopback host with or without a port, as in a Host header. The last form is ::1 in all its spellings."""
_ORIGIN = re.compile(r"https?://([^/?#@\\]*)(?:[/?#].*)?", re.IGNORECASE)
_PROXY_HEADERS = frozenset(
    {
        "cdn-loop",
        "client-ip",
        "forwarded",
        "front-end-https",
        "incap-client-ip",
        "proxy-connection",
        "true-client-ip",
        "via",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-host",
        "x-proxyuser-ip",
        "x-remote-addr",
        "x-remote-ip",
        "x-rewrite-url",
        "x-scheme",
        "x-sucuri-clientip",
        "x-url-scheme",
    }
)
_PROXY_PREFIXES = (
    "akamai-",
    "cf-",
    "fastly-",
    "fly-",
    "ngrok-",
    "tailscale-",
    "x-akamai-",
    "x-amz-cf-",
    "x-appengine-",
    "x-arr-",
    "x-azure-",
    "x-envoy-",
    "x-forwarded",
    "x-original-",
    "x-real-",
    "x-vercel-",
)
_FOREIGN_SITES = frozenset({"cross-site"})


def foreign_trace(headers: Mapping[str, str], origins: Collection[str]) -> str:
    """Return what shows that a request does not come from a program on this machine, as part of a sentence; "" if
    nothing does.

    `headers` have lowercase names. Pages of `origins` count as programs of this machine, because the configuration
    names them; `*` names nobody.
    """
    host = headers.get("host", "")
    if not _LOOPBACK.fullmatch(host):
        return f"its Host {host[:100]!r} is not a loopback name" if host else "it has no Host"
    for name in headers:
        if name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIXES):
            return f"a proxy passed it on (header {name[:100]})"
    origin = headers.get("origin")
    if origin is not None:
        if origin in origins:
            return ""
        if not _is_loopback(origin):
            return f"a page of {origin[:100]!r} sent it"
    referer = headers.get("referer")
    if referer is not None and not _is_loopback(referer) and _origin_of(referer) not in origins:
        return f"a page of {_origin_of(referer)[:100]!r} sent it"
    if headers.get("sec-fetch-site", "").strip().lower() in _FOREIGN_SITES:
        return "a page of another site sent it (Sec-Fetch-Site)"
    return ""


def _is_loopback(url: str) -> bool:
    """Return whether an origin or a URL is one of a page on this machine."""
    match = _ORIGIN.fullmatch(url)
    return match is not None and _LOOPBACK.fullmatch(match.group(1)) is not None


def _origin_of(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}" if separator else url
