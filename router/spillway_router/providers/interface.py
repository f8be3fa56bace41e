"""What the proxy needs of a provider, and the catalogue entry that describes one.

A provider is a wire protocol plus its auth and habits. Almost all speak the OpenAI API, so one adapter
(openai_compatible.py) serves them, driven by a `CatalogueEntry`; vllm.py adds what local engines do differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import Capability, Endpoint, Outcome
from spillway_router.http_client.types import Reply

Billing = Literal["stops", "continues", "unknown"]
AuthStyle = Literal["bearer", "x-api-key", "none"]
OutputBoundField = Literal["max_tokens", "max_completion_tokens"]

PATHS: Mapping[Endpoint, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
    "responses": "/responses",
    "messages": "/messages",
}
"""Endpoint -> path below the base URL."""


class ProviderError(Exception):
    """A provider can't be used as configured; the message says what to change."""


@fast_frozen(frozen=True, slots=True)
class CatalogueEntry:
    """One provider of catalogue.yaml."""

    name: str
    base_url: str
    key_variable: str
    auth: AuthStyle
    local: bool
    endpoints: frozenset[Endpoint]
    capabilities: frozenset[Capability]
    billing_on_cancel: Billing
    collects_data: bool
    extra_headers: tuple[tuple[str, str], ...]
    drops_fields: frozenset[str]
    """Top-level body fields that are removed before sending: those that this API rejects, and OpenRouter's routing
    fields unless the provider acts on them."""
    health_path: str
    """Path from the server's root that answers 200 when up; empty where there is none (clouds)."""
    metrics: str
    """Name of the metric map in signals/engines.py; empty where there are no metrics."""
    adapter: str = "openai"
    """Name of the adapter in catalogue.ADAPTERS."""
    request_fault: frozenset[int] = frozenset()
    """Statuses that blame the request here although they usually blame our credentials (403 for moderation)."""
    output_bound_field: OutputBoundField = "max_tokens"
    """Name of the chat body's field that bounds the output tokens."""


class StreamMonitor(Protocol):
    """Watches the events of one answer stream: is there content yet, did it end well, what was used?

    `see` takes one event's name and data and returns None, or what is wrong with it. No I/O.
    """

    started: bool
    """A content, tool, reasoning or finish event was seen."""
    finished: bool
    """Every choice has a valid finish_reason, or the protocol's final event came."""
    overloaded: bool
    """The engine refused the work inside a 200 (full queue, draining): load, not illness."""
    usage: Usage | None

    def check(self, name: bytes, data: bytes) -> str | None: ...
    def missing(self) -> str | None: ...


class Provider(Protocol):
    """Adapter for one wire protocol. Stateless; shared by all backends of its kind."""

    entry: CatalogueEntry

    def path(self, endpoint: Endpoint) -> str:
        """Path below the base URL."""

    def stream_monitor(self, endpoint: Endpoint, choices: int) -> StreamMonitor:
        """A fresh judge for one stream."""

    def outcome(self, reply: Reply, wall: float) -> Outcome:
        """What an HTTP status and its body mean. `wall` is epoch seconds, for Retry-After dates."""

    def usage(self, body: Mapping[str, Any]) -> Usage | None:
        """Usage of a whole answer; None where it is missing or malformed."""

    def flaw(self, endpoint: Endpoint, body: Mapping[str, Any]) -> str | None:
        """What is wrong with a 200's body (an error inside, no choices, abort); None if it is an answer."""
