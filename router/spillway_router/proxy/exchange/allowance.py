"""What a request needs of the limits of its key and its user, from its decision to its end: a place among those in
progress and tokens (request/key_loads.py), and credits (ledger/credits.py)."""

from __future__ import annotations

from datetime import UTC, datetime

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.budget import period_end
from spillway_router.core.money.credits import CreditCap
from spillway_router.core.routing.filters import output_bound
from spillway_router.core.routing.model import Decision, Refusal, RequestFacts, RequestRecord
from spillway_router.ledger.errors import LedgerError
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.key_loads import KeyShare

_BYTES_PER_TOKEN = 3


@fast_frozen(frozen=True, slots=True)
class Allowance:
    """What a request has taken of its limits."""

    share: KeyShare | None = None
    credits: tuple[CreditCap, ...] = ()


NO_ALLOWANCE = Allowance()


async def take_allowance(services: Services, facts: RequestFacts, tokens: int, *, better: bool) -> Allowance | Refusal:
    """Take what a request needs of its limits, or return its 429 or 402. `settle_allowance` has to follow.

    `tokens` count until its usage is known; `better`: it asks for a better answer.
    """
    rules, now_s = facts.caller.rules, services.clock()
    share = None
    if rules is not None and (rules.concurrent or rules.tokens_per_minute):
        entered = services.key_loads.enter(facts.caller.key_id, rules, tokens, now_s)
        if isinstance(entered, Refusal):
            return entered
        share = entered
    caps = services.credits.caps(facts, better=better)
    if not caps:
        return NO_ALLOWANCE if share is None else Allowance(share)
    taken = False
    try:
        refusal = await _take_credits(services, caps)
        taken = refusal is None
    finally:
        if not taken and share is not None:
            services.key_loads.leave(share, 0, services.clock())
    return Allowance(share, caps) if refusal is None else refusal


def settle_allowance(services: Services, allowance: Allowance, record: RequestRecord) -> None:
    """Give back the place, the tokens that no attempt used, and, if nobody answered, the credits.

    An attempt whose usage nobody told counts with all tokens that were taken, unless its provider can't have worked on
    it. Whoever leaves while a backend works on the answer gets no credit back.
    """
    if allowance is NO_ALLOWANCE:
        return
    if allowance.credits and record.status != 200 and not (record.status == 499 and record.attempts):
        services.credits.give_back(allowance.credits)
    share = allowance.share
    if share is None:
        return
    used = 0
    for attempt in record.attempts:
        usage, outcome = attempt.outcome.usage, attempt.outcome
        if usage is not None:
            used += usage.prompt_tokens + usage.completion_tokens
        elif attempt.draining or outcome.billed:
            used += share.tokens
    services.key_loads.leave(share, used, services.clock())


def most_tokens(facts: RequestFacts, decision: Decision) -> int:
    """Return the tokens with which a request counts until its usage is known: its prompt as predicted for the first
    candidate, and the most output there; 0 if only a stored answer can answer it."""
    if not decision.candidates:
        return 0
    first = decision.candidates[0]
    output = 0 if facts.endpoint == "embeddings" else output_bound(facts, first.backend)
    return first.prompt_tokens + output * max(facts.choices, facts.billed_choices)


def document_tokens(facts: RequestFacts) -> int:
    """Return the tokens with which a document counts until its steps are known, which are decided one by one."""
    return facts.prompt_bytes // _BYTES_PER_TOKEN + 1


async def _take_credits(services: Services, caps: tuple[CreditCap, ...]) -> Refusal | None:
    try:
        full = await services.credits.take(caps)
    except LedgerError as error:
        message = f"This key or user has a number of requests, which the ledger counts, and it is away: {error}"
        return Refusal(503, "ledger_unavailable", message, retry_after_s=5)
    return None if full is None else _none_left(full)


def _none_left(cap: CreditCap) -> Refusal:
    kind, _, name = cap.scope.partition(":")
    whose = {"user": "This user", "key": "This key", "tier": f"The tier {name}"}.get(kind, "This router")
    what = "requests" if cap.counted == "requests" else "better answers"
    again = datetime.fromtimestamp(period_end(cap.period, cap.start_ms // 1000), UTC)
    used = f"{whose} has used its {cap.limit} {what} per {cap.period}"
    message = f"{used}. There are new ones from {again:%Y-%m-%d %H:%M} UTC on."
    return Refusal(402, "budget_exceeded", message)
