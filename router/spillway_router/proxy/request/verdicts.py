"""What was refused to whom, and whose requests had to stay private: counts for the audit log, without any content.

A row for each refusal would let whoever is refused fill the ledger. So the router counts by API key and reason, and
appends the counts as one act every few minutes (runtime/verdict_acts.py). Failed logins have no key that is known; they
are counted by a metric and logged (failed_logins.py).
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

from spillway_router.core.routing.model import Refusal, RequestRecord

MOST_COUNTED = 1000
"""Different counts between two acts. What exceeds them counts for OTHERS, with the status or kind alone."""
OTHERS = "*"
_MOST_CODE = 40

VerdictKind = Literal["refused", "private"]


class Verdict(NamedTuple):
    """What is counted: for which API key ("": none was needed), and why. The reason of a refusal is its status and its
    code, that of privacy the names of the marks and detectors."""

    kind: VerdictKind
    key_id: str
    reason: str


class Verdicts:
    """The counts since they were last taken."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[Verdict] = Counter()

    def refused(self, key_id: str, refusal: Refusal) -> None:
        """Count a refusal. Its code is counted only if it is a word, because a backend may have written it."""
        code = refusal.code if refusal.code.isidentifier() and len(refusal.code) <= _MOST_CODE else ""
        self._count(Verdict("refused", key_id, f"{refusal.status} {code}".rstrip()), f"{refusal.status}")

    def on_request(self, record: RequestRecord) -> None:
        """Count a request that had to stay private."""
        privacy, caller = record.facts.privacy, record.facts.caller
        if not privacy.may_leave or caller.local_only:
            reasons = privacy.reasons or ("key",)
            self._count(Verdict("private", caller.key_id, ",".join(reasons)), "")

    def take(self) -> Counter[Verdict]:
        """Return the counts, and begin anew."""
        counts, self._counts = self._counts, Counter()
        return counts

    def put_back(self, counts: Counter[Verdict]) -> None:
        """Add counts that could not be written."""
        for verdict, count in counts.items():
            self._count(verdict, "", count)

    def _count(self, verdict: Verdict, in_short: str, count: int = 1) -> None:
        if verdict not in self._counts and len(self._counts) >= MOST_COUNTED:
            verdict = Verdict(verdict.kind, OTHERS, in_short)
        self._counts[verdict] += count
