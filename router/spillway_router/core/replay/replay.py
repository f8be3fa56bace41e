"""A replay: past requests in the order of arrival, through the router's own decision and a model of everything else.

The decision is the router's: `ruled()` and `decide()` on Signals that the modelled engine, the budgets of the replay
and the prices of the configuration give. What follows is modelled:

    local answer   waits for its turn, is read and written by the modelled engine, and teaches the router's backlog
    unsure answer  one whose recorded confidence is below the threshold goes where `decide_escalation()` says
    cloud answer   begins and ends as `CloudModel` says, costs what its tokens cost, and never fails

Nothing is down, limited or slow in a replay, and no client leaves. The same requests give the same result. The memory
does not depend on the number of requests, but on how many are under way at once.

Pure: time comes with the requests, and events are done in its order.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from zlib import crc32

from spillway_router.core.money.budget import BudgetLine
from spillway_router.core.money.tariff import Usage, price
from spillway_router.core.replay.engine import EngineModel
from spillway_router.core.replay.local_model import LocalModel, Underway, engine_model
from spillway_router.core.replay.past import PastRequest
from spillway_router.core.replay.purse import ModelledHold, Purse
from spillway_router.core.replay.tally import Tally
from spillway_router.core.routing.backlog import EngineRates
from spillway_router.core.routing.fair_queue import ENGINE_WAIT_SHARE, LONGEST_WAIT_S, TICK_S, Work, rank_of
from spillway_router.core.routing.model import BackendSignals, Candidate, Decision, RequestFacts, Signals
from spillway_router.core.routing.policy import Policy, decide, decide_escalation, longest_wait_s
from spillway_router.core.routing.rules import Moment, Rules, ruled

UNQUEUED = "overloaded"
"""The code of a request whose turn did not come and that nobody else may answer."""
FAILED = "upstream_error"
"""The code of a request at which every cloud that it may have failed."""
UNPAID = "budget_exceeded"
"""The code of a request that nobody answers because a budget has no room for it."""
MOST_RULED = 1024


@dataclass(frozen=True, slots=True)
class CloudModel:
    """How fast every cloud answers: seconds to the first token, and output tokens per second after it. A share `fails`
    of the requests fails at a cloud, at no cost; which ones is the same under every policy."""

    ttft_s: float = 0.5
    tokens_per_s: float = 100.0
    fails: float = 0.0

    def is_failure(self, number: int, backend: str) -> bool:
        """Return whether the request of this number fails at this backend."""
        return self.fails > 0 and crc32(f"{number}/{backend}".encode()) < self.fails * 2**32


@dataclass(frozen=True, slots=True)
class ReplayTerms:
    """What a replay decides by. `rates` are the configured rates of local backends by name; `models` may give some of
    them another engine than the one that follows from its rates."""

    policy: Policy
    rules: Rules = Rules()
    rates: Mapping[str, EngineRates] = field(default_factory=dict)
    budgets: tuple[BudgetLine, ...] = ()
    cloud: CloudModel = CloudModel()
    models: Mapping[str, EngineModel] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The outcome of a replay from its first arrival to its last event (seconds of the replay's clock).

    `busy_s` are the seconds for which each local engine worked. `most_of_budgets` is the largest share of a budget that
    was ever spent or held.
    """

    tally: Tally
    start_s: float
    end_s: float
    busy_s: Mapping[str, float]
    most_of_budgets: float

    @property
    def busy_share(self) -> float:
        """The share of the time for which the local engines worked, on average; 0 without any."""
        whole_s = (self.end_s - self.start_s) * len(self.busy_s)
        return min(1.0, sum(self.busy_s.values()) / whole_s) if whole_s > 0 else 0.0

    def share(self, *kinds: str) -> float:
        """Return the share of the requests that ended in one of these ways; 0 without requests."""
        requests = self.tally.requests
        return sum(self.tally.kinds[kind] for kind in kinds) / requests if requests else 0.0


_Event = tuple[float, int, Callable[[float], None]]


class Replay:
    """One policy under replay. Call `arrive` for each request in the order of arrival, then `end` once."""

    def __init__(self, terms: ReplayTerms) -> None:
        self.tally = Tally()
        self._terms = terms
        self._locals = {
            backend.name: _local_model(backend.name, terms)
            for backend in terms.policy.backends.values()
            if backend.local
        }
        self._clouds = {backend.name: backend for backend in terms.policy.backends.values() if not backend.local}
        self._cloud_signals = {name: BackendSignals(ttft_s=terms.cloud.ttft_s) for name in self._clouds}
        self._ruled: dict[tuple[int, ...], Policy] = {}
        """The policy as the rules at these places make it."""
        self._purse: Purse | None = None
        self._events: list[_Event] = []
        self._order = 0
        self._waiting = 0
        self._start_s = self._now_s = 0.0

    def arrive(self, past: PastRequest) -> None:
        """Do everything that happens before a request arrives, and decide on it. One that comes out of order counts as
        arriving now."""
        if self._purse is None:
            self._purse = Purse(self._terms.budgets, past.arrival_s)
            self._start_s = self._now_s = past.arrival_s
        self._advance(past.arrival_s)
        now_s = self._now_s
        self.tally.requests += 1
        facts = past.facts()
        policy = self._under_rules(facts, now_s, None)
        decision = decide(facts, self._signals(facts, now_s), policy)
        if decision.refusal is not None:
            self._refuse(decision.refusal.code)
            return
        self._ask(Underway(past, facts, policy, decision), now_s)

    def end(self) -> ReplayResult:
        """Finish everything that is under way; return the outcome."""
        self._advance(math.inf)
        return ReplayResult(
            tally=self.tally,
            start_s=self._start_s,
            end_s=self._now_s,
            busy_s={name: local.engine.busy_s for name, local in self._locals.items()},
            most_of_budgets=0.0 if self._purse is None else self._purse.most_share,
        )

    # What is known when a request is decided

    def _under_rules(self, facts: RequestFacts, now_s: float, confidence: float | None) -> Policy:
        rules, policy = self._terms.rules, self._terms.policy
        if not rules.rules:
            return policy
        used = self._purse.shares_used(facts.caller, now_s) if self._purse is not None and rules.read_budgets else {}
        waiting = min((local.waiting(now_s) for local in self._locals.values()), default=0) if rules.read_queues else 0
        moment = Moment(
            wall_s=now_s,
            budget_left=1.0 - max(used.values(), default=0.0),
            waiting=waiting,
            confidence=confidence,
        )
        places = rules.matching(facts, moment)
        if places not in self._ruled:
            if len(self._ruled) >= MOST_RULED:
                self._ruled.clear()
            self._ruled[places] = ruled(policy, rules, places)
        return self._ruled[places]

    def _signals(self, facts: RequestFacts, now_s: float) -> Signals:
        by_name = {name: local.signals(facts.caller, now_s) for name, local in self._locals.items()}
        purse = self._purse
        if purse is None or purse.is_empty:
            return Signals(now_s, {**by_name, **self._cloud_signals})
        used = purse.shares_used(facts.caller, now_s)
        for name, backend in self._clouds.items():
            left_nano = purse.headroom_nano(backend, facts.caller, now_s)
            by_name[name] = replace(self._cloud_signals[name], headroom_nano=left_nano, budget_used=used)
        return Signals(now_s, by_name)

    # What becomes of a request

    def _ask(self, request: Underway, now_s: float) -> None:
        """Ask the candidates from the present one on, until one of them has the request."""
        code = UNQUEUED
        while request.place < len(request.decision.candidates):
            candidate = request.candidate
            if candidate.backend.local:
                if self._enters_queue(request, candidate, now_s) or self._send(request, now_s):
                    return
            elif self._terms.cloud.is_failure(request.past.number, candidate.backend.name):
                code, request.failed = FAILED, True
            else:
                nano = self._pay(request.past, candidate, now_s)
                if nano is not None:
                    self._answered(request, _kind(request), candidate, nano)
                    self.tally.judge(request.past.right_at(local=False))
                    return
                code = UNPAID
            request.place += 1
        self._refuse(code)

    def _enters_queue(self, request: Underway, candidate: Candidate, now_s: float) -> bool:
        """Let a request wait for its turn, as proxy/exchange/local_queue.py does; False if it need not wait."""
        local, slo_s = self._locals[candidate.backend.name], request.policy.slo.ttft_s
        if not self._waiting and candidate.wait_s <= ENGINE_WAIT_SHARE * slo_s:
            return False
        if not len(local.queue) and local.has_room(candidate, slo_s, now_s):
            return False
        request.until_s = request.past.arrival_s + longest_wait_s(candidate, slo_s)
        request.send_by_s = now_s + LONGEST_WAIT_S
        caller = request.facts.caller
        work = Work(candidate.prompt_tokens, candidate.output_tokens)
        local.queue.put(caller.key_id, rank_of(caller.tier), request, work)
        self._waiting += 1
        if not local.ticks:
            self._tick_later(local, now_s)
        return True

    def _tick_later(self, local: LocalModel, now_s: float) -> None:
        local.ticks = True
        self._at(now_s + TICK_S, lambda tick_s: self._tick(local, tick_s))

    def _send(self, request: Underway, now_s: float) -> bool:
        return self._locals[request.candidate.backend.name].send(request, now_s)

    def _tick(self, local: LocalModel, now_s: float) -> None:
        """Send on what has waited for too long, and let others go, as long as any wait."""
        local.ticks = False
        for request in [one for one in local.queue if now_s >= one.until_s]:
            local.queue.remove(request.facts.caller.key_id, request)
            self._waiting -= 1
            request.place += 1
            self._ask(request, now_s)
        self._go_on(local, now_s)
        if len(local.queue) and not local.ticks:
            self._tick_later(local, now_s)

    def _go_on(self, local: LocalModel, now_s: float) -> None:
        """Send those whose turn it is, as long as the engine has room."""
        while (request := local.queue.first()) is not None:
            room = local.has_room(request.candidate, request.policy.slo.ttft_s, now_s)
            if not room and now_s < request.send_by_s:
                return
            local.queue.pop()
            self._waiting -= 1
            if not self._send(request, now_s):
                request.place += 1
                self._ask(request, now_s)

    def _pay(self, past: PastRequest, candidate: Candidate, now_s: float) -> int | None:
        """Hold the bound of a cloud's answer until it ends; return its charge, None if a budget has no room."""
        backend, purse = candidate.backend, self._purse
        output = min(past.output_tokens, candidate.output_tokens)
        nano = 0
        if backend.tariff is not None and purse is not None:
            hold = purse.hold(backend, past.caller, candidate.bound_nano, now_s)
            if hold is None:
                return None
            usage = Usage(past.prompt_tokens, output, cached_tokens=past.cached_tokens)
            nano = min(candidate.bound_nano, price(usage, backend.tariff))
            cloud = self._terms.cloud
            self._at(now_s + cloud.ttft_s + output / cloud.tokens_per_s, lambda _: self._settle(hold, nano))
        return nano

    def _settle(self, hold: ModelledHold, nano: int) -> None:
        if self._purse is not None:
            self._purse.settle(hold, nano)

    def _finished(self, local: LocalModel, request: Underway, now_s: float) -> None:
        """Deliver a local answer, or escalate it."""
        local.finish(request, now_s)
        self._go_on(local, now_s)
        past, slo = request.past, request.policy.slo
        if self._escalated(request, now_s):
            return
        wait_s = request.first_s - past.arrival_s
        self.tally.waits.add(wait_s)
        self.tally.late += wait_s > slo.ttft_s
        self.tally.slow += (now_s - request.first_s) > slo.tpot_s * max(1, request.output_tokens - 1)
        self._answered(request, _kind(request), request.candidate, 0)
        self.tally.judge(past.right_at(local=True))

    def _escalated(self, request: Underway, now_s: float) -> bool:
        """Let a cloud answer instead, where the answer is unsure and one may."""
        past, policy = request.past, request.policy
        sure = past.confidence is None or past.confidence >= policy.confidence.threshold
        if sure or request.decision.kind == "pinned" or not policy.confidence.escalate_to:
            return False
        if self._terms.rules.read_confidence:
            policy = self._under_rules(request.facts, now_s, past.confidence)
        decision: Decision = decide_escalation(request.facts, self._signals(request.facts, now_s), policy)
        for candidate in decision.candidates:
            if self._terms.cloud.is_failure(past.number, candidate.backend.name):
                continue
            nano = self._pay(past, candidate, now_s)
            if nano is not None:
                self._answered(request, "escalated", candidate, nano)
                self.tally.judge(past.right_at(local=False))
                return True
        return False

    def _answered(self, request: Underway, kind: str, candidate: Candidate, nano: int) -> None:
        self.tally.kinds[kind] += 1
        self.tally.spent(candidate.backend.name, request.policy.ruling.rules, nano)

    def _refuse(self, code: str) -> None:
        self.tally.kinds["refused"] += 1
        self.tally.refusals[code] += 1

    # Time

    def _at(self, moment_s: float, action: Callable[[float], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (moment_s, self._order, action))

    def _advance(self, until_s: float) -> None:
        """Do everything that happens up to a moment, in order."""
        while True:
            first = min(self._locals.values(), key=lambda local: local.engine.ends_s, default=None)
            engine_s = math.inf if first is None else first.engine.ends_s
            event_s = self._events[0][0] if self._events else math.inf
            moment_s = min(engine_s, event_s)
            if moment_s > until_s or moment_s == math.inf:
                break
            self._now_s = max(self._now_s, moment_s)
            if first is None or event_s < engine_s:
                heapq.heappop(self._events)[2](event_s)
                continue
            done = first.engine.complete()
            for request in done.first_tokens:
                first.first_token(request, moment_s)
            if done.first_tokens and len(first.queue):
                self._go_on(first, moment_s)
            for request in done.finished:
                self._finished(first, request, moment_s)
        if until_s != math.inf:
            self._now_s = max(self._now_s, until_s)


def _local_model(name: str, terms: ReplayTerms) -> LocalModel:
    rates = terms.rates.get(name, EngineRates())
    model = terms.models.get(name) or engine_model(rates)
    return LocalModel(terms.policy.backends[name], rates, model)


def _kind(request: Underway) -> str:
    """Return how a request that the present candidate answers was decided in the end."""
    first, local = request.decision.candidates[0].backend, request.candidate.backend.local
    if request.place == 0:
        return request.decision.kind
    if local:
        return "local"
    if request.failed:
        return "fallback"
    return "overflow" if first.local else request.decision.kind
