"""decide(): which backends may serve this request, in which order, and why.

The decision, step by step (the same numbers stand in the body):

 1. Resolve the name: an alias gives its chain, `backend/model` pins one, `models: []` adds alternatives; an unknown
    name is a refusal.
 2. Filters remove backends, each with a reason: access, privacy, preferences, capability, health, budget, rate limit.
 3. Nothing left: the refusal that helps most (privacy before budget before overload before health).
 4. Predict each candidate's time to first token: the backlog's rule for local ones, recent experience for cloud.
 5. Order: a suffix (`:fastest`, `:cheapest`) sorts by its scorer; otherwise the chain's order stands, with local
    candidates by least predicted time to first token among themselves.
 6. Overflow: a local candidate that would break the promise goes behind the others, if one of them is expected to be
    faster; without such a one it keeps its place (waiting beats refusing).
 7. Name the decision by its first candidate.

Pure: the same inputs give the same Decision, which is what replay relies on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing import filters
from spillway_router.core.routing.backlog import Slo, overflow_reasons, predict
from spillway_router.core.routing.model import (
    NO_PREFERENCES,
    Backend,
    BackendSignals,
    Candidate,
    Decision,
    DecisionKind,
    ExpectedGain,
    Refusal,
    Removed,
    RequestFacts,
    Signals,
    Sort,
)
from spillway_router.core.routing.ordering import SCORERS

UNKNOWN = BackendSignals(health="down", health_reason="nothing is known of it yet")


@fast_frozen(frozen=True, slots=True)
class ConfidenceRule:
    """Below `threshold` a local answer goes to the first of `escalate_to` that may have it."""

    threshold: float = 0.8
    escalate_to: tuple[str, ...] = ()


@fast_frozen(frozen=True, slots=True)
class Policy:
    """Backends, names, promises and thresholds, under one version (a digest of the configuration)."""

    version: str
    backends: Mapping[str, Backend]
    aliases: Mapping[str, tuple[str, ...]]
    slo: Slo = Slo(2.0, 0.1)
    confidence: ConfidenceRule = ConfidenceRule()


@fast_frozen(frozen=True, slots=True)
class _Resolved:
    chain: tuple[str, ...]
    sort: Sort = ""
    pinned: bool = False


def decide(facts: RequestFacts, signals: Signals, policy: Policy) -> Decision:
    """The Decision for one request; numbered steps in the module docstring."""
    resolved = _resolve(facts, policy)  # 1
    if isinstance(resolved, Refusal):
        return Decision("local", (), (), (), policy.version, resolved)
    kept, removed = _filter(facts, signals, policy, resolved.chain)  # 2
    if not kept:
        refusal = _refusal(removed, signals)  # 3
        return Decision("local", (), _tokens(removed), removed, policy.version, refusal)
    slo = _slo(facts, policy)
    candidates = [_candidate(facts, backend, signals, slo) for backend in kept]  # 4
    ordered = _order(candidates, resolved, facts)  # 5
    ordered, moved = _overflow(ordered, pinned=resolved.pinned)  # 6
    gone = [r for r in removed if policy.backends[r.backend].local] if removed else ()
    kind, reasons = _name(ordered[0], resolved, moved, gone, signals)  # 7
    if removed:
        reasons = (*reasons, *_spared(ordered[0], resolved, removed))
    if resolved.pinned or not facts.preferences.allow_fallbacks:
        ordered = ordered[:1]
    return Decision(kind, tuple(ordered), reasons, removed, policy.version)


def decide_byok(facts: RequestFacts, backend: Backend, signals: Signals, version: str) -> Decision:
    """For a caller who brings a provider and a key: that one place or a refusal. It costs us nothing, so neither budget
    nor health nor load matter; who may use it, privacy and what the place can do matter as ever."""
    for rule in (filters.access, filters.privacy, filters.preferences, filters.capability):
        verdict = rule(facts, backend, BackendSignals(), signals.monotonic_s)
        if verdict is not None:
            return Decision("byok", (), (verdict.reason,), (verdict,), version, _refusal((verdict,), signals))
    prompt = filters.expected_prompt_tokens(facts, BackendSignals())
    output = filters.output_bound(facts, backend)
    return Decision(
        "byok", (Candidate(backend, (), BackendSignals().ttft_s, prompt, output, 0),), ("byok",), (), version
    )


def decide_escalation(
    facts: RequestFacts, signals: Signals, policy: Policy, doubt: ExpectedGain | None = None
) -> Decision:
    """Where a low-confidence local answer goes: the same filters over `confidence.escalate_to`, in its order, and
    where a paced budget covers it, only if what `doubt` promises is worth its cost. No candidate: the answer stays."""
    kept, removed = _filter(facts, signals, policy, policy.confidence.escalate_to)
    kept = [backend for backend in kept if not backend.local]
    if doubt is not None:
        verdicts = [
            (backend, filters.worth_its_cost(doubt, backend, signals.backends[backend.name])) for backend in kept
        ]
        removed = (*removed, *(verdict for _, verdict in verdicts if verdict is not None))
        kept = [backend for backend, verdict in verdicts if verdict is None]
    if not kept:
        return Decision("local", (), ("confidence", *_tokens(removed)), removed, policy.version)
    slo = _slo(facts, policy)
    candidates = tuple(_candidate(facts, backend, signals, slo) for backend in kept)
    return Decision("escalated", candidates, ("confidence",), removed, policy.version)


def decide_better(facts: RequestFacts, signals: Signals, policy: Policy, above: str) -> Decision:
    """Where a better answer than that of the backend `above` comes from: the tiers behind it in
    `confidence.escalate_to` (all of them if it is none), or where there are none, in the chain of the model's name."""
    resolved = _resolve(facts, policy)
    if isinstance(resolved, Refusal):
        return Decision("escalated", (), (), (), policy.version, resolved)
    tiers = policy.confidence.escalate_to
    if above in tiers or not tiers:
        order = tiers or resolved.chain
        tiers = order[order.index(above) + 1 :] if above in order else order
    kept, removed = _filter(facts, signals, policy, tuple(name for name in tiers if name != above))
    if not kept:
        message = f"There is no tier above {above}. Add one to confidence.escalate_to, or ask another model by name."
        refusal = _refusal(removed, signals) if removed else Refusal(400, "invalid_request", message)
        return Decision("escalated", (), ("feedback", *_tokens(removed)), removed, policy.version, refusal)
    slo = _slo(facts, policy)
    candidates = tuple(_candidate(facts, backend, signals, slo) for backend in kept)
    return Decision("escalated", candidates, ("feedback",), removed, policy.version)


def unconstrained_locals(decision: Decision) -> list[str]:
    """The local candidates that nothing speaks against."""
    return [c.backend.name for c in decision.candidates if c.backend.local and not c.reasons]


def prefer_backend(decision: Decision, backend: str) -> Decision:
    """The decision with this local candidate before the other local ones, where nothing speaks against it: it holds the
    prefix of the session."""
    local = [c for c in decision.candidates if c.backend.local]
    wanted = next((c for c in local if c.backend.name == backend and not c.reasons), None)
    if wanted is None or wanted is local[0] or decision.kind != "local":
        return decision
    refill = iter([wanted, *(c for c in local if c is not wanted)])
    ordered = tuple(next(refill) if c.backend.local else c for c in decision.candidates)
    return replace(decision, candidates=ordered)


def _resolve(facts: RequestFacts, policy: Policy) -> _Resolved | Refusal:
    chosen = policy.aliases.get(facts.model)
    if chosen is not None and facts.preferences is NO_PREFERENCES:
        return _Resolved(chosen)  # nearly every request
    # A configured model's own name may end like a suffix (Hugging Face's `org/model:fastest`).
    name, sort = (facts.model, _UNSORTED) if _names(facts.model, policy) else _suffix(facts.model)
    chain: list[str] = []
    for wanted in (name, *(m for m in facts.preferences.models if m != name)):
        chain.extend(b for b in _names(wanted, policy) if b not in chain)
    if not chain:
        known = ", ".join(sorted(policy.aliases))
        message = f"The model '{facts.model}' is not known here. Use one of: {known}, or backend-name/model."
        return Refusal(404, "model_not_found", message, "model")
    if facts.preferences.order:
        rank = {n: i for i, n in enumerate(facts.preferences.order)}
        last = len(rank)
        chain.sort(key=lambda n: min(rank.get(n.lower(), last), rank.get(policy.backends[n].provider, last)))
    pinned = name not in policy.aliases and len(chain) == 1
    return _Resolved(tuple(chain), sort or facts.preferences.sort, pinned)


_UNSORTED: Sort = ""
_SUFFIXES: Mapping[str, Sort] = MappingProxyType({"fastest": "fastest", "cheapest": "cheapest"})


def _suffix(model: str) -> tuple[str, Sort]:
    name, colon, suffix = model.rpartition(":")
    if colon and suffix in _SUFFIXES:
        return name, _SUFFIXES[suffix]
    return model, _UNSORTED


def _names(wanted: str, policy: Policy) -> tuple[str, ...]:
    if wanted in policy.aliases:
        return policy.aliases[wanted]
    backend, slash, model = wanted.partition("/")
    found = policy.backends.get(backend)
    if found is not None and (not slash or model in ("", found.model)):
        return (backend,)
    return tuple(b.name for b in policy.backends.values() if b.model == wanted)


def _filter(
    facts: RequestFacts, signals: Signals, policy: Policy, chain: Sequence[str]
) -> tuple[list[Backend], tuple[Removed, ...]]:
    kept: list[Backend] = []
    removed: list[Removed] = []
    now, rules = signals.monotonic_s, filters.applicable_filters(facts)
    for name in chain:
        backend = policy.backends[name]
        known = signals.backends.get(name, UNKNOWN)
        for rule in rules:
            verdict = rule(facts, backend, known, now)
            if verdict is not None:
                removed.append(verdict)
                break
        else:
            kept.append(backend)
    return kept, tuple(removed)


def _slo(facts: RequestFacts, policy: Policy) -> Slo:
    own = facts.hints.slo_ttft_s
    return policy.slo if own is None else replace(policy.slo, ttft_s=own)


def _candidate(facts: RequestFacts, backend: Backend, signals: Signals, slo: Slo) -> Candidate:
    known = signals.backends[backend.name]
    prompt = filters.expected_prompt_tokens(facts, known)
    output = filters.output_bound(facts, backend)
    if not backend.local or known.backlog is None or known.rates is None:
        bound = filters.cost_bound_nano(facts, backend)
        return Candidate(backend, (), known.ttft_s, prompt, output, bound)
    rates = known.rates
    if known.gpu_rate < 1.0:
        rates = replace(rates, prefill_tokens_per_s=rates.prefill_tokens_per_s * known.gpu_rate)
    expected = min(known.expected_output_tokens, output)
    prediction = predict(known.backlog, rates, prompt, expected)
    reasons = overflow_reasons(prediction, slo, known.margin)
    if reasons and known.gpu_rate < 1.0:
        reasons = (*reasons, "gpu")
    return Candidate(backend, reasons, prediction.ttft_s, prompt, expected, 0)


def _order(candidates: list[Candidate], resolved: _Resolved, facts: RequestFacts) -> list[Candidate]:
    if resolved.sort:
        scorer = SCORERS[resolved.sort]
        return sorted(candidates, key=lambda c: (-scorer(c), c.cost_bound_nano))
    locals_ = [c for c in candidates if c.backend.local]
    if len(locals_) < 2 or facts.preferences.order:
        return candidates
    locals_.sort(key=lambda c: (bool(c.reasons), c.ttft_s))
    # The chain's local places are filled by the locals in order of predicted time to first token.
    refill = iter(locals_)
    return [next(refill) if c.backend.local else c for c in candidates]


def _overflow(ordered: list[Candidate], *, pinned: bool) -> tuple[list[Candidate], tuple[str, ...]]:
    if pinned or not ordered[0].reasons:
        return ordered, ()
    first = ordered[0]
    others = [c for c in ordered[1:] if not c.reasons]
    if not any(c.ttft_s < first.ttft_s or "kv" in first.reasons for c in others):
        return ordered, ()
    return [*others, *(c for c in ordered if c.reasons)], first.reasons


def _name(
    first: Candidate, resolved: _Resolved, moved: tuple[str, ...], gone: Sequence[Removed], signals: Signals
) -> tuple[DecisionKind, tuple[str, ...]]:
    """`gone`: the local backends that the filters removed."""
    if resolved.pinned:
        return "pinned", ("pinned",)
    if first.backend.local:
        return "local", moved
    if moved:
        return "overflow", moved
    if gone:
        # Warming up or full is load and comes to an end by itself; anything else is a fallback.
        busy = all(
            r.reason == "rate_limit" or signals.backends.get(r.backend, UNKNOWN).health == "starting" for r in gone
        )
        return ("overflow" if busy else "fallback"), _tokens(gone)
    if resolved.sort:
        return "overflow", (resolved.sort,)
    return "fallback", ("chain",)


def _spared(first: Candidate, resolved: _Resolved, removed: Sequence[Removed]) -> tuple[str, ...]:
    """`budget` if a budget changed the choice: a backend before the first was left out, or the first is a local one
    that would have overflowed."""
    out = [r.backend for r in removed if r.reason == "budget"]
    if not out:
        return ()
    changed = bool(first.reasons) if first.backend.local else _before(resolved.chain, out[0], first.backend.name)
    return ("budget",) if changed else ()


def _before(chain: Sequence[str], one: str, other: str) -> bool:
    return chain.index(one) < chain.index(other)


def _tokens(removed: Sequence[Removed]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(r.reason for r in removed))


def _refusal(removed: Sequence[Removed], signals: Signals) -> Refusal:
    reasons = set(_tokens(removed))
    details = "; ".join(f"{r.backend}: {r.detail}" for r in removed)
    if "privacy" in reasons:
        message = f"No local backend can answer this private request now. {details}."
        return Refusal(503, "local_only_unavailable", message, retry_after_s=5.0)
    if "budget" in reasons:
        message = f"The budget does not allow this request. Raise the budget or lower max_tokens. {details}."
        return Refusal(402, "budget_exceeded", message)
    if "rate_limit" in reasons:
        waiting = [signals.backends[r.backend] for r in removed if r.reason == "rate_limit"]
        until = min(known.limited_until for known in waiting)
        wait = min(60.0, max(1.0, until - signals.monotonic_s))
        return Refusal(503, "overloaded", f"Every backend asked to wait. {details}.", retry_after_s=wait)
    if reasons & {"health"}:
        message = f"No backend can answer now. {details}."
        return Refusal(503, "no_backend", message, retry_after_s=5.0)
    message = f"No backend can serve this request as it is. Change the request or the alias. {details}."
    return Refusal(400, "invalid_request", message)
