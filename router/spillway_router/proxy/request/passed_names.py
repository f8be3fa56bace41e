"""The names of a client's headers that may reach a backend, per protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from spillway_router.core.routing.model import Endpoint

TRACE_HEADERS: Final = ("traceparent", "tracestate")  # W3C Trace Context: the backend's spans join the client's trace
ACCOUNT_HEADERS: Final = ("openai-organization", "openai-project")
"""They name the account that pays. With the router's key they would make a provider refuse it, which looks as if the
key were bad and takes the provider from everybody; so they pass with the caller's own key only."""
_OPENAI = ("openai-beta", *TRACE_HEADERS)
REQUEST_HEADERS: Final[Mapping[Endpoint, tuple[str, ...]]] = {
    "chat": _OPENAI,
    "completions": _OPENAI,
    "embeddings": _OPENAI,
    "responses": _OPENAI,
    "messages": ("anthropic-beta", "anthropic-version", *TRACE_HEADERS),
}
"""Endpoint -> headers of the client that reach the backend. They take the place of the catalogue's of the same name,
but not of those of `backends[].headers`."""
PASSED_NAMES: Final = frozenset(name for names in REQUEST_HEADERS.values() for name in names) | frozenset(
    ACCOUNT_HEADERS
)
PASSED_TEXT: Final = PASSED_NAMES - {"traceparent"}
"""Those whose values may be any text."""
