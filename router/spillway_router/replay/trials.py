"""Another policy tried on the newest requests of the ledger, as the page What if shows it: what `spillway replay` does,
bounded so that a router may do it beside its work."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from spillway_router.config.load import Loaded
from spillway_router.core.replay.past import PastRequest
from spillway_router.core.replay.replay import CloudModel
from spillway_router.core.routing.policy import Policy
from spillway_router.ledger.calendar import DAY_MS
from spillway_router.ledger.interface import Ledger
from spillway_router.replay.compare import Recorded, compared, newest_requests
from spillway_router.replay.ledger_rows import LedgerRequests
from spillway_router.replay.notes import ledger_notes
from spillway_router.replay.policies import Change, changed, policy_of
from spillway_router.replay.rows import PolicyRow

MOST_ROWS = 5000
"""The most rows of the ledger that a trial reads; a request has one or a few."""
NOW, TRIED = "as configured", "tried"
"""The names of the present policy and of the tried one."""
ORDERS: Mapping[str, str] = {
    "gpu": "GPUs first, then the clouds",
    "cloud": "clouds first, then the GPUs",
    "only-gpu": "GPUs only",
}
"""Who may answer requests for the model `auto`, by the name of the order."""
_WORK_S = 0.002
_PAUSE_S = 0.001


class TrialError(ValueError):
    """A trial can't be understood or done; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What of the policy is tried; None and "" leave it as configured. `ttft_ms` is the promise of the time to the
    first token, `threshold` the confidence below which local answers are escalated, `order` one of ORDERS."""

    ttft_ms: float | None = None
    threshold: float | None = None
    order: str = ""

    def words(self) -> str:
        """Return what is tried, for the beginning of a sentence."""
        parts = []
        if self.ttft_ms is not None:
            parts.append(f"a first token within {self.ttft_ms:,.0f} ms")
        if self.threshold is not None:
            parts.append(f"a confidence threshold of {self.threshold:g}")
        if self.order:
            parts.append(ORDERS[self.order])
        return "With " + " and ".join(parts) if parts else "As configured"


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What the ledger says of the requests, what the present policy does with them in the replay, and what the tried
    one does, if it differs. The requests came from `first_ms` to `last_ms`, epoch milliseconds."""

    trial: Trial
    rows: tuple[PolicyRow, ...]
    notes: tuple[str, ...]
    requests: int
    first_ms: int
    last_ms: int
    older_left_out: bool


def changes_of(trial: Trial, policy: Policy) -> tuple[Change, ...]:
    """Return the settings that a trial changes. Raises TrialError."""
    changes = []
    if trial.ttft_ms is not None:
        changes.append(Change(("slo", "ttft_ms"), trial.ttft_ms))
    if trial.threshold is not None:
        changes.append(Change(("confidence", "threshold"), trial.threshold))
    if trial.order:
        chain = policy.aliases["auto"]
        here = [name for name in chain if policy.backends[name].local]
        clouds = [name for name in chain if not policy.backends[name].local]
        names = {"gpu": [*here, *clouds], "cloud": [*clouds, *here], "only-gpu": here}[trial.order]
        if not names:
            raise TrialError("There is no GPU in the chain of `auto`, so that they can't answer alone.")
        changes.append(Change(("aliases", "auto", "chain"), names))
    return tuple(changes)


def tried(ledger: Ledger, loaded: Loaded, trial: Trial, now_ms: int, most_rows: int = MOST_ROWS) -> TrialResult:
    """Replay the newest requests as configured and as tried. It blocks for seconds. Raises TrialError, ConfigError with
    every problem of the tried policy, and LedgerError."""
    cloud, today = CloudModel(), datetime.fromtimestamp(now_ms / 1000, UTC).date()
    policies = [policy_of(NOW, loaded, today, cloud)]
    policy = policies[0].terms.policy
    changes = changes_of(trial, policy)
    if changes:
        policies.append(policy_of(TRIED, changed(loaded, changes), today, cloud))
    newest = newest_requests(ledger, most_rows, frozenset(policy.any_model))
    recorded, span = Recorded(), _Span()
    passing = span.passing(_in_turns(recorded.passing(newest.requests)))
    rows = compared(passing, policies, lambda _: None)
    if not rows[0].requests:
        raise TrialError(_nothing(newest.requests))
    return TrialResult(
        trial=trial,
        rows=(recorded.row(), *rows),
        notes=tuple(ledger_notes(newest.requests, policies, cloud)),
        requests=rows[0].requests,
        first_ms=round(span.first_s * 1000),
        last_ms=round(span.last_s * 1000),
        older_left_out=newest.older_left_out,
    )


def _nothing(requests: LedgerRequests) -> str:
    if requests.skipped:
        return "No recorded request was decided by the policy, so that there is nothing to replay."
    return "No request is on record yet. Send one, and try again."


class _Span:
    """From when to when requests came, seconds."""

    def __init__(self) -> None:
        self.first_s = self.last_s = 0.0

    def passing(self, requests: Iterable[PastRequest]) -> Iterator[PastRequest]:
        for one in requests:
            self.first_s = self.first_s or one.arrival_s
            self.last_s = one.arrival_s
            yield one


def _in_turns(requests: Iterable[PastRequest]) -> Iterator[PastRequest]:
    """Pass requests on, and rest for a moment every two milliseconds: the interpreter does one thing at a time, and the
    router's own requests come between."""
    since_s = time.monotonic()
    for one in requests:
        yield one
        if time.monotonic() - since_s > _WORK_S:
            time.sleep(_PAUSE_S)
            since_s = time.monotonic()


class Trials:
    """Does trials and keeps the last results, until the ledger or the configuration changes. One at a time."""

    def __init__(self, ledger: Ledger, kept_ms: int = 60_000, most_kept: int = 16) -> None:
        self._ledger = ledger
        self._kept_ms = kept_ms
        self._most_kept = most_kept
        self._results: dict[Trial, _Kept] = {}

    def result(self, loaded: Loaded, trial: Trial, now_ms: int) -> TrialResult:
        """Return the result of a trial at a time, epoch milliseconds. A busy ledger changes all the time, so that a
        result also stands for a minute. Raises what `tried` raises."""
        head = self._ledger.head()[0]
        kept = self._results.get(trial)
        if kept is not None and kept.loaded is loaded and kept.at_ms // DAY_MS == now_ms // DAY_MS:  # prices change
            is_fresh = kept.head == head or 0 <= now_ms - kept.at_ms < self._kept_ms
            if is_fresh:
                return kept.result
        result = tried(self._ledger, loaded, trial, now_ms)
        self._results.pop(trial, None)
        while len(self._results) >= self._most_kept:
            del self._results[next(iter(self._results))]
        self._results[trial] = _Kept(loaded, head, now_ms, result)
        return result


@dataclass(frozen=True, slots=True)
class _Kept:
    loaded: Loaded
    head: int
    at_ms: int
    result: TrialResult
