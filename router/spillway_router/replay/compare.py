"""Replays the same stream of requests under several policies at once, so that it is read only once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from spillway_router.core.replay.past import PastRequest
from spillway_router.core.replay.replay import Replay
from spillway_router.core.replay.tally import Tally
from spillway_router.core.routing.model import Caller
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.tables.feedback import SATISFIED
from spillway_router.ledger.tables.keys import rules_of
from spillway_router.replay.ledger_rows import HORIZON_MS, Judgement, LedgerRequests, RecordedRequest
from spillway_router.replay.policies import NamedPolicy
from spillway_router.replay.rows import PolicyRow, policy_row, shares

MOST_JUDGED = 500_000
"""Judgements that are kept of each kind, the oldest ones of the time: about 60 MB."""
END = "req_g"
"""The text before which all request ids stand."""
RECORDED = "recorded"
"""The name of the row that says what the ledger says."""
EVERY = 1000
"""After how many requests progress is told."""


def compared(
    requests: Iterable[PastRequest], policies: Sequence[NamedPolicy], progress: Callable[[int], object]
) -> list[PolicyRow]:
    """Return what each policy does with the requests, in the order of the policies."""
    replays = [Replay(policy.terms) for policy in policies]
    for number, request in enumerate(requests, 1):
        for replay in replays:
            replay.arrive(request)
        if number % EVERY == 0:
            progress(number)
    return [policy_row(policy.name, replay.end(), policy.gpu) for policy, replay in zip(policies, replays, strict=True)]


def ledger_requests(ledger: Ledger, start_ms: int, end_ms: int, any_model: frozenset[str]) -> LedgerRequests:
    """Return the requests of a ledger whose rows lie in [start, end), epoch milliseconds."""
    return LedgerRequests(
        ledger.entries_between(start_ms, end_ms),
        _callers(ledger),
        _judged(ledger, start_ms),
        any_model=any_model,
        traits=ledger.traits.all(start_ms - HORIZON_MS),
    )


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest requests of a ledger, and whether it has older ones."""

    requests: LedgerRequests
    older_left_out: bool


def newest_requests(ledger: Ledger, most_rows: int, any_model: frozenset[str]) -> Newest:
    """Return the requests of at most so many rows of a ledger, the newest ones, in the order in which they came. One
    whose rows may be incomplete is left out."""
    entries = ledger.entries_before(END, most_rows + 1)
    older_left_out = len(entries) > most_rows
    if older_left_out:
        oldest = entries[-1].request_id
        entries = tuple(entry for entry in entries if entry.request_id != oldest)
    rows = sorted(entries, key=lambda entry: entry.ts)
    start_ms = rows[0].ts if rows else 0
    requests = LedgerRequests(
        rows,
        _callers(ledger),
        _judged(ledger, start_ms),
        any_model=any_model,
        traits=ledger.traits.all(start_ms - HORIZON_MS) if rows else (),
    )
    return Newest(requests, older_left_out)


class Recorded:
    """What the ledger itself says became of the requests that pass through."""

    def __init__(self) -> None:
        self._tally = Tally()

    def passing(self, requests: Iterable[RecordedRequest]) -> Iterator[PastRequest]:
        """Yield the requests, and add up what became of them."""
        for one in requests:
            tally = self._tally
            tally.requests += 1
            tally.kinds[one.kind] += 1
            tally.spent(one.backend, (), one.cost_nano)
            tally.judge(one.past.right_at(local=one.local))
            yield one.past

    def row(self) -> PolicyRow:
        """Return the sums, once all requests have passed."""
        tally = self._tally
        return PolicyRow(
            name=RECORDED,
            requests=tally.requests,
            shares=shares(tally),
            cloud_nano=tally.cloud_nano,
            judged=tally.judged,
            right=tally.right,
        )


def _callers(ledger: Ledger) -> Mapping[str, Caller]:
    return {
        record.id: Caller(
            key_id=record.id,
            role=record.role,
            tier=record.tier,
            may_route=record.may_route,
            local_only=record.privacy == "local-only",
            rules=rules_of(record),
        )
        for record in ledger.keys.all()
    }


def _judged(ledger: Ledger, start_ms: int) -> Judgement:
    """Return the judgements from a time on; those of a request come after it."""
    local: dict[str, bool] = {}
    rated: dict[str, bool] = {}
    for label in ledger.labels.all(start_ms):
        local[label.request_id] = label.right
        if len(local) >= MOST_JUDGED:
            break
    for opinion in ledger.feedback.all(start_ms):
        if opinion.rating is not None:
            rated[opinion.request_id] = opinion.rating >= SATISFIED
            if len(rated) >= MOST_JUDGED:
                break
    return Judgement(local, rated)
