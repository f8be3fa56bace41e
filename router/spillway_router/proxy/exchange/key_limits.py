"""A request against the limits of its key: how many at once, and how many tokens per minute (request/key_loads.py)."""

from __future__ import annotations

from collections.abc import Iterable

from spillway_router.core.routing.filters import output_bound
from spillway_router.core.routing.model import Attempt, Decision, Refusal, RequestFacts
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.key_loads import KeyShare

_BYTES_PER_TOKEN = 3


def enter_limits(services: Services, facts: RequestFacts, decision: Decision) -> KeyShare | Refusal | None:
    """Take what a request needs of its key's limits, or return its 429; None if its key has no such limits, or if no
    backend may be asked.

    Until its usage is known, a request counts with its prompt as predicted for the first candidate, and with the most
    output there.
    """
    if not _is_limited(facts) or not decision.candidates:
        return None
    first = decision.candidates[0]
    output = 0 if facts.endpoint == "embeddings" else output_bound(facts, first.backend)
    return _enter(services, facts, first.prompt_tokens + output * max(facts.choices, facts.billed_choices))


def enter_document_limits(services: Services, facts: RequestFacts) -> KeyShare | Refusal | None:
    """Do the same for a document, whose steps are decided one by one: it counts with its text until they are known."""
    return _enter(services, facts, facts.prompt_bytes // _BYTES_PER_TOKEN + 1) if _is_limited(facts) else None


def leave_limits(services: Services, share: KeyShare | None, attempts: Iterable[Attempt]) -> None:
    """Give back what a request took, but for the tokens that its attempts used. One whose usage nobody told counts with
    all that was taken, unless its provider can't have worked on it."""
    if share is None:
        return
    used = 0
    for attempt in attempts:
        usage, outcome = attempt.outcome.usage, attempt.outcome
        if usage is not None:
            used += usage.prompt_tokens + usage.completion_tokens
        elif attempt.draining or outcome.billed:
            used += share.tokens
    services.key_loads.leave(share, used, services.clock())


def _is_limited(facts: RequestFacts) -> bool:
    rules = facts.caller.rules
    return rules is not None and (rules.concurrent > 0 or rules.tokens_per_minute > 0)


def _enter(services: Services, facts: RequestFacts, tokens: int) -> KeyShare | Refusal:
    rules = facts.caller.rules
    assert rules is not None
    return services.key_loads.enter(facts.caller.key_id, rules, tokens, services.clock())
