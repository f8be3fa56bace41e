"""What a configuration stands for while it is live: how to reach each backend, within which bounds, by which rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from spillway_router.core.confidence.calibration import Calibration
from spillway_router.core.confidence.self_check import SelfCheck
from spillway_router.core.confidence.validators import ValueRule
from spillway_router.core.frozen import dataclass
from spillway_router.core.routing.model import Backend
from spillway_router.core.routing.policy import Policy
from spillway_router.http_client.pool import Pool
from spillway_router.providers.interface import Provider
from spillway_router.proxy.request.auth import Auth
from spillway_router.proxy.request.facts import PrivacyRule


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request: bytes and seconds."""

    body_bytes: int = 32 * 1024 * 1024
    answer_bytes: int = 64 * 1024 * 1024
    body_s: float = 30.0
    first_event_s: float = 120.0
    """From sending to the first content, stream or not: then the next candidate is asked."""
    answer_s: float = 600.0
    """Longest wait for a whole non-stream answer."""
    stall_s: float = 30.0
    """Between two events of a stream."""
    in_flight: int = 4096
    """Requests in progress; above it 503 at once."""


@dataclass(frozen=True, slots=True)
class BackendRoute:
    """How to reach a backend."""

    backend: Backend
    provider: Provider
    pool: Pool
    lines: bytes
    """Header lines that name it in answers."""
    credentials: bytes = field(default=b"", repr=False)
    """Header lines with a caller's own key, for this call alone."""


@dataclass(frozen=True, slots=True)
class ScoringRules:
    """How local answers are scored. `hold_tokens`: of a stream, before it is let go; None: as many as the promised time
    to first token leaves room for. `top_logprobs`: alternatives per token asked of the engine. `audit_share`: share of
    local answers that a stronger model answers again. `rules`: an answer whose values break one counts as not sure."""

    calibration: Calibration | None = None
    hold_tokens: int | None = None
    top_logprobs: int = 2
    audit_share: float = 0.0
    rules: tuple[ValueRule, ...] = ()
    self_check: SelfCheck | None = None
    """A second look at answers near the threshold."""
    barred: frozenset[str] = frozenset()
    """Backends that serve something else than what the calibration was made for."""

    @property
    def for_documents(self) -> Calibration | None:
        """A document's draft doesn't say which backend it is of: where one is barred, none is judged by it."""
        return None if self.barred else self.calibration


@dataclass(frozen=True, slots=True)
class ActiveConfig:
    """Everything that a configuration reload replaces at once."""

    policy: Policy
    channels: Mapping[str, BackendRoute]
    privacy: PrivacyRule
    auth: Auth
    limits: Limits
    created: int
    """Epoch seconds, for /v1/models."""
    opening: bytes
    """Header line of every answer: the policy's version."""
    scoring: ScoringRules = ScoringRules()
