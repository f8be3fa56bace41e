"""What an extraction asks of the exchange and gets back, as values: the words that documents/ and proxy/ share.

A document is one request. Its steps that ask a model go through the exchange one after the other, as chat does: same
filters, holds and charges, numbered attempts of one request id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from spillway_router.core.frozen import dataclass
from spillway_router.core.routing.model import Attempt, PrivacyVerdict, Removed


@dataclass(frozen=True, slots=True)
class StepJudgement:
    """What the asking side thinks of a whole answer: confidence in [0, 1] or None, and whether it will be used."""

    confidence: float | None
    wanted: bool


@dataclass(frozen=True, slots=True)
class StepAsked:
    """One step: a chat body for local or for cloud backends.

    `chain`: names of the backends to ask in order; empty: as the body's `model` says. `gain`: the chance that the
    answer gets better, for the pace of a budget; None where there is no draft to be better than.
    """

    side: Literal["local", "cloud"]
    body: Mapping[str, Any]
    chain: tuple[str, ...] = ()
    gain: float | None = None


@dataclass(frozen=True, slots=True)
class StepReply:
    """How a step went. `answer` is the backend's whole JSON, None where there is none; then `code` and `message` say
    why, and `removed` which rule left out which backend. `cost_nano` nano-dollars of the step's attempts."""

    answer: Mapping[str, Any] | None
    code: str
    message: str
    backend: str
    model: str
    reasons: tuple[str, ...]
    removed: tuple[Removed, ...]
    attempts: tuple[Attempt, ...]
    cost_nano: int


StepJudge = Callable[[Mapping[str, Any]], StepJudgement]


@dataclass(frozen=True, slots=True)
class DocumentComparison:
    """What a better answer says of a draft: right as a whole, and per field by JSON pointer. No value of either."""

    right: bool
    fields: Mapping[str, bool]


Compare = Callable[[Mapping[str, Any]], DocumentComparison | None]
"""A better model's whole answer -> what it says of the draft; None where it can't be read, or is not sure itself."""


@dataclass(frozen=True, slots=True)
class LocalRead:
    """What the local step read, for audits to learn from.

    `bar`: the configured threshold under which it stood. `kept`: it was the document's answer. `known`: what the
    external step of the same document said of it, None where that wasn't asked. `asked` and `compare`: how a better
    model would be asked, and what its answer would say.
    """

    backend: str
    model: str
    confidence: float
    scores: Mapping[str, float]
    bar: float
    kept: bool
    known: DocumentComparison | None
    asked: StepAsked
    compare: Compare


class DocumentExchange(Protocol):
    """One document's way through the exchange. Made by the proxy for whoever asks inside the router."""

    @property
    def request_id(self) -> str:
        """The id of the request that all steps belong to."""

    @property
    def privacy(self) -> PrivacyVerdict:
        """Whether the document may leave."""

    @property
    def least_confidence(self) -> float | None:
        """The least confidence that a header asks for (x-spillway-min-confidence), None where it is silent."""

    def bar(self, configured: float) -> float:
        """The least confidence with which a local model answers: the configured one, as audits moved it since."""

    def watch(self, read: LocalRead) -> None:
        """The local model read something, and the document has its answer: perhaps an audit. Never waits."""

    async def ask(self, asked: StepAsked, judge: StepJudge) -> StepReply:
        """One step. `judge` is called with a whole answer before its row is written."""

    async def note(self, backend: str, model: str, confidence: float | None) -> None:
        """A step without a model gave the document's values: its row, which costs nothing."""

    def close(self, status: int, code: str = "") -> None:
        """The document's record, with the attempts of all its steps."""
