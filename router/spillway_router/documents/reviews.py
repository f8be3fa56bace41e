"""The queue of documents that no step was sure of: a person sees them with their source, and decides.

The document's text is stored here and nowhere else in Spillway, only while reviews are enabled, and only until some
days after the decision (`documents.keep_days`). What a decision says of the draft (right or wrong, per field) is stored
with the draft's scores as a label. A label holds no content; labels.py exports labels to `spillway calibrate`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from spillway_router.aio.periodic import Periodic, Rhythm
from spillway_router.core.confidence.validators import matches_schema
from spillway_router.documents.drafts import compare_values
from spillway_router.documents.extract import Extraction, ExtractionRequest, StepReport
from spillway_router.documents.highlight import TextSpan, pointers, segments, spans_of_values
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
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
"""Time between two counts of open reviews, for metrics: other routers and the command line decide reviews too."""
ACTIONS: Mapping[str, ReviewState] = {"accept": "accepted", "correct": "corrected", "dismiss": "dismissed"}


class ReviewError(Exception):
    """A decision is invalid; the message says what to change. `param` names the field; it is None if the review was
    decided before."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class UnsureDocument:
    """A document for the queue, and the API key that sent it. A `private` one must not leave."""

    request_id: str
    key_id: str
    private: bool
    request: ExtractionRequest
    extraction: Extraction


def record_of(document: UnsureDocument, review_id: str, now_ms: int) -> ReviewRecord:
    """Return the review of a document that no step was sure of. `now_ms` is epoch milliseconds."""
    request, extraction = document.request, document.extraction
    draft = extraction.draft
    content = {
        "text": request.text,
        "schema": request.schema.json_schema,
        "values": None if draft is None else draft.values,
        "fields": {} if draft is None else {pointer: asdict(reading) for pointer, reading in draft.fields.items()},
        "steps": [_step(report) for report in extraction.steps],
    }
    scores = {"calibrated": False, "scores": {}} if draft is None else _scores(draft.calibrated, draft.scores)
    return ReviewRecord(
        id=review_id,
        request_id=document.request_id,
        created_ms=now_ms,
        schema_name=request.schema.name,
        key_id=document.key_id,
        private=document.private,
        step="none" if draft is None else draft.step,
        backend="" if draft is None else draft.backend,
        model="" if draft is None else draft.model,
        confidence=None if draft is None else draft.confidence,
        why="; ".join(f"{step.step}: {step.why}" for step in extraction.steps if step.why)[:2000],
        scores=orjson.dumps(scores).decode(),
        content=orjson.dumps(content).decode(),
    )


def _step(report: StepReport) -> dict[str, Any]:
    """Return a step as reviews store and show it."""
    return {
        "step": report.step,
        "verb": report.outcome,
        "backend": report.backend,
        "model": report.model,
        "confidence": report.confidence,
        "threshold": report.threshold,
        "why": report.why,
        "cost_nano": report.cost_nano,
    }


def _scores(calibrated: bool, scores: Mapping[str, float]) -> dict[str, Any]:
    return {"calibrated": calibrated, "scores": dict(scores)}


def decision_of(record: ReviewRecord, action: str, changes: object, now_ms: int, who: str) -> ReviewDecision:
    """Return the decision that a person's action makes on a review. Raise ReviewError if the action is invalid.

    `changes` are the top-level fields that a correction sets to other values; the other fields stay as they were read.
    """
    state = ACTIONS.get(action)
    if state is None:
        raise ReviewError(f"'action' must be one of {', '.join(ACTIONS)}", "action")
    if record.state != "open" or record.content is None:
        raise ReviewError(f"this review is already {record.state}; its decision stands", None)
    if action != "correct" and changes is not None:
        raise ReviewError("'values' belongs to the action correct; omit it, or correct", "values")
    if action == "dismiss":
        return ReviewDecision(state, outcome=None, label=None, decided_ms=now_ms, decided_by=who)
    content = orjson.loads(record.content)
    drafted: dict[str, Any] | None = content["values"]
    if action == "accept":
        if drafted is None:
            raise ReviewError("there are no values to accept; correct it with all values, or dismiss it", "action")
        final = drafted
    else:
        if not isinstance(changes, dict) or not changes:
            raise ReviewError("'values' must be an object that maps the fields to correct to their values", "values")
        final = {**(drafted or {}), **changes}
    param = "values" if action == "correct" else "action"
    if not matches_schema(final, content["schema"]):
        raise ReviewError(
            "the values don't fit the document's schema; correct them, with every required field that it names", param
        )
    label = None if drafted is None else orjson.dumps(_label(drafted, final)).decode()
    outcome = orjson.dumps(final).decode()
    return ReviewDecision(state, outcome, label, decided_ms=now_ms, decided_by=who)


def _label(drafted: Mapping[str, Any], final: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether the draft was right, as a whole and per field, without any value of it."""
    return asdict(compare_values(dict(pointers(drafted)), dict(pointers(final))))


def review_summary(record: ReviewRecord) -> dict[str, Any]:
    """Return a review as JSON values without its content; times are epoch milliseconds."""
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


def review_with_document(record: ReviewRecord) -> dict[str, Any]:
    """Return a review as JSON values, with every value's place in the text, and the text cut at these places.

    After `keep_days` the document has been removed, and `document` is None.
    """
    if record.content is None:
        return {**review_summary(record), "document": None, "values": None}
    content = orjson.loads(record.content)
    text: str = content["text"]
    final = None if record.outcome is None else orjson.loads(record.outcome)
    drafted = content["fields"]
    read = dict(pointers(content["values"] or {}))
    places = {p: TextSpan(**field["place"]) for p, field in drafted.items() if field["place"]}
    if final is not None:  # corrected values have other places
        new = {p: value for p, value in pointers(final) if p not in read or read[p] != value}
        places = {**{p: place for p, place in places.items() if p not in new}, **spans_of_values(text, new)}
    fields = {
        pointer: {
            "value": field["value"],
            "confidence": field["confidence"],
            "why": field["why"],
            "span": [places[pointer].start, places[pointer].end] if pointer in places else None,
        }
        for pointer, field in drafted.items()
    }
    return {
        **review_summary(record),
        "values": content["values"] if final is None else final,
        "drafted": content["values"],
        "fields": fields,
        "steps": content["steps"],
        "json_schema": content["schema"],
        "document": text,
        "highlighted": [asdict(segment) for segment in segments(text, places)],
    }


@dataclass(frozen=True, slots=True)
class QueueRules:
    """Whether documents are queued for a person, how many may be open, and for how many days after the decision their
    text is stored. Beyond `max_open` new documents are not stored, and their reply says so."""

    enabled: bool = True
    max_open: int = 10_000
    keep_days: float = 30.0


@dataclass(frozen=True, slots=True)
class QueuedReview:
    """The id of a document's review, or None and why it was not queued."""

    id: str | None
    why: str = ""


class ReviewQueue:
    """The queue, for use in the event loop: its table is queried in threads. `wall` is epoch seconds."""

    def __init__(
        self,
        table: ReviewTable,
        rules: Callable[[], QueueRules],
        wall: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._table, self._rules, self._wall, self._new_id = table, rules, wall, new_id
        self._sweep = Periodic("reviews, forget", Rhythm(SWEEP_S), self._forget_and_log, self._log_sweep_error)
        self._count = Periodic("reviews, count", Rhythm(COUNT_S), self.count)
        self._open: OpenReviews | None = None
        """As of the last count; None if it failed."""

    async def put(self, document: UnsureDocument) -> QueuedReview:
        """Store a document. Never raises: the reply, which may have been paid, must reach the client."""
        rules = self._rules()
        if not rules.enabled:
            return QueuedReview(None, "reviews are disabled (documents.reviews)")
        record = record_of(document, self._new_id(), self._now_ms())
        try:
            if (await LEDGER_CALLS.run(self._table.waiting, limit_s=CLIENT_LIMIT_S)).count >= rules.max_open:
                return QueuedReview(None, f"{rules.max_open} reviews are open (documents.most_open)")
            await LEDGER_CALLS.run(self._table.add, record, limit_s=CLIENT_LIMIT_S)
        except LedgerError as error:
            log.warning("A document could not be queued for review: %s", error)
            return QueuedReview(None, "the review could not be stored; send the document again later")
        return QueuedReview(record.id)

    def open_reviews(self) -> tuple[int, float] | None:
        """Return how many reviews were open at the last count, and the age of the oldest in seconds (0 if there is
        none); None if the count is unknown."""
        if self._open is None:
            return None
        oldest_ms = self._open.oldest_ms
        return self._open.count, 0.0 if oldest_ms is None else max(0.0, self._wall() - oldest_ms / 1000)

    async def count(self) -> None:
        """Count the open reviews. While the table can't be read, their number is unknown."""
        try:
            self._open = await LEDGER_CALLS.run(self._table.waiting, limit_s=CLIENT_LIMIT_S)
        except LedgerError as error:
            self._open = None
            log.warning("Open reviews could not be counted: %s", error)

    async def list(self, page_filter: ReviewFilter) -> tuple[ReviewRecord, ...]:
        """List reviews, newest first. Raise LedgerError."""
        return await LEDGER_CALLS.run(self._table.list, page_filter, limit_s=CLIENT_LIMIT_S)

    async def get(self, review_id: str) -> ReviewRecord | None:
        """Return a review, None if there is none with this id. Raise LedgerError."""
        return await LEDGER_CALLS.run(self._table.get, review_id, limit_s=CLIENT_LIMIT_S)

    async def decide(self, record: ReviewRecord, action: str, changes: object, who: str) -> ReviewRecord:
        """Close a review, and return it as it is then. Raise ReviewError or LedgerError."""
        decision = decision_of(record, action, changes, self._now_ms(), who)
        if not await LEDGER_CALLS.run(self._table.decide, record.id, decision, limit_s=CLIENT_LIMIT_S):
            raise ReviewError("somebody else has decided this review in the meantime; their decision stands", None)
        decided = await self.get(record.id)
        assert decided is not None
        return decided

    async def forget(self) -> int:
        """Remove the texts of reviews decided more than `keep_days` ago; return how many. Raise LedgerError."""
        before_ms = self._now_ms() - int(self._rules().keep_days * DAY_MS)
        return await LEDGER_CALLS.run(self._table.forget, before_ms, limit_s=CLIENT_LIMIT_S)

    def start(self) -> None:
        """Start to remove old texts once an hour, and to count the open reviews."""
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
            log.info("Removed the texts of %d decided reviews", count)

    @staticmethod
    def _log_sweep_error(error: Exception) -> None:
        if isinstance(error, LedgerError):
            log.warning("The texts of decided reviews could not be removed: %s", error)
        else:
            log.error("The texts of decided reviews could not be removed", exc_info=error)

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)
