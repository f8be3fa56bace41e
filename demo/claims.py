"""The demo's verdict: each promise, the observed figures, and whether it holds. Results and accounts in, claims out; no
I/O.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from loadtests.fake_cloud.corpus import digest

from demo.accounts import RunTotals
from demo.client import DocumentResult

AWAY = ("overflow", "escalated", "fallback", "routed")
_CALM_LOCAL_SHARE = 0.9
_MIN_SHARE = 0.01
_LOCAL_ACCURACY = 0.9
_MAX_RUN_S = 300.0
_BUSY_SHARE = 0.15
"""Above this share of CPU for other programs, a promise about time that does not hold proves nothing about Spillway."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One promise: its text, the observed figures, and whether it holds.

    `excused`: it does not hold, but depends on speed, and other programs used the machine meanwhile.
    """

    name: str
    says: str
    seen: str
    holds: bool
    excused: bool = False

    @property
    def broken(self) -> bool:
        """Whether the demo has failed for this promise."""
        return not self.holds and not self.excused


@dataclass(frozen=True, slots=True)
class DemoSlo:
    """The promised seconds to the first token, and per token after it."""

    ttft_s: float
    tpot_s: float

    def limit_s(self, result: DocumentResult) -> float:
        """Return how long this document may wait: a stream for its first text, a whole answer for all of its tokens."""
        return self.ttft_s + (0.0 if result.job.stream else self.tpot_s * result.tokens)


@dataclass(frozen=True, slots=True)
class DemoRun:
    """Everything that the verdict needs. Times are in seconds."""

    results: tuple[DocumentResult, ...]
    accounts: RunTotals
    slo: DemoSlo
    total_s: float
    exit_status: int
    left_over: tuple[str, ...]
    others_share: float = 0.0
    """The share of the machine's CPU that other programs used while the documents of calm and burst were sent."""

    def of(self, *phases: str) -> list[DocumentResult]:
        """Return the results of these phases, in the order in which they were sent."""
        return [result for result in self.results if result.job.phase in phases]


def judge(run: DemoRun) -> list[Claim]:
    """Return all claims in the order in which they are shown."""
    return [
        _answers_first(run),
        _on_a_quiet_machine(_keeps_local(run), run),
        _on_a_quiet_machine(_spills(run), run),
        _answered(run),
        _on_a_quiet_machine(_in_time(run), run),
        *_privacy(run),
        *_accuracy(run),
        *_money(run),
        _stops(run),
        _on_a_quiet_machine(_quick(run), run),
    ]


def _on_a_quiet_machine(claim: Claim, run: DemoRun) -> Claim:
    """Return the claim, excused if it does not hold and the machine was busy with other programs."""
    return replace(claim, excused=not claim.holds and run.others_share > _BUSY_SHARE)


def share(part: int, whole: int) -> float:
    """Return part / whole; the share of nothing is 0."""
    return part / whole if whole else 0.0


def percent(part: int, whole: int) -> str:
    """Return a share as text, with its counts."""
    return f"{100 * share(part, whole):.1f}% ({part} of {whole})"


def percentile(values: Iterable[float], q: float) -> float:
    """Return the nearest-rank percentile, 0 < q <= 1; 0.0 for no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else 0.0


def _answers_first(run: DemoRun) -> Claim:
    early = run.of("warming")
    good = sum(r.answered and r.decision in AWAY for r in early)
    return Claim(
        "router first",
        "while the engine warms up, documents are answered by the cloud",
        f"{good} of {len(early)}",
        bool(early) and good == len(early),
    )


def _keeps_local(run: DemoRun) -> Claim:
    calm = run.of("calm")
    kept = sum(
        r.decision in ("local", "escalated") for r in calm
    )  # an escalated document was sent to the local model first
    return Claim(
        "local first",
        f"in calm times the local engine is asked first for at least {_CALM_LOCAL_SHARE:.0%}",
        percent(kept, len(calm)),
        share(kept, len(calm)) >= _CALM_LOCAL_SHARE,
    )


def _spills(run: DemoRun) -> Claim:
    burst = run.of("burst")
    counts = Counter(r.decision for r in burst)
    kinds = ("local", "overflow", "escalated")
    seen = ", ".join(f"{kind} {percent(counts[kind], len(burst))}" for kind in kinds)
    return Claim(
        "spills over",
        f"in the burst each of local, overflow and escalated is at least {_MIN_SHARE:.0%}",
        seen,
        all(share(counts[kind], len(burst)) >= _MIN_SHARE for kind in kinds),
    )


def _may_leave(run: DemoRun) -> list[DocumentResult]:
    return [r for r in run.of("warming", "calm", "burst") if not r.job.private]


def _answered(run: DemoRun) -> Claim:
    open_ = _may_leave(run)
    answered = sum(r.answered for r in open_)
    return Claim(
        "answered",
        "every document that may leave gets its answer",
        f"{answered} of {len(open_)}",
        bool(open_) and answered == len(open_),
    )


def _in_time(run: DemoRun) -> Claim:
    open_ = _may_leave(run)
    late = [r for r in open_ if r.served_s > run.slo.limit_s(r)]
    streams = [r.served_s for r in open_ if r.job.stream]
    whole = [r.served_s for r in open_ if not r.job.stream]
    says = (
        f"no document that may leave waits past the SLO: streams {run.slo.ttft_s:g} s until the first text, whole "
        f"answers {run.slo.ttft_s:g} s + {run.slo.tpot_s:g} s per token until all of it is there, from the moment "
        "the document was due"
    )
    seen = f"{len(late)} late of {len(open_)}; {_waits('streams', streams)}; {_waits('whole answers', whole)}"
    return Claim("in time", says, seen, bool(open_) and not late)


def _waits(name: str, waits: Sequence[float]) -> str:
    half, most = percentile(waits, 0.5), percentile(waits, 0.99)
    return f"{name} p50 {half:.2f} s, p99 {most:.2f} s, longest {max(waits, default=0.0):.2f} s"


def _privacy(run: DemoRun) -> list[Claim]:
    private = [r for r in run.results if r.job.private]
    shareable = {digest(r.job.text) for r in run.results if not r.job.private}
    leaked = {digest(r.job.text) for r in private} & run.accounts.seen
    strange = run.accounts.seen - shareable
    sent_away = sum(r.answered and r.decision != "local" for r in private)
    answered = sum(r.answered for r in private)
    longest = max((r.served_s for r in private), default=0.0)
    return [
        Claim(
            "private stays",
            "no private document reached the cloud (its log: only documents that may leave, unchanged)",
            f"{len(leaked)} of {len(private)} private seen there, {len(strange)} texts that are nobody's, "
            f"{sent_away} marked as sent away",
            bool(private) and not leaked and not strange and not sent_away,
        ),
        Claim(
            "private is served",
            "every private document got its answer from the local engine, however long the queue",
            f"{answered} of {len(private)}, {sum(r.refusals for r in private)} refusals on the way, "
            f"longest wait {longest:.2f} s",
            answered == len(private),
        ),
    ]


def _accuracy(run: DemoRun) -> list[Claim]:
    mixed = [r for r in run.of("warming", "calm", "burst") if r.answered]
    # Streams and private documents can't be escalated, so only whole answers that may leave were judged and kept.
    kept = [r for r in mixed if r.decision == "local" and not r.job.private and not r.job.stream]
    away = [r for r in mixed if r.decision in AWAY]
    alone = run.of("check")
    right_kept, right_away, right_alone = (sum(r.right for r in part) for part in (kept, away, alone))
    return [
        Claim(
            "relayed whole",
            "every answer of the cloud (which knows the truth) arrives unharmed",
            percent(right_away, len(away)),
            bool(away) and right_away == len(away),
        ),
        Claim(
            "kept answers are good",
            f"at least {_LOCAL_ACCURACY:.0%} of the answers judged sure enough to stay local are exactly right",
            percent(right_kept, len(kept)),
            share(right_kept, len(kept)) >= _LOCAL_ACCURACY,
        ),
        Claim(
            "escalation aims well",
            "the escalated documents are those the local model gets wrong (asked again, local only)",
            f"right on escalated {percent(right_alone, len(alone))}, on kept {percent(right_kept, len(kept))}",
            bool(alone) and share(right_alone, len(alone)) < share(right_kept, len(kept)),
        ),
    ]


def _money(run: DemoRun) -> list[Claim]:
    books = run.accounts
    return [
        Claim(
            "to the nano-dollar",
            "the ledger's cloud total is the cloud's own bill",
            f"ledger {books.ledger_nano:,} n$ for {books.ledger_requests} calls, "
            f"bill {books.bill_nano:,} n$ for {books.bill_requests}, {books.unsettled} not settled, "
            f"{books.unsure} broken off",
            _agree(books) and not books.unsettled,
        ),
        Claim(
            "both costs",
            "the report shows the GPU's fixed cost, used and idle, and they add up",
            f"billed {books.fixed_nano:,} n$ = used {books.used_nano:,} + idle {books.idle_nano:,}",
            books.fixed_nano > 0 and books.used_nano > 0 and books.fixed_nano == books.used_nano + books.idle_nano,
        ),
    ]


def _agree(books: RunTotals) -> bool:
    """Return whether ledger and bill are equal, but for calls that were broken off: what the ledger says of those is
    marked as an estimate, with a bound."""
    known_nano, known_requests = books.ledger_nano - books.estimated_nano, books.ledger_requests - books.unsure
    return (
        0 < known_nano <= books.bill_nano <= known_nano + books.at_most_nano
        and known_requests <= books.bill_requests <= books.ledger_requests
    )


def _stops(run: DemoRun) -> Claim:
    left = ", ".join(run.left_over) or "nobody"
    seen = f"exit status {run.exit_status}, had to be killed: {left}"
    return Claim("stops in order", "on SIGTERM router and engine end", seen, run.exit_status == 0 and not run.left_over)


def _quick(run: DemoRun) -> Claim:
    return Claim(
        "quick", f"all of it takes less than {_MAX_RUN_S:.0f} s", f"{run.total_s:.0f} s", run.total_s < _MAX_RUN_S
    )


def accuracy_table(results: Sequence[DocumentResult]) -> list[tuple[str, int, int]]:
    """Return (group, right, answered) for all documents, per decision and per noise level."""
    answered = [r for r in results if r.answered]
    groups: dict[str, list[DocumentResult]] = {"all": answered}
    for result in answered:
        groups.setdefault(f"decision {result.decision}", []).append(result)
    for result in answered:
        groups.setdefault(f"noise {result.job.noise}", []).append(result)
    return [(name, sum(r.right for r in part), len(part)) for name, part in groups.items()]
