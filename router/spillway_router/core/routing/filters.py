"""The filters: rules that can remove a backend from the candidates, one function each, in the order of the policy.

Every filter takes the same four values: the request, the backend, its signals and the monotonic clock in seconds. It
returns None if the backend stays, else a `Removed` with a reason token and a sentence. No filter brings a backend back:
restrictions only accumulate.
"""

from __future__ import annotations

from collections.abc import Callable

from spillway_router.core.money import bounds, degrade, pacing, tariff
from spillway_router.core.money.currency import IN_USD
from spillway_router.core.routing import pictures
from spillway_router.core.routing.key_access import own_names
from spillway_router.core.routing.model import (
    NO_PREFERENCES,
    Backend,
    BackendSignals,
    ExpectedGain,
    Preferences,
    Removed,
    RequestFacts,
)

TEMPLATE_TOKENS = 64
"""Most tokens that a chat template adds per request, for cost bounds. What it adds per message is covered by the JSON
framing bytes, which count as prompt bytes."""

Filter = Callable[[RequestFacts, Backend, BackendSignals, float], Removed | None]


def output_bound(facts: RequestFacts, backend: Backend) -> int:
    """Return the most output tokens per choice that the request can cause at `backend`."""
    if facts.endpoint == "embeddings":
        return 0
    return facts.max_tokens if facts.max_tokens is not None else backend.max_output_tokens


def cost_bound_nano(facts: RequestFacts, backend: Backend) -> int:
    """Return the most that the request can cost at `backend`, in nano-dollars; 0 for a local backend."""
    price = backend.tariff
    if price is None:
        return 0
    costs = item_costs(facts, backend)
    input_tokens = most_input_tokens(facts, backend, costs) + TEMPLATE_TOKENS * costs.passes
    output_tokens = (output_bound(facts, backend) + costs.output_tokens) * costs.output_passes
    output_tokens *= max(facts.choices, facts.billed_choices)
    if facts.service == tariff.STANDARD and not costs.calls and not costs.fills_context:  # nearly every request
        bound_nano = tariff.flat_bound(price, input_tokens, output_tokens)
        if bound_nano is not None:
            return bound_nano
    extras = tariff.Extras(
        seconds=backend.longest_s,
        service=facts.service,
        default_modes=backend.default_modes,
        calls=costs.calls,
        media=costs.fills_context,  # sound and pictures to be made are among what nobody knows the cost of
    )
    return tariff.upper_bound(price, input_tokens, output_tokens, extras)


_NO_COSTS = bounds.ItemCosts()


def item_costs(facts: RequestFacts, backend: Backend) -> bounds.ItemCosts:
    """Return what the request's items add to its bound at `backend`."""
    if not facts.items:
        return _NO_COSTS
    return bounds.item_costs(facts.items, backend.item_rules.get(facts.endpoint, bounds.NO_RULES))


def most_input_tokens(facts: RequestFacts, backend: Backend, costs: bounds.ItemCosts) -> int:
    """Return the most input tokens that may be billed, without the chat template: bytes of text, pictures, and what
    the items add or hide, once for each time that the input is read."""
    unseen, context = facts.unseen_tokens, backend.context_tokens
    if facts.pictures:
        unseen += sum([pictures.most_tokens(backend.provider, backend.model, size) for size in facts.pictures])
    if costs.fills_context:
        unseen = max(unseen, bounds.MOST_UNKNOWN_TOKENS if context is None else context)
    if unseen and context is not None:
        unseen = min(unseen, max(0, context - facts.prompt_bytes))
    return (facts.prompt_bytes + unseen + costs.input_tokens) * costs.passes


def expected_prompt_tokens(facts: RequestFacts, signals: BackendSignals) -> int:
    """Return the expected prompt tokens; the learned ratio of tokens to bytes is biased high."""
    tokens = TEMPLATE_TOKENS // 4 + int(facts.prompt_bytes * signals.tokens_per_byte) + 1
    if facts.pictures or facts.media_tokens:
        tokens += facts.media_tokens + sum([pictures.expected_tokens(size) for size in facts.pictures])
    return tokens


def access(facts: RequestFacts, backend: Backend, _: BackendSignals, __: float) -> Removed | None:
    """1. Require that the key may use the backend, and keep the side (local or cloud) that the route hint asks for."""
    route, rules = facts.hints.route, facts.caller.rules
    if rules is not None and rules.backends and backend.name not in rules.backends:
        return Removed(backend.name, "key", "this key may not use it")
    if route == "auto":
        return None
    if route == "local" and not backend.local:
        return Removed(backend.name, "route", "the request asks for local only (x-spillway-route)")
    if route == "cloud" and backend.local:
        return Removed(backend.name, "route", "the request asks for cloud only (x-spillway-route)")
    return None


def own_key(facts: RequestFacts, backend: Backend, _: BackendSignals, __: float) -> Removed | None:
    """For callers who bring a provider's key: require that our key lists the model, if it lists any."""
    rules = facts.caller.rules
    if rules is None or not rules.models or not rules.models.isdisjoint(own_names(backend)):
        return None
    return Removed(backend.name, "key", "this key may not use its model")


def privacy(facts: RequestFacts, backend: Backend, _: BackendSignals, __: float) -> Removed | None:
    """2. Keep private content on local backends."""
    # This filter is the last gate, so the key's own mark counts even where the verdict left it out.
    if backend.local or (facts.privacy.may_leave and not facts.caller.local_only):
        return None
    marks = ", ".join(facts.privacy.reasons) or ("key" if facts.caller.local_only else "default")
    return Removed(backend.name, "privacy", f"private content must not leave (marked by {marks})")


def preferences(facts: RequestFacts, backend: Backend, _: BackendSignals, __: float) -> Removed | None:
    """3. Apply the client's `provider` field: order without fallbacks, only, ignore, max_price, and what a provider
    must promise."""
    client_preferences = facts.preferences
    if client_preferences is NO_PREFERENCES:
        return None
    names = {backend.name.lower(), backend.provider}
    if client_preferences.only and not names & client_preferences.only:
        return Removed(backend.name, "preference", "not in provider.only")
    if names & client_preferences.ignore:
        return Removed(backend.name, "preference", "listed in provider.ignore")
    if (
        client_preferences.order
        and not client_preferences.allow_fallbacks
        and names.isdisjoint(client_preferences.order)
    ):
        return Removed(backend.name, "preference", "not in provider.order, and provider.allow_fallbacks is false")
    return _promise_missing(client_preferences, backend) or _too_dear(client_preferences, backend)


def _promise_missing(wanted: Preferences, backend: Backend) -> Removed | None:
    """Require what the client wants its provider to promise. What nobody knows of a backend is not promised."""
    if wanted.no_data_collection and backend.collects_data:
        return Removed(backend.name, "preference", "may collect data (provider.data_collection is deny)")
    keeps_none = backend.local or backend.zero_retention or backend.knows_preferences
    if wanted.zero_retention and not keeps_none:
        detail = (
            "may keep requests for a while (provider.zdr is true); if its provider has agreed to keep none, set "
            f"backends[{backend.name}].zero_data_retention: true"
        )
        return Removed(backend.name, "preference", detail)
    unused = wanted.needed_fields & backend.drops_fields
    if unused:
        detail = f"does not take {', '.join(sorted(unused))} (provider.require_parameters is true)"
        return Removed(backend.name, "preference", detail)
    if wanted.unjudged and not backend.knows_preferences:
        return Removed(backend.name, "preference", f"nobody knows whether it keeps to {wanted.unjudged[0]}")
    return None


def _too_dear(wanted: Preferences, backend: Backend) -> Removed | None:
    price = backend.tariff
    if price is None:
        return None
    limits = (
        (wanted.max_input_per_million, price.input_per_million, "prompt"),
        (wanted.max_output_per_million, price.output_per_million, "completion"),
        (wanted.max_per_request, price.per_request, "request"),
    )
    for limit, actual, name in limits:
        if limit is not None and actual > limit:
            return Removed(backend.name, "preference", f"costs more than provider.max_price.{name}")
    return None


def capability(facts: RequestFacts, backend: Backend, signals: BackendSignals, _: float) -> Removed | None:
    """4. Require the endpoint, the features and the context length."""
    if facts.endpoint not in backend.endpoints:
        return Removed(backend.name, "endpoint", f"does not serve {facts.endpoint}")
    if facts.stored_at is not None and backend.name not in facts.stored_at:
        return Removed(backend.name, "capability", "does not have the response that previous_response_id names")
    if facts.needs and not (facts.needs <= backend.capabilities and facts.needs.isdisjoint(signals.engine_lacks)):
        missing = (facts.needs - backend.capabilities) | (facts.needs & signals.engine_lacks)
        return Removed(backend.name, "capability", f"does not support {', '.join(sorted(missing))}")
    if backend.max_inputs is not None and facts.inputs > backend.max_inputs:
        split = _split_problem(facts, backend)
        if split is not None:
            return split
    context, reported = backend.context_tokens, signals.engine_context_tokens
    if reported is not None and (context is None or reported < context):
        context = reported
    if context is not None:
        # Only a certain misfit removes the backend: the estimate is biased high, so half of it counts, unless nobody
        # would hear of a prompt that was cut. Of several inputs each has the context for itself, and the longest is at
        # least as long as their mean.
        share = 1 if backend.hides_too_long else 2
        needed = expected_prompt_tokens(facts, signals) // (share * facts.inputs) + (facts.max_tokens or 1)
        if needed > context:
            return Removed(backend.name, "context", f"needs about {needed} tokens, has room for {context}")
    return None


def _split_problem(facts: RequestFacts, backend: Backend) -> Removed | None:
    """Require that a request with more inputs than one call takes can be split: its hold has one price per request."""
    price = backend.tariff
    if price is None or not price.per_request:
        return None
    detail = f"takes {backend.max_inputs} inputs per request, each with a price of its own, and got {facts.inputs}"
    return Removed(backend.name, "capability", detail, "input")


def health(facts: RequestFacts, backend: Backend, signals: BackendSignals, __: float) -> Removed | None:
    """5. Require that the backend is up and its breaker closed."""
    if signals.health != "up":
        return Removed(backend.name, "health", signals.health_reason or f"is {signals.health}")
    if signals.breaker_open or (signals.breaker_open_for and facts.caller.key_id in signals.breaker_open_for):
        return Removed(backend.name, "health", signals.breaker_reason or "its breaker is open")
    return None


def budget(facts: RequestFacts, backend: Backend, signals: BackendSignals, _: float) -> Removed | None:
    """6. Require that no degrade step drops the backend, and that the request's upper bound fits into the budgets and
    under the request's own limit."""
    if backend.tariff is None:
        # An unknown price never counts as 0. `spillway check` rejects such a backend, and so does this filter.
        return None if backend.local else Removed(backend.name, "price", "its price is unknown; add a `price:` for it")
    if not backend.tariff.knows(facts.service):
        detail = (
            f"its price in the mode {facts.service!r} is unknown; leave out the field that asks for it"
            " (service_tier, speed or inference_geo), or add a `price:` step for it"
        )
        return Removed(backend.name, "price", detail)
    if backend.degrade_steps and signals.budget_used is not None:
        step = degrade.reached(backend.degrade_steps, signals.budget_used)
        if step is not None:
            return Removed(backend.name, "budget", degrade.sentence(step, signals.budget_used))
    limit_nano, left_nano = facts.hints.max_cost_nano, signals.headroom_nano
    if limit_nano is None and left_nano is None:
        return None
    if facts.items or backend.unbounded_model is not None:
        unbounded = _unbounded(facts, backend)
        if unbounded is not None:
            return unbounded
    if signals.refused_bounds and not (backend.holds_unbounded or backend.tariff.free):
        detail = (
            f"it refuses the {' and the '.join(signals.refused_bounds)} that the router adds, and a budget needs a "
            f"bound; set backends[{backend.name}].output_bound_field or .unbounded: hold"
        )
        return Removed(backend.name, "unbounded", detail)
    bound_nano = cost_bound_nano(facts, backend)
    if limit_nano is not None and bound_nano > limit_nano:
        detail = f"could cost {IN_USD.money(bound_nano)}, over x-spillway-max-cost-usd"
        return Removed(backend.name, "budget", detail)
    if left_nano is not None and bound_nano > left_nano:
        left = IN_USD.money(max(0, left_nano))
        detail = f"could cost {IN_USD.money(bound_nano)}, the budget has {left} left"
        return Removed(backend.name, "budget", detail)
    return None


def _unbounded(facts: RequestFacts, backend: Backend) -> Removed | None:
    """Under a cap, require that the cost of everything in the request is bounded, unless the backend may hold it."""
    price = backend.tariff
    if price is None or price.free or backend.holds_unbounded:
        return None
    model = backend.unbounded_model
    if model is not None:
        permit = f"a budget needs a bound; set backends[{backend.name}].{model.settings} to permit it"
        return Removed(backend.name, "unbounded", f"{model.reason}: {permit}")
    permit = f"a budget needs a bound; set backends[{backend.name}].unbounded: hold to permit it"
    unbounded = bounds.unbounded(
        facts.items,
        backend.item_rules.get(facts.endpoint, bounds.NO_RULES),
        price.fee_units,
        backend.context_tokens,
    )
    if unbounded is None:
        return None
    item, reason = unbounded
    return Removed(backend.name, "unbounded", f"'{item.where}' ({item.name}): {reason}; {permit}", item.where)


def rate_limit(_: RequestFacts, backend: Backend, signals: BackendSignals, monotonic_s: float) -> Removed | None:
    """7. Respect a provider that asked us to wait."""
    wait_s = signals.limited_until - monotonic_s
    if wait_s > 0:
        return Removed(backend.name, "rate_limit", f"the provider asked to wait {wait_s:.1f} s more")
    return None


def worth_its_cost(gain: ExpectedGain, backend: Backend, signals: BackendSignals) -> Removed | None:
    """For escalations only: require that the gain justifies its cost at the paced budget's present price of gain."""
    if not signals.price_of_gain or backend.tariff is None:
        return None
    cost_nano = tariff.price(gain.usage, backend.tariff)
    if pacing.worth(gain.gain, cost_nano / tariff.NANO, signals.price_of_gain):
        return None
    detail = (
        f"a gain of {gain.gain:.3g} for {IN_USD.money(cost_nano)} is below the {signals.price_of_gain:.4g} per USD "
        "that the paced budget requires now"
    )
    return Removed(backend.name, "budget", detail)


FILTERS: tuple[Filter, ...] = (access, privacy, preferences, capability, health, budget, rate_limit)
_WITHOUT_RESTRICTIONS = (capability, health, budget, rate_limit)


def applicable_filters(facts: RequestFacts) -> tuple[Filter, ...]:
    """Return the FILTERS that can remove anything for this request.

    The first three only look at what the request itself restricts, and nearly every request restricts nothing.
    """
    plain = facts.hints.route == "auto" and facts.preferences is NO_PREFERENCES and facts.caller.rules is None
    public = facts.privacy.may_leave and not facts.caller.local_only
    return _WITHOUT_RESTRICTIONS if plain and public else FILTERS
