"""The inference routes, and the other spellings of their paths that clients use."""

from __future__ import annotations

import re

from spillway_router.core.routing.model import Endpoint

ROUTES: dict[bytes, Endpoint] = {
    b"/v1/chat/completions": "chat",
    b"/v1/completions": "completions",
    b"/v1/embeddings": "embeddings",
    b"/v1/responses": "responses",
    b"/v1/messages": "messages",
}
PROBES = frozenset({"/", "/health", "/ready", "/ping"})
"""Paths that load balancers ask, some of them with HTTP/1.0 and without a Host."""
_WITHOUT_V1 = ("/models/", "/responses/", "/messages/count_tokens")
"""How paths of OpenAI's and Anthropic's API begin besides the inference routes, where the base URL lacks `/v1`."""
_ABSOLUTE = re.compile(rb"^https?://[^/?#]*", re.IGNORECASE)
_SLASHES = re.compile(r"/{2,}")


def origin_form(target: bytes) -> bytes:
    """Return a request target without its scheme and authority, which clients of a proxy send (RFC 9112, 3.2.2)."""
    if target.startswith(b"/"):
        return target
    rest = _ABSOLUTE.sub(b"", target, count=1)
    return rest if rest.startswith(b"/") or rest == target else b"/" + rest


def usual_spelling(path: str) -> str:
    """Return the path of an API route as it is documented; every other path unchanged.

    A base URL that ends in a slash or has `/v1` once too often or not at all leads to slashes at the end, doubled
    slashes, `/v1/v1/…` and paths of OpenAI's API without `/v1`. Any other path that is not below `/v1` stays as it is,
    because a proxy in front of the router may have rules for it.
    """
    plain = _SLASHES.sub("/", path).rstrip("/")
    while plain.startswith("/v1/v1/"):
        plain = plain[3:]
    if f"/v1{plain}".encode("utf-8", "replace") in ROUTES or plain == "/models" or plain.startswith(_WITHOUT_V1):
        return f"/v1{plain}"
    return plain if plain.startswith("/v1/") else path


def inference_path(target: bytes) -> bytes:
    """Return the documented path of an inference route for any spelling of its target, or b"" for other targets."""
    path = usual_spelling(origin_form(target).partition(b"?")[0].decode("latin-1")).encode("latin-1")
    return path if path in ROUTES else b""
