"""What the proxy needs from a provider, and the catalogue entry that describes one.

A provider is a wire protocol with its authentication and habits. Nearly all of them speak the OpenAI API, so one
adapter (openai_compatible.py) serves them, driven by a `CatalogueEntry`; vllm.py adds what local engines do
differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.estimates import OutputCount
from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import Capability, Endpoint, OnDisconnect, Outcome
from spillway_router.http_client.types import Reply
from spillway_router.providers.usage import PLAIN, UsageDialect

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
    on_disconnect: OnDisconnect
    """What the provider does when the connection closes in the middle of a stream."""
    on_disconnect_whole: OnDisconnect
    """The same for an answer without a stream."""
    tells_usage: bool
    """Whether an answer tells its usage at its end."""
    collects_data: bool
    extra_headers: tuple[tuple[str, str], ...]
    drops_fields: frozenset[str]
    """Top-level body fields that are removed before sending: those that this API rejects, and OpenRouter's routing
    fields unless the provider acts on them."""
    health_path: str
    """Path from the server's root that answers 200 when the server is up; empty if there is none (clouds)."""
    metrics: str
    """Name of the metric map in signals/engines.py; empty if the engine has no metrics."""
    adapter: str = "openai"
    """Name of the adapter in catalogue.ADAPTERS."""
    request_fault: frozenset[int] = frozenset()
    """Statuses that blame the request at this provider, although they usually blame our credentials (403 for
    moderation)."""
    usage_unasked: bool = False
    """Whether its streams tell their usage without being asked."""
    stall_s: float = 0.0
    """The longest silence of its streams; 0 where the general limit is right."""
    tool_stall_s: float = 0.0
    """The same for requests with tools."""
    counts_tokens: frozenset[Endpoint] = frozenset()
    """Protocols of which it counts the tokens of a prompt, which costs nothing: `messages` by `/messages/count_tokens`,
    `responses` by `/responses/input_tokens`."""
    output_bound_field: OutputBoundField = "max_tokens"
    """Name of the chat body's field that bounds the output tokens."""
    sends_max_price: bool = False
    """Whether the prices of the backend are sent as `provider.max_price`, which the provider enforces."""
    usage: UsageDialect = PLAIN
    """How its answers tell usage."""
    max_inputs: int | None = None
    """The most inputs of one call for embeddings; None where no limit is known."""
    sequences: int | None = None
    """How many requests an engine runs at once unless it is configured otherwise; None where it says so itself."""
    hides_too_long: bool = False
    """Whether nothing says that a prompt was longer than its context: it is shortened, or the answer is empty."""
    withheld_fields: frozenset[str] = frozenset()
    """Top-level body fields that steer the engine and are the operator's: a client's are removed before sending."""


class StreamMonitor(Protocol):
    """Follows the events of one answer stream: whether there is content yet, whether it ended well, and its usage. No
    I/O."""

    started: bool
    """Whether a content, tool, reasoning or finish event came."""
    finished: bool
    """Whether every choice has a valid finish_reason, or the protocol's final event came."""
    open_end: bool
    """Whether the last event came with or after a finish and has content, so that more content may follow."""
    overloaded: bool
    """Whether the engine refused the work inside a 200 (full queue, draining), which means load and not a failure."""
    reported: bool
    """Whether what is wrong is told in the upstream's words, which may repeat the prompt."""
    count: OutputCount | None
    """The output that has come, for an estimate; None where nobody needs it."""

    @property
    def usage(self) -> Usage | None:
        """The usage told until now; None if there was none."""

    @property
    def usage_is_latest(self) -> bool:
        """Whether usage was told, and no content since."""

    def check(self, name: bytes, data: bytes) -> str | None:
        """Take one event's name and data; return what is wrong with it, None if nothing is."""

    def missing(self) -> str | None:
        """Return what a stream that ends now lacks; None if the answer is whole."""


class Provider(Protocol):
    """The adapter for one wire protocol. It is stateless and shared by all backends of its kind."""

    entry: CatalogueEntry

    def path(self, endpoint: Endpoint) -> str:
        """Return the endpoint's path below the base URL."""

    def stream_monitor(self, endpoint: Endpoint, choices: int, count: OutputCount | None = None) -> StreamMonitor:
        """Return a new monitor for one stream; `count` counts its output."""

    def outcome(self, reply: Reply, wall_s: float) -> Outcome:
        """Return what an HTTP status and its body mean. `wall_s`: epoch seconds now, for Retry-After dates."""

    def usage(self, endpoint: Endpoint, body: Mapping[str, Any]) -> Usage | None:
        """Return the usage of a whole answer; None if it is missing or malformed."""

    def flaw(self, endpoint: Endpoint, body: Mapping[str, Any]) -> str | None:
        """Return what is wrong with a 200's body (an error inside, no choices, abort); None if it is an answer."""
