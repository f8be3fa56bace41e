"""decide(): which backends may serve a request, in which order, and why.

The steps of a decision, with the numbers that mark them in the code:

 1. Resolve the model's name: an alias gives its chain, `backend/model` pins one backend (any priced model, where the
    backend serves all of its provider's), `models: []` adds alternatives. An unknown name is a refusal.
 2. Filters remove backends, each with a reason: another embedding space (spaces.py), a rule, access, privacy,
    preferences, capability, health, budget, rate limit. A private request for an alias without a local backend goes to
    one that can serve it.
 3. If none is left, return the refusal that helps most (privacy before budget before overload before health).
 4. Predict each candidate's time to first token: by the backlog's rule for local ones, by recent experience for clouds.
    Of many local engines only the few with the least work are looked at, as long as one of them serves the request in
    time (shortlist.py).
 5. Order the candidates: a suffix (`:fastest`, `:cheapest`) sorts them by its scorer. Otherwise the chain's order
    stands, with local candidates by least predicted time to first token among themselves, those that a rule prefers
    first.
 6. Overflow: a local candidate that would break the latency promise moves behind the others if one of them is expected
    to be faster. So does one whose KV cache would be too full or, where the policy says so, whose GPU is busy, also for
    a slower one. Without such a candidate it keeps its place, because waiting beats a refusal, unless the wait for
    others is longer than the promise and than several such requests take: then a refusal at once beats an answer that
    comes too late for everybody.
 7. Name the decision after its first candidate and those that stood before it:

    local       a local backend is first
    fallback    a backend that stood before it is down or limited: the local one if there is one, else a cloud
    overflow    a local backend stood before it, in order, but cannot serve the request in time or at all
    routed      nobody stood before it, or nobody that the request wants and that can serve it: the alias, a hint, a
                preference or a suffix asked for this cloud
    pinned      the request names this one backend

Pure: the same inputs give the same Decision, which is what replay relies on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from types import MappingProxyType

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing import filters, key_access, spaces
from spillway_router.core.routing.backlog import Slo, overflow_reasons, predict
from spillway_router.core.routing.experiments import EXPERIMENT, Arm
from spillway_router.core.routing.model import (
    NO_PREFERENCES,
    Backend,
    BackendSignals,
    Caller,
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
from spillway_router.core.routing.ordering import SCORERS, split_suffix
from spillway_router.core.routing.shortlist import may_be_short, shortlist

UNKNOWN = BackendSignals(health="down", health_reason="has no health data yet")


@fast_frozen(frozen=True, slots=True)
class ConfidenceRule:
    """A local answer with a confidence below `threshold` goes to the first of `escalate_to` that may have it.

    So does the answer of one of these steps, to those after it, if its confidence is below its own threshold.
    """

    threshold: float = 0.8
    escalate_to: tuple[str, ...] = ()
    step_thresholds: Mapping[str, float] = field(default_factory=dict)
    """The thresholds of steps by backend. The answer of a step without one is final."""

    def step_threshold(self, backend: str) -> float | None:
        """Return the threshold of a step; None if its answer is final, as that of the last one is."""
        if not self.escalate_to or backend == self.escalate_to[-1]:
            return None
        return self.step_thresholds.get(backend)


@fast_frozen(frozen=True, slots=True)
class Forbidden:
    """What one rule forbids: names of backends or of providers."""

    rule: str
    names: frozenset[str]


@fast_frozen(frozen=True, slots=True)
class Ruling:
    """What the rules of the policy (rules.py) say about one request."""

    rules: tuple[str, ...] = ()
    """The names of those that apply, in order."""
    tokens: tuple[str, ...] = ()
    """The reasons of a choice that they made; empty if they left the chain as it was."""
    prefer: tuple[str, ...] = ()
    """The backends that a rule puts before the others of the chain."""
    forbidden: tuple[Forbidden, ...] = ()
    sets_confidence: bool = False
    """Whether a rule set the policy's confidence, which then is not that of audits."""
    arm: Arm | None = None
    """The arm of an experiment in which the request is."""
    arm_chooses: bool = False
    """Whether that arm has a say in which backends answer."""


NO_RULING = Ruling()


@fast_frozen(frozen=True, slots=True)
class AnyModel:
    """The models of a backend that serves any model of its provider.

    `lookup` returns the backend of a model by its name, or the sentence that says why the model can't be asked for;
    `names` returns the models that can.
    """

    lookup: Callable[[str], Backend | str]
    names: Callable[[], tuple[str, ...]]


@fast_frozen(frozen=True, slots=True)
class Policy:
    """Backends, aliases, latency promise and confidence rule under one version, a digest of the configuration.

    `backends` holds the configured ones by name. One that serves any model of its provider stands for no model itself;
    beside it stand the models that the configuration names, as NAME/MODEL, and `any_model` knows all of them.
    """

    version: str
    backends: Mapping[str, Backend]
    aliases: Mapping[str, tuple[str, ...]]
    slo: Slo = Slo(2.0, 0.1)
    gpu_busy_above: float | None = None
    """The share of time above which a GPU that is busy makes requests overflow; None: it never does."""
    confidence: ConfidenceRule = ConfidenceRule()
    any_model: Mapping[str, AnyModel] = field(default_factory=dict)
    ruling: Ruling = NO_RULING
    spaces: Mapping[str, str] = field(default_factory=dict)
    """The embedding space of each alias that has one. No rule changes it."""

    def named(self, names: Sequence[str]) -> tuple[Backend, ...]:
        """Return the backends of a chain."""
        return tuple([self.backends[name] for name in names])

    @property
    def locals(self) -> tuple[Backend, ...]:
        """The backends on the own hardware."""
        return tuple([backend for backend in self.backends.values() if backend.local])


@fast_frozen(frozen=True, slots=True)
class _ResolvedModel:
    """The backends that a model's name stands for, in order."""

    chain: tuple[Backend, ...]
    models: tuple[int, ...] = ()
    """Of each backend of the chain the place of the model that it stands for; empty for one model."""
    sorts: tuple[Sort, ...] = ()
    """By what the backends of each model are sorted; empty if none are."""
    pinned: bool = False
    by_alias: bool = False
    """Whether an alias is among what the request asks for."""
    ordered_by: tuple[str, ...] = ("alias",)
    """Who put the chain in its order, as reason tokens: `alias`, `model` (the name of a model), `preference`, or what
    the rules of the policy looked at."""
    unknown: tuple[Removed, ...] = ()
    """The names of `models` for which there is no backend."""

    def model_of(self, backend: Backend) -> int:
        """Return the place of the model that a backend of the chain stands for."""
        return next((model for one, model in zip(self.chain, self.models, strict=False) if one is backend), 0)

    def sort_of(self, backend: Backend) -> Sort:
        """Return by what this backend is sorted among those of its model."""
        return self.sorts[self.model_of(backend)] if self.sorts else _UNSORTED


def decide(facts: RequestFacts, signals: Signals, policy: Policy) -> Decision:
    """Return the Decision for one request, by the steps above. `policy` is as its rules make it for this request."""
    decision = _decide(facts, signals, policy)
    ruling = policy.ruling
    if not ruling.rules:
        return decision
    reasons = decision.reasons
    if ruling.arm_chooses and EXPERIMENT not in reasons:
        reasons = (*reasons, EXPERIMENT)
    return replace(decision, reasons=reasons, rules=ruling.rules)


def _decide(facts: RequestFacts, signals: Signals, policy: Policy) -> Decision:
    resolved = _resolve(facts, policy)  # 1
    if isinstance(resolved, Refusal):
        return Decision(kind="refused", candidates=(), reasons=(), removed=(), policy=policy.version, refusal=resolved)
    ruling = policy.ruling
    if may_be_short(facts, resolved.chain) and not (
        any(resolved.models) or resolved.sorts or ruling.prefer or ruling.forbidden
    ):
        decision = _decide_among(facts, signals, policy, _with_few_engines(facts, signals, resolved))
        first = decision.candidates[0] if decision.candidates else None
        if decision.kind == "local" and first is not None and first.backend.local and not first.reasons:
            return decision
    return _decide_among(facts, signals, policy, resolved)


def _with_few_engines(facts: RequestFacts, signals: Signals, resolved: _ResolvedModel) -> _ResolvedModel:
    few = shortlist(facts, signals, resolved.chain)
    return _ResolvedModel(
        few,
        pinned=resolved.pinned,
        by_alias=resolved.by_alias,
        ordered_by=resolved.ordered_by,
        unknown=resolved.unknown,
    )


def _decide_among(facts: RequestFacts, signals: Signals, policy: Policy, resolved: _ResolvedModel) -> Decision:
    """Decide between the backends for which the model's name stands: steps 2 to 7."""
    facts = _with_own_providers(facts, resolved)
    passing, removed = _filter(facts, signals, resolved.chain, policy)  # 2
    removed = (*removed, *resolved.unknown)
    if not passing and any(one.reason == "privacy" for one in removed):
        passing, more = _filter(facts, signals, _locals_instead(facts, resolved, policy), policy)
        removed = (*removed, *more)
    if not passing:
        refusal = _refusal(removed, signals)  # 3
        return Decision(
            kind="refused",
            candidates=(),
            reasons=_reason_tokens(removed),
            removed=removed,
            policy=policy.version,
            refusal=refusal,
        )
    slo = _slo(facts, policy)
    candidates = [_candidate(facts, backend, signals, slo, policy.gpu_busy_above) for backend in passing]  # 4
    ordered = _order(candidates, resolved, facts, policy.ruling.prefer)  # 5
    ordered, overflow = _overflow(ordered, pinned=resolved.pinned)  # 6
    if ordered[0].backend.local and ordered[0].reasons and _waits_too_long(ordered, slo):
        tokens = tuple(dict.fromkeys(["queue", *_reason_tokens(removed)]))
        refusal = _overloaded(ordered, removed, slo)
        return Decision(
            kind="refused", candidates=(), reasons=tokens, removed=removed, policy=policy.version, refusal=refusal
        )
    passed_over = _passed_over(ordered[0], resolved, removed, policy) if removed else _NOBODY
    kind, reasons = _kind_and_reasons(ordered[0], resolved, overflow, passed_over, signals)  # 7
    if removed:
        reasons = (*reasons, *_budget_reason(ordered[0], resolved, removed))
        if "privacy" not in reasons and any(r.reason == "privacy" for r in removed):
            reasons = (*reasons, "privacy")
    if resolved.pinned or not (facts.preferences.allow_fallbacks or facts.preferences.order):
        ordered = ordered[:1]
    return Decision(kind=kind, candidates=tuple(ordered), reasons=reasons, removed=removed, policy=policy.version)


def decide_byok(facts: RequestFacts, backend: Backend, signals: Signals, policy: Policy) -> Decision:
    """Return the Decision for a caller who brings a provider and a key: that one backend, or a refusal.

    The call costs us nothing, so budgets, health and load don't matter. What the policy's rules forbid, access,
    privacy, preferences and capabilities count as for any other request.
    """
    removed = _forbidden(backend, policy)
    for rule in (filters.access, filters.own_key, filters.privacy, filters.preferences, filters.capability):
        removed = removed or rule(facts, backend, BackendSignals(), signals.monotonic_s)
    if removed is not None:
        return Decision(
            kind="byok",
            candidates=(),
            reasons=(removed.reason,),
            removed=(removed,),
            policy=policy.version,
            refusal=_refusal((removed,), signals),
            rules=policy.ruling.rules,
        )
    prompt = filters.expected_prompt_tokens(facts, BackendSignals())
    output = filters.output_bound(facts, backend)
    return Decision(
        kind="byok",
        candidates=(
            Candidate(
                backend=backend,
                reasons=(),
                ttft_s=BackendSignals().ttft_s,
                prompt_tokens=prompt,
                output_tokens=output,
                bound_nano=0,
            ),
        ),
        reasons=("byok",),
        removed=(),
        policy=policy.version,
        rules=policy.ruling.rules,
    )


def decide_escalation(
    facts: RequestFacts, signals: Signals, policy: Policy, gain: ExpectedGain | None = None, above: str = ""
) -> Decision:
    """Return where an unsure answer goes: the clouds of `confidence.escalate_to` that pass the filters, in order. Of
    the answer of one of these steps, `above`, it is those after it.

    Where a paced budget covers a cloud, it is a candidate only if `gain` is worth its cost. Without a candidate the
    unsure answer stands.
    """
    tiers = _permitted_tiers(facts, policy)
    place = next((place for place, tier in enumerate(tiers) if tier.name == above), -1)
    passing, removed = _filter(facts, signals, tiers[place + 1 :], policy)
    passing = [backend for backend in passing if not backend.local]
    if gain is not None:
        checked = [
            (backend, filters.worth_its_cost(gain, backend, signals.backends[backend.name])) for backend in passing
        ]
        removed = (*removed, *(too_dear for _, too_dear in checked if too_dear is not None))
        passing = [backend for backend, too_dear in checked if too_dear is None]
    if not passing:
        return Decision(
            kind="local",
            candidates=(),
            reasons=("confidence", *_reason_tokens(removed)),
            removed=removed,
            policy=policy.version,
        )
    slo = _slo(facts, policy)
    candidates = tuple(_candidate(facts, backend, signals, slo) for backend in passing)
    return Decision(
        kind="escalated", candidates=candidates, reasons=("confidence",), removed=removed, policy=policy.version
    )


def referee_candidate(facts: RequestFacts, signals: Signals, policy: Policy, name: str) -> Candidate | None:
    """Return the backend `name` as a candidate for a question about an answer; None if it may not have the request now.

    Whatever keeps it from answering the request keeps it from judging its answer: both see the same text.
    """
    backend = policy.backends.get(name)
    if backend is None or not key_access.may_have_instead(facts, backend, policy.aliases):
        return None
    passing, _ = _filter(facts, signals, (backend,), policy)
    return _candidate(facts, backend, signals, _slo(facts, policy)) if passing else None


def backends_to_count(facts: RequestFacts, signals: Signals, policy: Policy) -> list[Backend] | Refusal:
    """Return the backends that may count the tokens of a prompt, in order; a refusal for an unknown model.

    Counting costs nothing and loads nobody, so that only what forbids a backend and its health matter.
    """
    resolved = _resolve(facts, policy)
    if isinstance(resolved, Refusal):
        return resolved
    rules = (filters.access, filters.privacy, filters.preferences, filters.health)
    return [
        backend
        for backend in resolved.chain
        if _forbidden(backend, policy) is None
        and all(
            rule(facts, backend, signals.backends.get(backend.name, UNKNOWN), signals.monotonic_s) is None
            for rule in rules
        )
    ]


def may_be_given(facts: RequestFacts, name: str, policy: Policy) -> bool:
    """Return whether a request may have an answer that the backend `name` gave to an earlier one.

    Nobody is asked, so that health, load, limits and budgets don't matter: only what forbids the backend does.
    """
    resolved = _resolve(facts, policy)
    if isinstance(resolved, Refusal):
        return False
    named = (*resolved.chain, *_permitted_tiers(facts, policy), *_locals_instead(facts, resolved, policy))
    backend = next((one for one in named if one.name == name), None)
    if backend is None or _forbidden(backend, policy) is not None:
        return False
    rules = (filters.access, filters.privacy, filters.preferences)
    return all(rule(facts, backend, UNKNOWN, 0.0) is None for rule in rules)


def decide_better(facts: RequestFacts, signals: Signals, policy: Policy, above: str) -> Decision:
    """Return where a better answer than that of the backend `above` comes from.

    Candidates are the tiers after it in `confidence.escalate_to` (all of them if it is not one of these), or, where no
    tiers are configured, the backends after it in the chain of the model's name.
    """
    resolved = _resolve(facts, policy)
    if isinstance(resolved, Refusal):
        return Decision(
            kind="escalated", candidates=(), reasons=(), removed=(), policy=policy.version, refusal=resolved
        )
    tiers = _permitted_tiers(facts, policy)
    order = tiers or resolved.chain
    place = next((i for i, backend in enumerate(order) if backend.name == above), None)
    if place is not None or not tiers:
        tiers = order if place is None else order[place + 1 :]
    passing, removed = _filter(facts, signals, [backend for backend in tiers if backend.name != above], policy)
    if not passing:
        message = (
            f"There is no tier above {above}. Add one to confidence.escalate_to, or request another model by name."
        )
        refusal = _refusal(removed, signals) if removed else Refusal(400, "invalid_request", message)
        return Decision(
            kind="escalated",
            candidates=(),
            reasons=("feedback", *_reason_tokens(removed)),
            removed=removed,
            policy=policy.version,
            refusal=refusal,
        )
    slo = _slo(facts, policy)
    candidates = tuple(_candidate(facts, backend, signals, slo) for backend in passing)
    return Decision(
        kind="escalated", candidates=candidates, reasons=("feedback",), removed=removed, policy=policy.version
    )


def has_better(facts: RequestFacts, policy: Policy, above: str) -> bool:
    """Return whether a tier above the backend `above` may answer the request, as its configuration, key and privacy
    stand; health, budgets and limits may say otherwise at the moment at which it is asked."""
    tiers = _permitted_tiers(facts, policy)
    place = next((i for i, tier in enumerate(tiers) if tier.name == above), -1)
    rules, route = facts.caller.rules, facts.hints.route
    may_leave = facts.privacy.may_leave and not facts.caller.local_only and route != "local"
    backends = frozenset[str]() if rules is None else rules.backends
    return any(
        facts.endpoint in tier.endpoints
        and (may_leave or tier.local)
        and (not backends or tier.name in backends)
        and tier.name != above
        for tier in tiers[place + 1 :]
    )


def _permitted_tiers(facts: RequestFacts, policy: Policy) -> tuple[Backend, ...]:
    """Return the backends of `confidence.escalate_to` that the caller's key may have instead of what it asked for."""
    tiers = policy.named(policy.confidence.escalate_to)
    if facts.caller.rules is None:
        return tiers
    return tuple([tier for tier in tiers if key_access.may_have_instead(facts, tier, policy.aliases)])


def unconstrained_locals(decision: Decision) -> list[str]:
    """Return the names of the local candidates without an overflow reason."""
    return [c.backend.name for c in decision.candidates if c.backend.local and not c.reasons]


def prefer_backend(decision: Decision, backend: str) -> Decision:
    """Return the decision with `backend` first among the local candidates, because it holds the session's prefix.

    The decision stays as it is unless `backend` is a local candidate without an overflow reason.
    """
    local = [c for c in decision.candidates if c.backend.local]
    preferred = next((c for c in local if c.backend.name == backend and not c.reasons), None)
    if preferred is None or preferred is local[0] or decision.kind != "local":
        return decision
    refill = iter([preferred, *(c for c in local if c is not preferred)])
    ordered = tuple(next(refill) if c.backend.local else c for c in decision.candidates)
    return replace(decision, candidates=ordered)


def _resolve(facts: RequestFacts, policy: Policy) -> _ResolvedModel | Refusal:
    alias_chain = policy.aliases.get(facts.model)
    if alias_chain is not None and facts.preferences is NO_PREFERENCES and facts.caller.rules is None:
        by = policy.ruling.tokens or _BY_ALIAS
        return _ResolvedModel(policy.named(alias_chain), by_alias=True, ordered_by=by)  # nearly every request
    name = _without_suffix(facts.model, policy)[0]
    chain: list[Backend] = []
    models: list[int] = []
    sorts: list[Sort] = []
    unknown: list[Removed] = []
    barred, by_alias = "", False
    for asked in dict.fromkeys([facts.model, *facts.preferences.models]):
        model, sort = _without_suffix(asked, policy)
        named = backends_named(model, policy)
        if isinstance(named, str):
            barred = barred or named
        if isinstance(named, str) or not named:
            detail = named if isinstance(named, str) else "no model here has this name"
            unknown.append(Removed(asked, "model", detail))
            continue
        if facts.caller.rules is not None or not facts.caller.may_route:
            is_alias, has_local = model in policy.aliases, _has_local(policy)
            permitted = key_access.permitted(facts.caller, model, named, is_alias=is_alias, local=has_local)
            if isinstance(permitted, str):
                return Refusal(403, "permission_denied", permitted, "model")
            named = tuple(permitted)
        by_alias = by_alias or model in policy.aliases
        new = [b for b in named if b not in chain]
        chain.extend(new)
        models.extend([len(sorts)] * len(new))
        sorts.append(sort or facts.preferences.sort)
    if not facts.caller.may_route and any(b.local for b in chain):
        field_name = key_access.chooses_place(facts.preferences)
        if field_name:
            message = f"This key may not choose backends by '{field_name}'. Leave it out."
            return Refusal(403, "permission_denied", message, field_name)
    if not chain:
        aliases = ", ".join(sorted(policy.aliases))
        message = f"The model '{facts.model}' is not known here. Use one of: {aliases}, or backend-name/model."
        return Refusal(404, "model_not_found", barred or message, "model")
    ordered_by = (policy.ruling.tokens or _BY_ALIAS) if name in policy.aliases else ("model",)
    if facts.preferences.order:
        ordered_by = ("preference",)
        rank = {n: i for i, n in enumerate(facts.preferences.order)}
        last = len(rank)
        ranked = sorted(
            zip(chain, models, strict=True),
            key=lambda one: min(rank.get(one[0].name.lower(), last), rank.get(one[0].provider, last)),
        )
        chain, models = [backend for backend, _ in ranked], [model for _, model in ranked]
        sorts = []  # an order of one's own counts more
    if facts.preferences.across_models:
        models, sorts = [0] * len(chain), sorts[:1]
    pinned = name not in policy.aliases and len(chain) == 1
    return _ResolvedModel(
        tuple(chain),
        models=tuple(models),
        sorts=tuple(sorts) if any(sorts) else (),
        pinned=pinned,
        by_alias=by_alias,
        ordered_by=ordered_by,
        unknown=tuple(unknown),
    )


def _with_own_providers(facts: RequestFacts, resolved: _ResolvedModel) -> RequestFacts:
    """Return the facts without the names of providers in the client's preferences, where all that was asked for is one
    backend that has providers of its own: they name those, and the backend keeps to them."""
    wanted, first = facts.preferences, resolved.chain[0]
    if not (wanted.only or wanted.order) or not first.knows_preferences:
        return facts
    if any(backend.name != first.name for backend in resolved.chain):
        return facts
    return replace(facts, preferences=replace(wanted, only=frozenset(), order=()))


_BY_ALIAS = ("alias",)


def _has_local(policy: Policy) -> bool:
    return any(backend.local for backend in policy.backends.values())


def is_offered(name: str, caller: Caller, policy: Policy) -> bool:
    """Return whether the caller may ask for a name of the policy."""
    named = backends_named(name, policy)
    if isinstance(named, str):
        return False
    if caller.rules is None and caller.may_route:
        return True
    is_alias, has_local = name in policy.aliases, _has_local(policy)
    permitted = key_access.permitted(caller, name, named, is_alias=is_alias, local=has_local)
    backends = frozenset() if caller.rules is None else caller.rules.backends
    return not isinstance(permitted, str) and any(not backends or b.name in backends for b in permitted)


def priced_backend(name: str, facts: RequestFacts, policy: Policy) -> Backend | None:
    """Return the backend of this name that the request meant, with its price; None if there is none."""
    resolved = _resolve(facts, policy)
    chain = () if isinstance(resolved, Refusal) else resolved.chain
    return next((backend for backend in chain if backend.name == name), policy.backends.get(name))


_UNSORTED: Sort = ""


def _without_suffix(model: str, policy: Policy) -> tuple[str, Sort]:
    """Return the name of a model and what its suffix asks for. The name of a configured model may itself end like a
    suffix (Hugging Face's `org/model:fastest`)."""
    name, sort = split_suffix(model)
    if not sort:
        return model, sort
    named = backends_named(model, policy)
    return (model, _UNSORTED) if named and not isinstance(named, str) else (name, sort)


def backends_named(name: str, policy: Policy) -> tuple[Backend, ...] | str:
    """Return the backends that an alias, a backend's name, `backend/model` or a model's own name stands for.

    For a model that a backend of any model can't serve, return the sentence that says why.
    """
    if name in policy.aliases:
        return policy.named(policy.aliases[name])
    backend_name, slash, model = name.partition("/")
    any_model = policy.any_model.get(backend_name)
    if any_model is not None:
        backend_or_reason = any_model.lookup(model)
        return backend_or_reason if isinstance(backend_or_reason, str) else (backend_or_reason,)
    backend = policy.backends.get(backend_name)
    if backend is not None and (not slash or model in ("", backend.model)):
        return (backend,)
    return tuple([b for b in policy.backends.values() if b.model == name])


def _space_asked_for(facts: RequestFacts, policy: Policy) -> str:
    """Return the embedding space of what the request asks for: of the first of its models that has one."""
    for model in (facts.model, *facts.preferences.models):
        name = _without_suffix(model, policy)[0]
        space = policy.spaces.get(name, "")
        if not space:
            named = backends_named(name, policy)
            space = "" if isinstance(named, str) else spaces.space_of(named)
        if space:
            return space
    return ""


def _locals_instead(facts: RequestFacts, resolved: _ResolvedModel, policy: Policy) -> list[Backend]:
    """Return the local backends that may serve a private request for an alias, none of whose own backends may."""
    if not resolved.by_alias or any(backend.local for backend in resolved.chain):
        return []
    return [backend for backend in policy.locals if key_access.may_have_instead(facts, backend, policy.aliases)]


def _forbidden(backend: Backend, policy: Policy) -> Removed | None:
    """Return why a rule of the policy forbids the backend to this request, None if none does."""
    for one in policy.ruling.forbidden:
        if backend.name in one.names or backend.provider in one.names:
            return Removed(backend.name, "rule", f"the rule {one.rule!r} forbids it")
    return None


def _filter(
    facts: RequestFacts, signals: Signals, chain: Sequence[Backend], policy: Policy
) -> tuple[list[Backend], tuple[Removed, ...]]:
    kept: list[Backend] = []
    removed: list[Removed] = []
    monotonic_s, rules, has_forbidden = signals.monotonic_s, filters.applicable_filters(facts), policy.ruling.forbidden
    space = _space_asked_for(facts, policy) if facts.endpoint == "embeddings" else None
    for backend in chain:
        if space is not None:
            elsewhere = spaces.outside(backend, space)
            if elsewhere is not None:
                removed.append(elsewhere)
                continue
        if has_forbidden:
            forbidden = _forbidden(backend, policy)
            if forbidden is not None:
                removed.append(forbidden)
                continue
        backend_signals = signals.backends.get(backend.name, UNKNOWN)
        for rule in rules:
            removal = rule(facts, backend, backend_signals, monotonic_s)
            if removal is not None:
                removed.append(removal)
                break
        else:
            kept.append(backend)
    return kept, tuple(removed)


def _slo(facts: RequestFacts, policy: Policy) -> Slo:
    requested_ttft_s = facts.hints.slo_ttft_s
    if requested_ttft_s is None or (not facts.caller.may_route and requested_ttft_s < policy.slo.ttft_s):
        return policy.slo
    return replace(policy.slo, ttft_s=requested_ttft_s)


def _candidate(
    facts: RequestFacts, backend: Backend, signals: Signals, slo: Slo, gpu_busy_above: float | None = None
) -> Candidate:
    latest = signals.backends[backend.name]
    prompt = filters.expected_prompt_tokens(facts, latest)
    output = filters.output_bound(facts, backend)
    if not backend.local or latest.backlog is None or latest.rates is None:
        bound_nano = filters.cost_bound_nano(facts, backend)
        return Candidate(
            backend=backend,
            reasons=(),
            ttft_s=latest.ttft_s,
            prompt_tokens=prompt,
            output_tokens=output,
            bound_nano=bound_nano,
        )
    rates = latest.rates
    if latest.gpu_rate < 1.0:
        rates = replace(rates, prefill_tokens_per_s=rates.prefill_tokens_per_s * latest.gpu_rate)
    expected = min(latest.expected_output_tokens, output)
    prediction = predict(latest.backlog, rates, prompt, expected)
    reasons = overflow_reasons(prediction, slo, latest.margin, generates=facts.endpoint != "embeddings")
    busy = gpu_busy_above is not None and (latest.gpu_utilisation or 0.0) > gpu_busy_above
    gives_way = busy or latest.leaving or "kv" in reasons
    if busy or (reasons and latest.gpu_rate < 1.0):
        reasons = (*reasons, "gpu")
    if latest.leaving:
        reasons = (*reasons, "leaving")
    return Candidate(
        backend=backend,
        reasons=reasons,
        ttft_s=prediction.ttft_s,
        prompt_tokens=prompt,
        output_tokens=expected,
        bound_nano=0,
        wait_s=max(0.0, prediction.ttft_s - prediction.alone_ttft_s),
        gives_way=gives_way,
    )


def _order(
    candidates: list[Candidate], resolved: _ResolvedModel, facts: RequestFacts, prefer: tuple[str, ...]
) -> list[Candidate]:
    if resolved.sorts:
        by_score = sorted(candidates, key=lambda c: _rank(c, resolved))
        return by_score if facts.caller.may_route else sorted(by_score, key=lambda c: not c.backend.local)
    locals_ = [c for c in candidates if c.backend.local]
    if len(locals_) < 2 or facts.preferences.order:
        return candidates
    if prefer:
        rank = {name: place for place, name in enumerate(prefer)}
        locals_.sort(key=lambda c: (rank.get(c.backend.name, len(rank)), bool(c.reasons), c.ttft_s))
    else:
        locals_.sort(key=lambda c: (bool(c.reasons), c.ttft_s))
    # The sorted local candidates take the positions that local candidates have in the chain.
    refill = iter(locals_)
    return [next(refill) if c.backend.local else c for c in candidates]


def _rank(candidate: Candidate, resolved: _ResolvedModel) -> tuple[int, float, int]:
    """Return the key that sorts candidates by their model and, where their model is sorted, by score and price."""
    model, sort = resolved.model_of(candidate.backend), resolved.sort_of(candidate.backend)
    return (model, -SCORERS[sort](candidate), candidate.bound_nano) if sort else (model, 0.0, 0)


def _overflow(ordered: list[Candidate], *, pinned: bool) -> tuple[list[Candidate], tuple[str, ...]]:
    """Move candidates that would break the promise to the end; return the order and why the first one was moved."""
    if pinned or not ordered[0].reasons:
        return ordered, ()
    first = ordered[0]
    others = [c for c in ordered[1:] if not c.reasons]
    if not any(c.ttft_s < first.ttft_s or first.gives_way for c in others):
        return ordered, ()
    return [*others, *(c for c in ordered if c.reasons)], first.reasons


def longest_wait_s(candidate: Candidate, slo_ttft_s: float) -> float:
    """Return for how long a request may wait for others at a local candidate: the promised time, or the time of several
    such requests where two of them would take longer than that."""
    alone_s = candidate.ttft_s - candidate.wait_s
    return slo_ttft_s if 2 * alone_s <= slo_ttft_s else WAITS_ALONE * alone_s


WAITS_ALONE = 4.0
"""How many times its own time to first token a request may wait for others on an engine that is slow for it."""


def _waits_too_long(candidates: Sequence[Candidate], slo: Slo) -> bool:
    """Return whether all candidates are local ones with too long a queue."""
    for candidate in candidates:
        if not candidate.backend.local or not candidate.reasons:
            return False
        longest_s = longest_wait_s(candidate, slo.ttft_s)
        late = "queue" in candidate.reasons and longest_s == slo.ttft_s  # the promise, with its margin
        if not late and candidate.wait_s <= longest_s:
            return False
    return True


def _overloaded(candidates: Sequence[Candidate], removed: Sequence[Removed], slo: Slo) -> Refusal:
    """Return the refusal of a request that would wait too long, with the time after which the queue is shorter."""
    shortest = min(candidates, key=lambda c: c.wait_s)
    excess_s = shortest.wait_s - longest_wait_s(shortest, slo.ttft_s) / 2  # when half of the queue has gone
    message = f"The local queue is full: the wait would be {shortest.wait_s:.1f} s. Retry after the given time."
    kept_local = any(one.reason == "privacy" for one in removed)
    code = "local_only_unavailable" if kept_local else "overloaded"
    return Refusal(503, code, message, retry_after_s=min(60.0, max(1.0, excess_s)))


@fast_frozen(frozen=True, slots=True)
class _PassedOver:
    """The backends that were removed and would have come before the first candidate. `unwanted` are those that the
    request itself excludes."""

    locals: tuple[Removed, ...] = ()
    clouds: tuple[Removed, ...] = ()
    unwanted: tuple[Removed, ...] = ()


_NOBODY = _PassedOver()


def _passed_over(first: Candidate, resolved: _ResolvedModel, removed: Sequence[Removed], policy: Policy) -> _PassedOver:
    if first.backend.local:
        return _NOBODY
    # A suffix orders by score. Local backends cost nothing, so they would have come before every cloud, or beside it.
    sort, model = resolved.sort_of(first.backend), resolved.model_of(first.backend)
    chain = [b for b in resolved.chain if not sort or resolved.model_of(b) < model or b is first.backend]
    names = [backend.name for backend in chain]
    before = frozenset(names[: names.index(first.backend.name)])
    locals_: list[Removed] = []
    clouds: list[Removed] = []
    unwanted: list[Removed] = []
    for one in removed:
        if one.reason == "model":
            continue
        is_local = policy.backends[one.backend].local
        if one.backend not in before and not (sort and is_local):
            continue
        if one.reason in _UNWANTED:
            unwanted.append(one)
        elif is_local:
            locals_.append(one)
        else:
            clouds.append(one)
    return _PassedOver(tuple(locals_), tuple(clouds), tuple(unwanted))


def _kind_and_reasons(
    first: Candidate,
    resolved: _ResolvedModel,
    overflow: tuple[str, ...],
    passed_over: _PassedOver,
    signals: Signals,
) -> tuple[DecisionKind, tuple[str, ...]]:
    if resolved.pinned:
        return "pinned", ("pinned",)
    if first.backend.local:
        return "local", overflow
    if overflow:
        return "overflow", overflow
    if passed_over.locals:
        # Nothing is wrong with an engine that is busy, warms up or can't serve this request: the cloud takes its place.
        sound = all(
            r.reason in _UNABLE or signals.backends.get(r.backend, UNKNOWN).health == "starting"
            for r in passed_over.locals
        )
        return ("overflow" if sound else "fallback"), _reason_tokens(passed_over.locals)
    down = [r for r in passed_over.clouds if r.reason in _DOWN]
    if down:
        return "fallback", _reason_tokens(down)
    return "routed", _routed_by(first, resolved, passed_over)


def _routed_by(first: Candidate, resolved: _ResolvedModel, passed_over: _PassedOver) -> tuple[str, ...]:
    """Return who asked for the first candidate, and why clouds before it can't serve the request."""
    sort = resolved.sort_of(first.backend)
    if sort:
        asked: tuple[str, ...] = (sort,)
    elif passed_over.unwanted:
        asked = tuple(dict.fromkeys([_UNWANTED[r.reason] for r in passed_over.unwanted]))
    else:
        asked = resolved.ordered_by
    # `decide` adds the reason `budget` wherever a budget changed the choice.
    return (*asked, *_reason_tokens([r for r in passed_over.clouds if r.reason != "budget"]))


_UNWANTED: Mapping[str, str] = MappingProxyType(
    {"route": "hint", "preference": "preference", "key": "key", "rule": "rule", "space": "space"}
)
"""Reasons for which the request itself excludes a backend, each with the token that says who asked for another one."""
_UNABLE = frozenset({"rate_limit", "context", "capability", "endpoint"})
"""Reasons for which a local backend is left out although it is in order."""
_DOWN = frozenset({"health", "rate_limit"})
"""Reasons for which a cloud can't answer anybody at the moment."""


def _budget_reason(first: Candidate, resolved: _ResolvedModel, removed: Sequence[Removed]) -> tuple[str, ...]:
    """Return ("budget",) if a budget changed the choice, else ().

    It did if it removed a backend before the first candidate, or if the first is a local one that would have
    overflowed.
    """
    over_budget = [r.backend for r in removed if r.reason == "budget"]
    if not over_budget:
        return ()
    names = [backend.name for backend in resolved.chain]
    changed = (
        bool(first.reasons) if first.backend.local else names.index(over_budget[0]) < names.index(first.backend.name)
    )
    return ("budget",) if changed else ()


def _reason_tokens(removed: Sequence[Removed]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(r.reason for r in removed))


def _refusal(removed: Sequence[Removed], signals: Signals) -> Refusal:
    reasons = set(_reason_tokens(removed))
    if reasons == {"key"}:
        names = ", ".join(r.backend for r in removed)
        return Refusal(403, "permission_denied", f"This key may not use what could answer ({names}).")
    details = "; ".join(f"{r.backend}: {r.detail}" for r in removed)
    if reasons == {"space"}:
        message = f"Nothing here has embeddings of the model that was asked for. {details}."
        return Refusal(503, "no_backend", message)
    reasons -= {"space", "model"}  # what is wrong with the backends of the right space helps more
    if reasons <= {"key", "rule"}:
        return Refusal(403, "permission_denied", f"The policy lets no backend answer this request. {details}.")
    if "privacy" in reasons:
        message = f"No local backend can answer this private request now. {details}."
        return Refusal(503, "local_only_unavailable", message, retry_after_s=5.0)
    if "budget" in reasons:
        message = f"The budget does not allow this request. Raise the budget or lower max_tokens. {details}."
        return Refusal(402, "budget_exceeded", message)
    if "rate_limit" in reasons:
        waiting = [signals.backends[r.backend] for r in removed if r.reason == "rate_limit"]
        until = min(backend_signals.limited_until for backend_signals in waiting)
        wait_s = min(60.0, max(1.0, until - signals.monotonic_s))
        return Refusal(503, "overloaded", f"Every backend asked to wait. {details}.", retry_after_s=wait_s)
    if "health" in reasons:
        message = f"No backend can answer now. {details}."
        return Refusal(503, "no_backend", message, retry_after_s=5.0)
    if reasons == {"context"}:
        message = f"The request exceeds the context length of every backend. Shorten it or lower max_tokens. {details}."
        return Refusal(400, "context_length_exceeded", message)
    message = f"No backend can serve this request as it is. Change the request or the alias. {details}."
    return Refusal(400, "invalid_request", message, next((r.param for r in removed if r.param), None))
