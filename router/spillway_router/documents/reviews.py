"""The queue of documents that no step was sure of: kept for a person, shown with their source, decided, learned from.

The document's text is stored here and nowhere else in Spillway, only while reviews are on, and only until some days
after the decision (`documents.keep_days`). What a decision says of the draft (right or wrong, per field) is kept with
the draft's scores as a label, which holds no content; labels.py gives them to `spillway calibrate`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from spillway_router.aio.periodic import Periodic
from spillway_router.core.confidence.validators import matches_schema
from spillway_router.documents.drafts import agreement
from spillway_router.documents.extract import Extraction, ExtractionRequest
from spillway_router.documents.highlight import TextSpan, places, pointers, segments
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.reviews import (
    OpenReviews,
    ReviewDecision,
    ReviewFilter,
    ReviewRecord,
    ReviewState,
    ReviewTable,
)

log = logging.getLogger("spillway")

DAY_MS = 86_400_000
SWEEP_S = 3600.0
COUNT_S = 15.0
"""Between two counts of what waits, for metrics: other routers and the command line decide reviews too."""
ACTIONS: Mapping[str, ReviewState] = {"accept": "accepted", "correct": "corrected", "dismiss": "dismissed"}


class ReviewError(Exception):
    """A decision can't be taken; the message says what to change. `param` names the field, None where somebody decided
    before."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Waiting:
    """A document for the queue, and whose it is. `private`: it must not leave."""

    request_id: str
    key_id: str
    private: bool
    order: ExtractionRequest
    found: Extraction


def record_of(waiting: Waiting, review_id: str, now_ms: int) -> ReviewRecord:
    """The review of a document that no step was sure of."""
    order, draft = waiting.order, waiting.found.draft
    content = {
        "text": order.text,
        "schema": order.schema.json_schema,
        "values": None if draft is None else draft.values,
        "fields": {} if draft is None else {p: asdict(read) for p, read in draft.fields.items()},
        "steps": [asdict(step) for step in waiting.found.steps],
    }
    scores = {"calibrated": False, "scores": {}} if draft is None else _scores(draft.calibrated, draft.scores)
    return ReviewRecord(
        id=review_id,
        request_id=waiting.request_id,
        created_ms=now_ms,
        schema_name=order.schema.name,
        key_id=waiting.key_id,
        private=waiting.private,
        step="none" if draft is None else draft.step,
        backend="" if draft is None else draft.backend,
        model="" if draft is None else draft.model,
        confidence=None if draft is None else draft.confidence,
        why="; ".join(f"{step.step}: {step.why}" for step in waiting.found.steps if step.why)[:2000],
        scores=orjson.dumps(scores).decode(),
        content=orjson.dumps(content).decode(),
    )


def _scores(calibrated: bool, scores: Mapping[str, float]) -> dict[str, Any]:
    return {"calibrated": calibrated, "scores": dict(scores)}


def decision_of(record: ReviewRecord, action: str, changes: object, now_ms: int, who: str) -> ReviewDecision:
    """What a person's action means for a review. Raises ReviewError that says what to change.

    `changes` of a correction: the top-level fields that are to have other values; the rest stays as it was read.
    """
    state = ACTIONS.get(action)
    if state is None:
        raise ReviewError(f"'action' must be one of {', '.join(ACTIONS)}", "action")
    if record.state != "open" or record.content is None:
        raise ReviewError(f"this review was {record.state} before; its decision stands", None)
    if action != "correct" and changes is not None:
        raise ReviewError("'values' belongs to the action correct; leave it out, or correct", "values")
    if action == "dismiss":
        return ReviewDecision(state, None, None, now_ms, who)
    content = orjson.loads(record.content)
    drafted: dict[str, Any] | None = content["values"]
    if action == "accept":
        if drafted is None:
            raise ReviewError("there are no values to accept; correct it with all values, or dismiss it", "action")
        final = drafted
    else:
        if not isinstance(changes, dict) or not changes:
            raise ReviewError("'values' must be an object of the fields to correct and their values", "values")
        final = {**(drafted or {}), **changes}
    param = "values" if action == "correct" else "action"
    if not matches_schema(final, content["schema"]):
        raise ReviewError(
            "the values don't fit the document's schema; correct it with every required field as it asks", param
        )
    label = None if drafted is None else orjson.dumps(_label(drafted, final)).decode()
    return ReviewDecision(state, orjson.dumps(final).decode(), label, now_ms, who)


def _label(drafted: Mapping[str, Any], final: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the draft was right, as a whole and per field; no value of it."""
    return asdict(agreement(dict(pointers(drafted)), dict(pointers(final))))


def summary(record: ReviewRecord) -> dict[str, Any]:
    """A review as JSON values, without its content; times in epoch milliseconds."""
    return {
        "id": record.id,
        "request_id": record.request_id,
        "state": record.state,
        "created_ms": record.created_ms,
        "schema": record.schema_name,
        "private": record.private,
        "step": record.step,
        "backend": record.backend,
        "model": record.model,
        "confidence": record.confidence,
        "why": record.why,
        "decided_ms": record.decided_ms,
        "decided_by": record.decided_by,
    }


def shown(record: ReviewRecord) -> dict[str, Any]:
    """A review with its document: every value with its place in the text, and the text cut at these places.

    After `keep_days` the document is gone: `document` is None.
    """
    if record.content is None:
        return {**summary(record), "document": None, "values": None}
    content = orjson.loads(record.content)
    text: str = content["text"]
    final = None if record.outcome is None else orjson.loads(record.outcome)
    drafted = content["fields"]
    read = dict(pointers(content["values"] or {}))
    found = {p: TextSpan(**field["place"]) for p, field in drafted.items() if field["place"]}
    if final is not None:  # corrected values stand elsewhere
        new = {p: value for p, value in pointers(final) if p not in read or read[p] != value}
        found = {**{p: place for p, place in found.items() if p not in new}, **places(text, new)}
    fields = {
        pointer: {
            "value": field["value"],
            "confidence": field["confidence"],
            "why": field["why"],
            "span": [found[pointer].start, found[pointer].end] if pointer in found else None,
        }
        for pointer, field in drafted.items()
    }
    return {
        **summary(record),
        "values": content["values"] if final is None else final,
        "drafted": content["values"],
        "fields": fields,
        "steps": content["steps"],
        "json_schema": content["schema"],
        "document": text,
        "highlighted": [asdict(segment) for segment in segments(text, found)],
    }


@dataclass(frozen=True, slots=True)
class QueueRules:
    """Whether documents wait for a person, how many may (then new ones are not stored, which their reply says), and for
    how many days their text is kept after the decision."""

    on: bool = True
    most_open: int = 10_000
    keep_days: float = 30.0


@dataclass(frozen=True, slots=True)
class Queued:
    """Where a document waits: its review's id, or None and why it doesn't."""

    id: str | None
    why: str = ""


class ReviewQueue:
    """The queue for the event loop: its table is asked in threads. `wall` is epoch seconds."""

    def __init__(
        self,
        table: ReviewTable,
        rules: Callable[[], QueueRules],
        wall: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._table, self._rules, self._wall, self._new_id = table, rules, wall, new_id
        self._sweep = Periodic("reviews, forget", SWEEP_S, self._forget_and_log, self._log_sweep_error)
        self._count = Periodic("reviews, count", COUNT_S, self.count)
        self._standing: OpenReviews | None = None

    async def put(self, waiting: Waiting) -> Queued:
        """Store a document. Never raises: what was read, and perhaps paid, must reach who asked for it."""
        rules = self._rules()
        if not rules.on:
            return Queued(None, "reviews are off (documents.reviews)")
        record = record_of(waiting, self._new_id(), self._now_ms())
        try:
            if (await asyncio.to_thread(self._table.waiting)).count >= rules.most_open:
                return Queued(None, f"{rules.most_open} reviews are open (documents.most_open)")
            await asyncio.to_thread(self._table.add, record)
        except LedgerError as error:
            log.warning("a document could not be queued for review: %s", error)
            return Queued(None, "the review could not be stored; send the document again later")
        return Queued(record.id)

    def standing(self) -> tuple[int, float] | None:
        """How many reviews were open at the last count, and the age of the oldest in seconds (0 where none is); None
        where that is not known."""
        known = self._standing
        if known is None:
            return None
        oldest = known.oldest_ms
        return known.count, 0.0 if oldest is None else max(0.0, self._wall() - oldest / 1000)

    async def count(self) -> None:
        """Count what waits. Where the table can't be read, it is not known."""
        try:
            self._standing = await asyncio.to_thread(self._table.waiting)
        except LedgerError as error:
            self._standing = None
            log.warning("open reviews could not be counted: %s", error)

    async def list(self, wanted: ReviewFilter) -> tuple[ReviewRecord, ...]:
        """See ReviewTable.list."""
        return await asyncio.to_thread(self._table.list, wanted)

    async def get(self, review_id: str) -> ReviewRecord | None:
        """See ReviewTable.get."""
        return await asyncio.to_thread(self._table.get, review_id)

    async def decide(self, record: ReviewRecord, action: str, changes: object, who: str) -> ReviewRecord:
        """Close a review; as it is then. Raises ReviewError, LedgerError."""
        decision = decision_of(record, action, changes, self._now_ms(), who)
        if not await asyncio.to_thread(self._table.decide, record.id, decision):
            raise ReviewError("somebody decided this review meanwhile; their decision stands", None)
        after = await self.get(record.id)
        assert after is not None
        return after

    async def forget(self) -> int:
        """Empty what was kept long enough; of how many documents. Raises LedgerError."""
        before = self._now_ms() - int(self._rules().keep_days * DAY_MS)
        return await asyncio.to_thread(self._table.forget, before)

    def start(self) -> None:
        """Start to forget old texts, once an hour, and to count the open reviews."""
        self._sweep.start()
        self._count.start()

    async def stop(self) -> None:
        """Stop both; harmless when repeated."""
        try:
            await self._sweep.stop()
        finally:
            await self._count.stop()

    async def _forget_and_log(self) -> None:
        count = await self.forget()
        if count:
            log.info("the texts of %d decided reviews were removed", count)

    @staticmethod
    def _log_sweep_error(error: Exception) -> None:
        if isinstance(error, LedgerError):
            log.warning("old reviews could not be emptied: %s", error)
        else:
            log.error("old reviews could not be emptied", exc_info=error)

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)
