"""The requests of a ledger, as they come again in a replay, each with what became of it.

Rows are read in the order of writing, and an attempt's row is written when it ends. So a request is given out once
nothing older can follow: when rows are `HORIZON_MS` younger than it. Only the requests of that time are in memory, at
most `MOST_OPEN`.

The id of a request says when it came (ledger/ids.py). Its alias, complexity and language are on record where rules
looked at its text. What a ledger does not keep is the text, the bound of the output, the endpoint and hints;
`replay/notes.py` says so to the reader. A request that chose its backend for itself, by name, hint, preference or
suffix, stays with it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from spillway_router.core.replay.past import PastRequest
from spillway_router.core.routing.model import Caller
from spillway_router.ledger.entries import ANSWERED, REVIEW, Entry
from spillway_router.ledger.ids import arrival_ms
from spillway_router.ledger.tables.request_traits import RequestTraits
from spillway_router.replay.confidences import Confidences

HORIZON_MS = 15 * 60_000
"""Longer than an attempt lasts, ten minutes by default, and its escalation after it."""
MOST_OPEN = 200_000
CHOSEN = frozenset({"pinned", "hint", "preference", "model", "fastest", "cheapest"})
"""Reason tokens of requests that chose for themselves."""
NOT_OURS = {"byok": "own key", "cache": "cache", "feedback": "better answer"}
"""Decisions and reasons of what no policy decides, with the word for it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What audits and people said of answers, by request id: whether that of each side was right."""

    local: Mapping[str, bool] = field(default_factory=dict)
    rated: Mapping[str, bool] = field(default_factory=dict)
    """By people, of whichever side answered."""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request with what became of it: the decision, who answered, its reasons, and its cost in nano-dollars."""

    past: PastRequest
    request_id: str
    kind: str
    backend: str
    local: bool
    reasons: str
    cost_nano: int


@dataclass(slots=True)
class _Open:
    """The rows of one request that were read so far, as far as they matter."""

    arrival_ms: int
    local: Entry | None = None
    answer: Entry | None = None
    not_ours: str = ""
    cost_nano: int = 0

    def add(self, entry: Entry) -> None:
        self.cost_nano += entry.amount_nano
        word = NOT_OURS.get(entry.decision) or ("better answer" if "feedback" in entry.reasons.split(",") else "")
        if entry.decision in ("audit", "referee", "shadow"):
            self.cost_nano -= entry.amount_nano  # it is compared with the answer, and is none
            return
        self.not_ours = self.not_ours or word
        if entry.backend == REVIEW or not entry.prompt_tokens:
            return
        if entry.local:
            self.local = entry
        if entry.status in ANSWERED or (self.answer is None and entry.status == "unknown"):
            self.answer = entry


class LedgerRequests:
    """The requests in rows of a ledger. Iterate once; `skipped` counts those that are left out, by the reason."""

    def __init__(
        self,
        entries: Iterable[Entry],
        callers: Mapping[str, Caller],
        judged: Judgement,
        any_model: frozenset[str] = frozenset(),
        traits: Iterable[RequestTraits] = (),
    ) -> None:
        self.skipped: Counter[str] = Counter()
        self.confidences = Confidences()
        self._entries = entries
        self._callers = callers
        self._judged = judged
        self._any_model = any_model
        self._number = 0
        self._traits = iter(traits)
        self._next_traits = next(self._traits, None)
        self.with_traits = 0
        """How many requests had traits on record."""

    def __iter__(self) -> Iterator[RecordedRequest]:
        opened: dict[str, _Open] = {}
        order: list[tuple[int, str]] = []
        for entry in self._entries:
            if entry.kind != "charged":
                continue
            one = opened.get(entry.request_id)
            if one is None:
                came_ms = arrival_ms(entry.request_id)
                one = opened[entry.request_id] = _Open(entry.ts if came_ms is None else min(came_ms, entry.ts))
                heapq.heappush(order, (one.arrival_ms, entry.request_id))
            one.add(entry)
            while order[0][0] < entry.ts - HORIZON_MS or len(order) > MOST_OPEN:
                yield from self._closed(opened, heapq.heappop(order)[1])
        while order:
            yield from self._closed(opened, heapq.heappop(order)[1])

    def _closed(self, opened: dict[str, _Open], request_id: str) -> Iterator[RecordedRequest]:
        one = opened.pop(request_id)
        answer = one.answer
        if one.not_ours or answer is None:
            self.skipped[one.not_ours or "no answer"] += 1
            return
        yield self._recorded(one, answer, request_id)

    def _recorded(self, one: _Open, answer: Entry, request_id: str) -> RecordedRequest:
        number, self._number = self._number, self._number + 1
        reasons = frozenset(answer.reasons.split(","))
        confidence = None if one.local is None else one.local.confidence
        rated = self._judged.rated.get(request_id)
        traits = self._traits_of(request_id)
        chose = bool(reasons & CHOSEN) or answer.decision == "pinned"
        past = PastRequest(
            number=number,
            arrival_s=one.arrival_ms / 1000,
            prompt_tokens=answer.prompt_tokens,
            output_tokens=answer.completion_tokens,
            cached_tokens=0 if answer.local else answer.cached_tokens,
            model=self._chosen(answer) if chose else "auto" if traits is None else traits.model,
            caller=self._caller(answer),
            task=answer.task,
            complexity=None if traits is None else traits.complexity,
            language="" if traits is None else traits.language,
            private="privacy" in reasons,
            document=answer.document,
            confidence=self.confidences.of(number, answer.task, confidence, is_known=one.local is not None),
            local_right=rated if answer.local and rated is not None else self._judged.local.get(request_id),
            cloud_right=None if answer.local else rated,
        )
        return RecordedRequest(
            past=past,
            request_id=request_id,
            kind=answer.decision,
            backend=answer.backend,
            local=answer.local,
            reasons=answer.reasons,
            cost_nano=one.cost_nano,
        )

    def _traits_of(self, request_id: str) -> RequestTraits | None:
        """Return the traits of a request; both come in the order of the ids."""
        following = self._next_traits
        while following is not None and following.request_id < request_id:
            following = next(self._traits, None)
        self._next_traits = following
        if following is None or following.request_id != request_id:
            return None
        self.with_traits += 1
        return following

    def _chosen(self, answer: Entry) -> str:
        return f"{answer.backend}/{answer.model}" if answer.backend in self._any_model else answer.backend

    def _caller(self, answer: Entry) -> Caller:
        """Return the caller as it is now; one whose key is gone as far as the row tells."""
        return self._callers.get(answer.key_id) or Caller(key_id=answer.key_id, tier=answer.tier)
