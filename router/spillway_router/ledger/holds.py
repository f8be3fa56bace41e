"""Holds: the money set aside before an attempt, how the attempt ended, and the ledger entries that record both. No I/O.

The words for money along this way, all in integer nano-dollars:

    bound_nano      the most that an attempt can cost, computed before it is sent (core/routing/filters.py)
    reserved_nano   the bound while it counts against the budgets, in an entry or summed in a balance
    charge_nano     what the attempt cost when it ended; in an entry it is `amount_nano`, the column of all amounts
    spent_nano      charges and adjustments, summed in a balance
    taken_nano      spent and reserved together: what is no longer free
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Literal

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.attribution import WorkCoefficients, work_share_us
from spillway_router.core.money.bounds import MOST_UNKNOWN_TOKENS, NO_RULES, fees_of
from spillway_router.core.money.tariff import Extras, Tariff, Usage, price, upper_bound
from spillway_router.core.money.users import anonymous_id
from spillway_router.core.routing.model import SEMANTIC, Backend, CacheHit, DecisionKind, RequestFacts
from spillway_router.ledger.entries import CACHE, REST, Entry, Status, counts_text


@fast_frozen(frozen=True, slots=True)
class AttemptReason:
    """The decision behind an attempt, and its reason tokens."""

    kind: DecisionKind
    reasons: tuple[str, ...]


@fast_frozen(frozen=True, slots=True)
class Hold:
    """Permission to make an attempt, with the money set aside for it.

    `bound_nano` is 0 and `stored` is False at backends without a price, where nothing has to be set aside.
    """

    facts: RequestFacts
    backend: Backend
    reason: AttemptReason
    attempt_no: int
    held_ms: int
    """Epoch milliseconds; the cost counts in the budget periods of this time."""
    bound_nano: int = 0
    stored: bool = False


@fast_frozen(frozen=True, slots=True)
class HoldRefused:
    """No hold was granted.

    The `code` is "budget" when a budget has no room, and "ledger" when the ledger can't promise durability.
    """

    code: str
    message: str


@fast_frozen(frozen=True, slots=True)
class ExcessCharge:
    """A charge above the hold that was taken for it: the bound was wrong, or the provider's bill is."""

    request_id: str
    attempt_no: int
    backend: str
    charge_nano: int
    bound_nano: int


@fast_frozen(frozen=True, slots=True)
class AttemptResult:
    """How an attempt ended, as far as its charge depends on it.

    A `usage` of None means that the usage is unknown; a paid attempt is then charged its bound.
    """

    status: Status
    usage: Usage | None = None
    billed: bool = True
    confidence: float | None = None
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    """From sending to the end; a price per second is multiplied by it."""
    took_s: float = 0.0
    """From the request's arrival to the end; kept where the request is in an experiment."""
    estimated: bool = False
    """Whether the usage is an estimate. The attempt may then have cost as much as its whole bound."""
    keeps_bound: bool = False
    """Whether budgets go on holding what an estimate leaves of the bound, until the cost is known: the client left, and
    the provider may have gone on."""


@fast_frozen(frozen=True, slots=True)
class AttemptEntries:
    """Creates the ledger entries of this process's attempts. `wall` returns epoch seconds.

    `names_users` says whether the entries of all paid attempts name the end user, because every user has a cap. Those
    of keys whose users have one name them in any case.
    """

    router_id: str
    coefficients: WorkCoefficients
    wall: Callable[[], float]
    names_users: bool = False

    def user_id(self, facts: RequestFacts) -> str:
        """Return the user to whom a paid attempt of this request belongs; empty if users have no caps."""
        rules = facts.caller.rules
        if not self.names_users and (rules is None or rules.user_budget is None):
            return ""
        return facts.user_id or anonymous_id(facts.caller.key_id)

    def reserved(self, hold: Hold) -> Entry:
        """Return the entry that reserves the bound."""
        return self._of_hold("reserved", hold, hold.bound_nano)

    def released(self, hold: Hold) -> Entry:
        """Return the entry that releases the bound."""
        return self._of_hold("released", hold, 0)

    def closing(self, hold: Hold, backend: Backend, result: AttemptResult) -> Entry:
        """Return the entry that ends an attempt: charged with its cost, or released if it cost nothing."""
        usage, tariff = result.usage, backend.tariff
        charge_nano = gpu_us = 0
        charge = None
        if tariff is not None and result.billed:
            charge = _charge(hold, tariff, backend.longest_s, result)
            if charge.nano > hold.bound_nano and not _is_possible(hold, tariff, charge):
                usage, charge = None, _bound_of(hold, tariff)
            charge_nano = charge.nano
        elif backend.local and usage is not None:
            gpu_us = work_share_us(
                usage.uncached_tokens, usage.prompt_tokens, usage.completion_tokens, self.coefficients
            )
        counts = _NO_USAGE if usage is None else usage
        facts, caller, reason = hold.facts, hold.facts.caller, hold.reason
        # Every request makes one of these, and the constructor of a named tuple is an interpreted function.
        values = (
            "charged" if charge_nano or backend.local or result.billed else "released",
            facts.request_id,
            hold.attempt_no,
            int(self.wall() * 1000),
            backend.name,
            backend.provider,
            counts.model or backend.model,
            backend.local,
            caller.key_id,
            caller.tier,
            reason.kind,
            ",".join(result.reasons or reason.reasons),
            "unknown" if charge is not None and charge.status_unknown else result.status,
            counts.prompt_tokens,
            counts.completion_tokens,
            counts.cached_tokens,
            counts.reasoning_tokens,
            gpu_us,
            charge_nano,
            0,
            "" if tariff is None else tariff.ref if charge is None else charge.tariff_ref,
            result.confidence,
            facts.work,
            facts.document,
            self.router_id,
            *REST,
        )
        entry = tuple.__new__(Entry, values)
        if charge is not None:
            entry = _with_bill(entry, charge)
        if tariff is not None and (user_id := self.user_id(facts)):
            entry = entry._replace(user_id=user_id)
        if facts.experiment:
            entry = entry._replace(experiment=facts.experiment, took_ms=int(result.took_s * 1000))
        return entry

    def cached(self, facts: RequestFacts, hit: CacheHit) -> Entry:
        """Return the entry of a request that got a stored answer: it cost nothing, and saved what that had cost."""
        return Entry(
            kind="charged",
            request_id=facts.request_id,
            attempt_no=1,
            ts=int(self.wall() * 1000),
            backend=CACHE,
            provider=CACHE,
            model=hit.model,
            key_id=facts.caller.key_id,
            tier=facts.caller.tier,
            decision=CACHE,
            reasons="" if hit.similarity is None else SEMANTIC,
            status="ok",
            prompt_tokens=hit.usage.prompt_tokens,
            completion_tokens=hit.usage.completion_tokens,
            cached_tokens=hit.usage.cached_tokens,
            reasoning_tokens=hit.usage.reasoning_tokens,
            task=facts.work,
            router_id=self.router_id,
            saved_nano=hit.saved_nano,
            experiment=facts.experiment,
        )

    def _of_hold(self, kind: Literal["reserved", "released"], hold: Hold, reserved_nano: int) -> Entry:
        backend, caller = hold.backend, hold.facts.caller
        return Entry(
            kind=kind,
            request_id=hold.facts.request_id,
            attempt_no=hold.attempt_no,
            ts=hold.held_ms,
            backend=backend.name,
            provider=backend.provider,
            model=backend.model,
            local=backend.local,
            key_id=caller.key_id,
            tier=caller.tier,
            decision=hold.reason.kind,
            reasons=",".join(hold.reason.reasons),
            reserved_nano=reserved_nano,
            tariff_ref="" if backend.tariff is None else backend.tariff.ref,
            task=hold.facts.work,
            document=hold.facts.document,
            router_id=self.router_id,
            user_id=self.user_id(hold.facts),
            experiment=hold.facts.experiment,
        )


_NO_USAGE = Usage(0, 0)
TOLD_REF = "usage.cost"
"""The `tariff_ref` of a charge that the provider itself named in its answer."""


@fast_frozen(frozen=True, slots=True)
class _Charge:
    """The charge of a billed attempt, and what it was computed from.

    `usage` has the uses of tools by the names of their fees. `at_most_nano` is above 0 if the charge is not known for
    sure, `kept_nano` is what budgets go on holding then; `status_unknown` says that nobody knows it at all, or that it
    is above the bound, so that somebody must look at it.
    """

    nano: int
    usage: Usage
    tariff_ref: str
    billed_us: int = 0
    at_most_nano: int = 0
    kept_nano: int = 0
    status_unknown: bool = False


def _with_bill(entry: Entry, charge: _Charge) -> Entry:
    """Return the entry with what the charge was computed from, where that is more than its tokens."""
    usage = charge.usage
    counts = usage.cache_write_tokens or usage.calls or usage.media
    if not (charge.billed_us or charge.at_most_nano or usage.service or counts):
        return entry
    return entry._replace(
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_long_tokens=usage.cache_write_long_tokens,
        service=usage.service,
        billed_us=charge.billed_us,
        media_tokens=counts_text(usage.media),
        calls=counts_text(usage.calls),
        reserved_nano=charge.kept_nano,
        estimated_nano=charge.nano if charge.at_most_nano else 0,
        at_most_nano=charge.at_most_nano,
    )


MOST_USES = 100
"""More uses of tools than any call has."""


def _is_possible(hold: Hold, tariff: Tariff, charge: _Charge) -> bool:
    """Return whether a call can use or cost that much: its model's whole context as input and as output, once more for
    each of at most MOST_USES uses of tools. More than that is nonsense, and must not close a budget."""
    usage, choices = charge.usage, max(hold.facts.choices, hold.facts.billed_choices)
    uses = sum([count for _, count in usage.calls])
    if uses > MOST_USES:
        return False
    tokens = (hold.backend.context_tokens or MOST_UNKNOWN_TOKENS) * (1 + uses)
    if usage.told_nano is None:
        return usage.prompt_tokens <= tokens and usage.completion_tokens <= tokens * choices
    extras = Extras(service=usage.service, calls=usage.calls, media=True)
    most_nano = upper_bound(tariff, tokens, tokens * choices, extras)
    return charge.nano <= most_nano


def _with_fees(hold: Hold, usage: Usage) -> Usage:
    """Return the usage with the calls of tools by the names of their fees."""
    if not usage.calls:
        return usage
    rules = hold.backend.item_rules.get(hold.facts.endpoint, NO_RULES)
    return replace(usage, calls=fees_of(usage.calls, hold.facts.items, rules))


def _charge(hold: Hold, tariff: Tariff, longest_s: int, result: AttemptResult) -> _Charge:
    """Return the charge of a billed attempt: its bound if tokens have a price and their number is unknown."""
    usage = result.usage
    if usage is None and tariff.by_tokens:
        return _bound_of(hold, tariff)
    is_known = usage is not None
    usage = _NO_USAGE if usage is None else _with_fees(hold, usage)
    if usage.told_nano is not None:
        charge = _Charge(usage.told_nano, usage, TOLD_REF)
        return charge if charge.nano <= hold.bound_nano else _unsure(hold, charge)
    billed_us = 0
    if tariff.per_second:
        # The attempt was cut off at `longest_s`; any time beyond that on the clock is our own delay. Milliseconds are
        # rounded up.
        billed_us = math.ceil(min(result.seconds, longest_s) * 1000) * 1000
    nano = price(usage, tariff, Decimal(billed_us).scaleb(-6) if billed_us else 0)
    charge = _Charge(nano=nano, usage=usage, tariff_ref=tariff.ref, billed_us=billed_us)
    is_priced = tariff.knows(usage.service) and tariff.prices_calls(usage) and tariff.prices_media(usage)
    if not is_priced or (tariff.by_tokens and not usage.certain):  # an unknown price or count is never 0
        return _unsure(hold, replace(charge, nano=max(nano, hold.bound_nano)))
    if nano > hold.bound_nano or (nano and not is_known):
        return _unsure(hold, charge)
    if result.estimated:
        kept_nano = hold.bound_nano - nano if result.keeps_bound else 0
        return replace(charge, at_most_nano=hold.bound_nano, kept_nano=kept_nano)
    return charge


def _bound_of(hold: Hold, tariff: Tariff) -> _Charge:
    """Return the charge of a call whose usage nobody knows."""
    return _unsure(hold, _Charge(hold.bound_nano, _NO_USAGE, tariff.ref))


def _unsure(hold: Hold, charge: _Charge) -> _Charge:
    return replace(charge, at_most_nano=max(charge.nano, hold.bound_nano), status_unknown=charge.nano > 0)
