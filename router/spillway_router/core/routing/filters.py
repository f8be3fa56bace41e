"""The rules that can remove a backend, one function each, in the order the policy applies them.

Every filter takes the same three values and returns None (stays) or a `Removed` with a reason token and a sentence.
Filters never add a backend back: restrictions only accumulate.
"""

from __future__ import annotations

from collections.abc import Callable

from spillway_router.core.money import degrade, pacing, tariff
from spillway_router.core.routing.model import (
    NO_PREFERENCES,
    Backend,
    BackendSignals,
    ExpectedGain,
    Removed,
    RequestFacts,
)

TEMPLATE_TOKENS = 64
"""Upper bound of what a chat template adds per request, for cost bounds (per message it is covered by the JSON
framing bytes, which are counted as prompt bytes)."""

Filter = Callable[[RequestFacts, Backend, BackendSignals, float], Removed | None]


def output_bound(facts: RequestFacts, backend: Backend) -> int:
    """Most output tokens the request can cause at `backend`, per choice."""
    return facts.max_tokens if facts.max_tokens is not None else backend.max_output_tokens


def cost_bound_nano(facts: RequestFacts, backend: Backend) -> int:
    """Upper bound of the request's cost at `backend` in nano-dollars; 0 for a local one."""
    if backend.tariff is None:
        return 0
    output = output_bound(facts, backend)
    unseen, most = facts.unseen_tokens, backend.context_tokens
    if unseen and most is not None:
        unseen = min(unseen, max(0, most - facts.prompt_bytes))
    return tariff.upper_bound(
        facts.prompt_bytes + unseen,
        TEMPLATE_TOKENS,
        output,
        max(facts.choices, facts.billed_choices),
        backend.tariff,
        seconds=backend.longest_s,
        service=facts.service,
    )


def expected_prompt_tokens(facts: RequestFacts, signals: BackendSignals) -> int:
    """Expected prompt tokens, biased high by the estimator that learned the ratio."""
    return TEMPLATE_TOKENS // 4 + int(facts.prompt_bytes * signals.tokens_per_byte) + 1


def access(facts: RequestFacts, backend: Backend, _: BackendSignals, __: float) -> Removed | None:
    """1. The key, its tier and the route hint may use it."""
    route = facts.hints.route
    if route == "auto":
        return None
    if route == "local" and not backend.local:
        return Removed(backend.name, "route", "the request asks for local only (x-spillway-route)")
    if route == "cloud" and backend.local:
        return Removed(backend.name, "route", "the request asks for cloud only (x-spillway-route)")
    return None


def privacy(facts: RequestFacts, backend: Backend, _: BackendSignals, __: float) -> Removed | None:
    """2. Private content stays on local backends."""
    # The key's own mark counts even if whoever made the verdict forgot it: this is the last gate.
    if backend.local or (facts.privacy.may_leave and not facts.caller.local_only):
        return None
    why = ", ".join(facts.privacy.reasons) or ("key" if facts.caller.local_only else "default")
    return Removed(backend.name, "privacy", f"private content must not leave (marked by {why})")


def preferences(facts: RequestFacts, backend: Backend, _: BackendSignals, __: float) -> Removed | None:
    """3. The client's `provider` field: only, ignore, max_price, data_collection."""
    wanted = facts.preferences
    if wanted is NO_PREFERENCES:
        return None
    names = {backend.name.lower(), backend.provider}
    if wanted.only and not names & wanted.only:
        return Removed(backend.name, "preference", "not in provider.only")
    if names & wanted.ignore:
        return Removed(backend.name, "preference", "listed in provider.ignore")
    if wanted.no_data_collection and backend.collects_data:
        return Removed(backend.name, "preference", "may collect data (provider.data_collection is deny)")
    price = backend.tariff
    if price is not None:
        limits = (
            (wanted.max_input_per_million, price.input_per_million, "prompt"),
            (wanted.max_output_per_million, price.output_per_million, "completion"),
        )
        for limit, actual, name in limits:
            if limit is not None and actual > limit:
                return Removed(backend.name, "preference", f"costs more than provider.max_price.{name}")
    return None


def capability(facts: RequestFacts, backend: Backend, signals: BackendSignals, _: float) -> Removed | None:
    """4. It has the endpoint, the features and the context length."""
    if facts.endpoint not in backend.endpoints:
        return Removed(backend.name, "endpoint", f"does not serve {facts.endpoint}")
    if not facts.needs <= backend.capabilities:
        missing = facts.needs - backend.capabilities
        return Removed(backend.name, "capability", f"has no {', '.join(sorted(missing))}")
    limit = backend.context_tokens
    if limit is not None:
        # Only a sure misfit removes: the estimate is biased high, so half of it is the benefit of the doubt.
        wanted = expected_prompt_tokens(facts, signals) // 2 + (facts.max_tokens or 1)
        if wanted > limit:
            return Removed(backend.name, "context", f"needs about {wanted} tokens, holds {limit}")
    return None


def health(_: RequestFacts, backend: Backend, signals: BackendSignals, __: float) -> Removed | None:
    """5. It is up and its breaker is closed."""
    if signals.health != "up":
        return Removed(backend.name, "health", signals.health_reason or f"is {signals.health}")
    if signals.breaker_open:
        return Removed(backend.name, "health", "breaker open after repeated failures")
    return None


def budget(facts: RequestFacts, backend: Backend, signals: BackendSignals, _: float) -> Removed | None:
    """6. No rung of the degrade ladder leaves it out; its upper bound fits the budgets' headroom and the request's own
    limit."""
    if backend.tariff is None:
        # An unknown price is never 0: the config's check bars such a backend, and so does this.
        return None if backend.local else Removed(backend.name, "price", "its price is not known; give it a `price:`")
    if not backend.tariff.knows(facts.service):
        detail = f"its price for service_tier {facts.service!r} is not known; leave it out, or give it a `price:` step"
        return Removed(backend.name, "price", detail)
    if backend.rungs and signals.budget_used is not None:
        rung = degrade.reached(backend.rungs, signals.budget_used)
        if rung is not None:
            return Removed(backend.name, "budget", degrade.sentence(rung, signals.budget_used))
    own, left = facts.hints.max_cost_nano, signals.budget_left_nano
    if own is None and left is None:
        return None
    bound = cost_bound_nano(facts, backend)
    if own is not None and bound > own:
        detail = f"could cost {tariff.usd(bound)} USD, over x-spillway-max-cost-usd"
        return Removed(backend.name, "budget", detail)
    if left is not None and bound > left:
        detail = f"could cost {tariff.usd(bound)} USD, the budget has {tariff.usd(max(0, left))} USD left"
        return Removed(backend.name, "budget", detail)
    return None


def rate_limit(_: RequestFacts, backend: Backend, signals: BackendSignals, now: float) -> Removed | None:
    """7. Its provider did not ask us to wait."""
    if signals.limited_until > now:
        wait = signals.limited_until - now
        return Removed(backend.name, "rate_limit", f"the provider asked to wait {wait:.1f} s more")
    return None


def worth_its_cost(doubt: ExpectedGain, backend: Backend, signals: BackendSignals) -> Removed | None:
    """For escalations: the gain is worth its cost at the price of gain that a paced budget has now."""
    if not signals.price_of_gain or backend.tariff is None:
        return None
    cost = tariff.price(doubt.usage, backend.tariff)
    if pacing.worth(doubt.gain, cost / tariff.NANO, signals.price_of_gain):
        return None
    detail = (
        f"a gain of {doubt.gain:.3g} for {tariff.usd(cost)} USD is below the {signals.price_of_gain:.4g} per USD that "
        "the paced budget asks now"
    )
    return Removed(backend.name, "budget", detail)


FILTERS: tuple[Filter, ...] = (access, privacy, preferences, capability, health, budget, rate_limit)
_WITHOUT_WISHES = (capability, health, budget, rate_limit)


def applicable_filters(facts: RequestFacts) -> tuple[Filter, ...]:
    """Those of FILTERS that can remove anything for this request: the first three only look at what it asks for, and
    nearly every request asks for nothing."""
    plain = facts.hints.route == "auto" and facts.preferences is NO_PREFERENCES
    open_to_all = facts.privacy.may_leave and not facts.caller.local_only
    return _WITHOUT_WISHES if plain and open_to_all else FILTERS
