"""One local backend in a replay: the modelled engine, and the router's own account of it.

The account is the router's: the same backlog, the same learned margin and estimator of tokens, the same turns between
callers. Only what they are fed comes from the model instead of from an engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from spillway_router.core.replay.clocked import ClockedEngine
from spillway_router.core.replay.engine import EngineModel
from spillway_router.core.replay.past import BYTES_PER_TOKEN, PastRequest
from spillway_router.core.routing.backlog import Backlog, EngineRates, predict
from spillway_router.core.routing.estimators import MarginLearner, TokenEstimator
from spillway_router.core.routing.fair_queue import ENGINE_WAIT_SHARE, FairQueue, behind, rank_of
from spillway_router.core.routing.model import Backend, BackendSignals, Caller, Candidate, Decision, RequestFacts
from spillway_router.core.routing.policy import Policy

REFERENCE_TOKENS_PER_S = EngineRates().prefill_tokens_per_s
"""The prefill rate that belongs to the default EngineModel."""


@dataclass(slots=True)
class Underway:
    """A request on its way through a replay, under the policy as its rules made it."""

    past: PastRequest
    facts: RequestFacts
    policy: Policy
    decision: Decision
    place: int = 0
    """Which candidate is asked."""
    until_s: float = 0.0
    """Until when it waits for its turn."""
    send_by_s: float = 0.0
    """When it goes to the engine in any case."""
    sent_s: float = 0.0
    predicted_s: float = 0.0
    first_s: float = 0.0
    failed: bool = False
    """Whether a cloud that was asked for it has failed."""

    @property
    def candidate(self) -> Candidate:
        """The candidate that is asked."""
        return self.decision.candidates[self.place]

    @property
    def number(self) -> int:
        """The request's number."""
        return self.past.number

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return self.past.prompt_tokens

    @property
    def output_tokens(self) -> int:
        """Tokens of the answer, at least 1."""
        bound = self.past.max_tokens
        return max(1, self.past.output_tokens if bound is None else min(bound, self.past.output_tokens))


def engine_model(rates: EngineRates) -> EngineModel:
    """Return the modelled engine with these configured rates: the reference curve, stretched to their prefill rate."""
    model = EngineModel()
    slower = REFERENCE_TOKENS_PER_S / rates.prefill_tokens_per_s
    return replace(model.slower(slower), sequences=rates.max_sequences, kv_capacity_tokens=rates.kv_capacity_tokens)


class LocalModel:
    """The state of one local backend. Times are seconds of the replay's clock."""

    __slots__ = ("_backlog", "_margin", "_tokens", "backend", "engine", "longest_prompt", "queue", "ticks")

    def __init__(self, backend: Backend, rates: EngineRates, model: EngineModel) -> None:
        self.backend = backend
        self.engine: ClockedEngine[Underway] = ClockedEngine(model)
        self.longest_prompt = model.longest_prompt
        self.queue: FairQueue[Underway] = FairQueue()
        self.ticks = False
        """Whether the queue will be looked at again."""
        self._backlog = Backlog(rates)
        self._margin = MarginLearner()
        self._tokens = TokenEstimator()

    def signals(self, caller: Caller, now_s: float) -> BackendSignals:
        """Return what the router would know of it, with the work that goes before a new request of this caller."""
        view = self._backlog.view(now_s)
        if len(self.queue):
            view = behind(view, self.queue.ahead_of(caller.key_id, rank_of(caller.tier)))
        return BackendSignals(
            tokens_per_byte=self._tokens.tokens_per_byte,
            backlog=view,
            rates=self._backlog.rates(now_s),
            expected_output_tokens=self._backlog.expected_output(),
            margin=self._margin.margin,
        )

    def waiting(self, now_s: float) -> int:
        """Return how many requests wait for their first token at the engine."""
        return self._backlog.view(now_s).waiting_first_token

    def has_room(self, candidate: Candidate, slo_ttft_s: float, now_s: float) -> bool:
        """Return whether a request need not wait for its turn."""
        view = self._backlog.own_view(now_s)
        if not view.in_flight:
            return True
        prediction = predict(view, self._backlog.rates(now_s), candidate.prompt_tokens, candidate.output_tokens)
        return prediction.ttft_s - prediction.alone_ttft_s <= ENGINE_WAIT_SHARE * slo_ttft_s

    def send(self, request: Underway, now_s: float) -> bool:
        """Send a request to the engine; False if it can't take it."""
        candidate = request.candidate
        if request.prompt_tokens > self.longest_prompt:
            return False
        rates, view = self._backlog.rates(now_s), self._backlog.view(now_s)
        request.predicted_s = predict(view, rates, candidate.prompt_tokens, candidate.output_tokens).ttft_s
        if not self._backlog.admit(request.number, candidate.prompt_tokens, candidate.output_tokens, now_s):
            return False
        request.sent_s = now_s
        self.engine.submit(request, now_s)
        return True

    def first_token(self, request: Underway, now_s: float) -> None:
        """Learn from a first token, as the router does."""
        request.first_s = now_s
        observed_s = self._backlog.first_token(request.number, now_s)
        if observed_s is not None:
            self._margin.observe(request.predicted_s, observed_s, request.policy.slo.ttft_s)

    def finish(self, request: Underway, now_s: float) -> None:
        """Learn from a whole answer, as the router does."""
        self._backlog.finish(request.number, now_s, request.output_tokens)
        self._tokens.observe(BYTES_PER_TOKEN * request.prompt_tokens, request.prompt_tokens)
