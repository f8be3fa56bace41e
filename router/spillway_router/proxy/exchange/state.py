"""The state of one request from its decision to its record: plain data, and the commit to one answer."""

from __future__ import annotations

from typing import Any

from spillway_router.core.caching.key import CachePlace
from spillway_router.core.confidence.judge import ConfidenceVerdict
from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing.model import CacheHit, Candidate, Decision, Outcome, Refusal, RequestFacts
from spillway_router.proxy.client.client import Client
from spillway_router.proxy.client.heartbeat import Heartbeat
from spillway_router.proxy.client.judgement import AnswerJudge
from spillway_router.proxy.exchange.active_config import ActiveConfig, BackendRoute
from spillway_router.proxy.exchange.attempt import AttemptNumbers, UpstreamAttempt
from spillway_router.proxy.exchange.passed_headers import PassedHeaders, passed_to_backend, with_trace
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.memory.failing_bodies import BodyId
from spillway_router.proxy.request.body_digest import body_digest


@fast_frozen(frozen=True, slots=True)
class DecidedRequest:
    """A request and the decision on it. `body` is the parsed JSON of the client's bytes; `started_s` is monotonic."""

    facts: RequestFacts
    body: dict[str, Any]
    decision: Decision
    started_s: float
    byok_route: BackendRoute | None = None
    """Where the caller's own key leads."""


class ExchangeState:
    """What is known of a request that is being answered. escalation.py, presentation.py and record.py read it."""

    __slots__ = (
        "answer_judge", "answer_text", "attempts", "backend", "body", "byok_route", "cache_hit", "cache_note",
        "cache_place", "client", "code", "confidence", "config", "cost_requested", "decided", "decision", "facts",
        "hashed_body", "heartbeat", "hedged", "numbers", "passed_headers", "probe", "reasons", "refusal", "response_id",
        "services", "skipped", "started_s", "status", "trace", "verdict",
    )  # fmt: skip

    def __init__(
        self,
        services: Services,
        config: ActiveConfig,
        client: Client,
        request: DecidedRequest,
        numbers: AttemptNumbers,
    ) -> None:
        facts, decision = request.facts, request.decision
        self.services = services
        self.config = config
        self.client = client
        self.facts = facts
        self.body = request.body
        self.decision = decision
        self.started_s = request.started_s
        self.numbers = numbers
        self.byok_route = request.byok_route
        self.answer_judge: AnswerJudge | None = None
        """Judges a whole answer before its row is written; None for requests of clients."""
        self.answer_text: str | None = None
        """The text of the answer, where a shadow is to be compared with it."""
        self.cost_requested = client.headers.get("x-spillway-usage-cost", "").lower() == "true"
        self.passed_headers = passed_to_backend(facts.endpoint, client.headers, own_key=request.byok_route is not None)
        self.trace = None if services.trace_of is None else services.trace_of(facts.request_id, client.headers)
        """Where the spans of the request belong; None unless spans are exported."""
        self.attempts: list[UpstreamAttempt] = []
        self.status, self.code = 200, ""
        self.backend = ""
        """The backend whose answer goes to the client."""
        self.decided: str = decision.kind
        """The kind of the decision, as it turned out: another candidate than the first may have answered."""
        self.reasons = decision.reasons
        self.confidence: float | None = None
        self.refusal: Refusal | None = decision.refusal
        """The client's error if no further candidate answers."""
        self.skipped = ""
        """The reason token for a candidate that was not asked at all."""
        self.heartbeat: Heartbeat | None = None
        self.hedged: tuple[Candidate, Outcome] | None = None
        """The second backend of a race that brought no answer, and how it failed."""
        self.response_id = ""
        """The id of the answer on /v1/responses."""
        self.probe: str | None = None
        """A draft's text, to be compared with the better answer."""
        self.hashed_body: BodyId | None = None
        self.cache_hit: CacheHit | None = None
        """The stored answer that the client gets."""
        self.cache_note = ""
        """What became of the look-up in the cache; empty where it is not used."""
        self.cache_place: CachePlace | None = None
        """Where the answer is to be stored; None if it is not."""
        self.verdict: ConfidenceVerdict | None = None
        """On the latest answer that was judged whole: an audit's label needs its scores."""

    def route(self, candidate: Candidate) -> BackendRoute:
        """How to reach the candidate: with the caller's own key if there is one."""
        return self.byok_route or self.config.route_to(candidate.backend)

    async def body_id(self) -> BodyId:
        """Return by what a body that fails is remembered; it is hashed once."""
        if self.hashed_body is None:
            body = self.client.body
            self.hashed_body = (len(body), await body_digest(body))
        return self.hashed_body

    def headers_for(self, attempt: UpstreamAttempt) -> PassedHeaders:
        """Return the headers beside the router's own that the upstream of an attempt gets."""
        if self.trace is None:
            return self.passed_headers
        return with_trace(self.passed_headers, self.trace, attempt.number)

    def attempts_at(self, candidate: Candidate) -> list[UpstreamAttempt]:
        """Return the attempts at the backend of a candidate."""
        return [attempt for attempt in self.attempts if attempt.backend.name == candidate.backend.name]

    def model(self) -> str:
        """Return the model that answers the client, as its backend knows it; empty while nobody does."""
        if self.cache_hit is not None:
            return self.cache_hit.model
        return next((a.backend.model for a in reversed(self.attempts) if a.backend.name == self.backend), "")

    def commit(self, attempt: UpstreamAttempt) -> None:
        """Send this attempt's answer to the client: drafts of other attempts end, their upstreams close."""
        self.backend = attempt.backend.name
        self.replace_heartbeat(None)
        for other in self.attempts:
            if other is not attempt:
                other.discard_draft()

    def replace_heartbeat(self, heartbeat: Heartbeat | None) -> None:
        """Stop the heartbeat that keeps a waiting client connected; `heartbeat` takes its place."""
        if self.heartbeat is not None:
            self.heartbeat.stop()
        self.heartbeat = heartbeat

    def cost_nano(self) -> int:
        """Nano-dollars of all attempts so far."""
        return sum(attempt.charge_nano for attempt in self.attempts)

    def overhead_s(self) -> float:
        """Seconds from the request's arrival to its first attempt."""
        return (self.attempts[0].sent_s if self.attempts else self.services.clock()) - self.started_s

    async def durable(self) -> None:
        """Wait until the rows of all attempts are on disk."""
        for attempt in self.attempts:
            if attempt.ledger_row is not None:
                await self.services.accounts.durable(attempt.ledger_row)
