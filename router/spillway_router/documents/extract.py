"""Read one document: from its text to values, in steps of rising cost. Read `extract` from top to bottom.

1. local       a local model, through the exchange; it answers from the confidence `thresholds.local` on
2. parser      patterns of the device's layout, or the captions of the values (captions/reading.py), from
               `thresholds.parser` on; costs nothing, sends nothing
3. external    a cloud model, through the exchange, if the document may leave and a budget pays for it
4. review      a person

Before, the document is read by its captions: a second opinion on each model (second_opinion.py). The first step that is
sure enough answers. A request's `min_confidence` replaces all three thresholds. The values in
the reply are those of the step that answered, otherwise those of the surest step. Each document has one `ok` row in the
ledger: that of the step that answered, or a row without cost for a parser or the queue. Drafts that were not used are
`discarded`.

Audits may raise the local threshold. They are offered the local reading once the document has its answer
(proxy/audits/audits.py), unless the request brought a `min_confidence` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from spillway_router.aio.fair_turns import FairTurns
from spillway_router.core.confidence.calibration import Calibration
from spillway_router.documents.drafts import (
    CAPTIONS,
    DOUBT,
    Draft,
    DraftContext,
    compare_drafts,
    doubt_recognition,
    draft_of_answer,
    draft_of_captions,
    draft_of_parsed_text,
    with_agreement,
)
from spillway_router.documents.parsers import ParsedText, parse, surest_reading
from spillway_router.documents.schemas import Schema
from spillway_router.documents.second_opinion import contradictions, doubted_draft
from spillway_router.proxy.client.judgement import AnswerJudgement
from spillway_router.proxy.exchange.audit_sample import DocumentComparison, LocalReading, ScoredAnswer
from spillway_router.proxy.exchange.internal_exchange import InternalExchange, StepReply, StepRequest

if TYPE_CHECKING:
    from spillway_router.documents.captions.reading import CaptionReading
    from spillway_router.documents.parser_files import Parser  # it loads RE2, which most routers never need

_READINGS = FairTurns()
"""Turns at reading long texts without a model: a long one takes a second or two of the machine."""
TOP_LOGPROBS = 5
Status = Literal["answered", "unsure"]
StepOutcome = Literal["accepted", "unsure", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The least confidence with which each step answers, in [0, 1]."""

    local: float = 0.9
    parser: float = 0.8
    external: float = 0.8


@dataclass(frozen=True, slots=True)
class CascadeRules:
    """What a configuration says of the steps.

    `external` names cloud backends in order; if it is empty, the request's model decides. `trust` is the confidence in
    a value of a model that returns no log-probabilities (drafts.py). `parsers` is called when the first document comes,
    as most routers never need parsers.
    """

    thresholds: Thresholds = Thresholds()
    external: tuple[str, ...] = ()
    trust: float = 0.9
    parsers: Callable[[], tuple[Parser, ...]] = tuple
    max_output_tokens: int = 512
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class ExtractionRequest:
    """What to read. `messages` is the client's own chat, None if it sent a text. `parser` is auto, none or a name.

    `unsure` are the places [start, end) of the text that were recognised in a picture with doubts.
    """

    text: str
    schema: Schema
    messages: Sequence[Any] | None = None
    parser: str = "auto"
    min_confidence: float | None = None
    model: str = "auto"
    unsure: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step did: its confidence against its threshold, and why it did not answer ("" if it did)."""

    step: str
    outcome: StepOutcome
    backend: str = ""
    model: str = ""
    confidence: float | None = None
    threshold: float | None = None
    why: str = ""
    cost_nano: int = 0


@dataclass(frozen=True, slots=True)
class Extraction:
    """The result: the draft that answered, otherwise the surest one, or None if no step read anything."""

    status: Status
    draft: Draft | None
    steps: tuple[StepReport, ...]

    @property
    def cost_nano(self) -> int:
        """Nano-dollars of all steps."""
        return sum(step.cost_nano for step in self.steps)


async def extract(exchange: InternalExchange, request: ExtractionRequest, rules: CascadeRules) -> Extraction:
    """Read one document. Cancelled when its client leaves."""
    cascade = _Cascade(exchange, request, rules)
    await cascade.look()
    answer = await cascade.local() or await cascade.parser() or await cascade.external()
    if answer is not None:
        cascade.offer_audit(answer)
        return Extraction("answered", answer, tuple(cascade.reports))
    surest = max(cascade.drafts, key=lambda draft: draft.confidence or 0.0, default=None)
    await exchange.record_step("review", request.schema.name, None if surest is None else surest.confidence)
    return Extraction("unsure", surest, tuple(cascade.reports))


class _Cascade:
    """The steps of one document, with their drafts and reports. Each step returns its draft if it is sure enough."""

    def __init__(self, exchange: InternalExchange, request: ExtractionRequest, rules: CascadeRules) -> None:
        self._exchange, self._request, self._rules = exchange, request, rules
        self._context = DraftContext(request.text, request.schema, rules.calibration, rules.trust)
        self._captions: CaptionReading | None = None
        self.reports: list[StepReport] = []
        self.drafts: list[Draft] = []

    async def look(self) -> None:
        """Read the document by its captions: the second opinion on every other reading, in a thread, as a text may be
        long."""
        from spillway_router.documents.captions.reading import read_captions  # most routers never need it

        schema = self._request.schema
        self._captions = await _READINGS.in_thread(
            self._exchange.key_id,
            lambda: read_captions(self._request.text, schema.json_schema, schema.captions()),
        )

    async def local(self) -> Draft | None:
        """Run step 1."""
        body = self._body(local=True) | {"temperature": 0}
        return await self._ask_model("local", StepRequest("local", body), self._threshold("local"))

    async def parser(self) -> Draft | None:
        """Run step 2."""
        threshold = self._threshold("parser")
        if self._request.parser == "none":
            self.reports.append(StepReport("parser", "skipped", why="the request disables parsers"))
            return None
        # Parsing runs in a thread: the first document loads the parsers, and a text may be long.
        parsed = await _READINGS.in_thread(self._exchange.key_id, self._parsed)
        draft = self._parsers_draft(parsed, threshold)
        if draft is None:
            self.reports.append(StepReport("parser", "skipped", why="no parser knows this layout"))
            return None
        draft = doubt_recognition(draft, self._request.unsure, self._context)
        self.drafts.append(draft)
        accepted = draft.at_least(threshold)
        self._report(draft, threshold, accepted=accepted)
        if accepted:
            await self._exchange.record_step("parsers", draft.model, draft.confidence)
        return draft if accepted else None

    def _parsers_draft(self, parsed: ParsedText | None, threshold: float) -> Draft | None:
        """Return the reading of the layout's parser, or else that by captions; None if there is neither.

        Where both are sure and disagree, or the layout's parser denies a value that it reads, neither is sure.
        """
        captions = self._captions
        usable = captions is not None and captions.answers and captions.kind > 0
        by_captions = None
        if captions is not None and usable:
            by_captions = with_agreement(draft_of_captions(captions, self._context), self.drafts, self._context)
        if parsed is None:
            return by_captions
        by_layout = draft_of_parsed_text(parsed, self._context)
        if by_captions is None or self._request.parser not in ("auto", CAPTIONS):
            return by_layout
        doubts = contradictions(by_layout.fields, by_captions.fields)
        if doubts:
            confidence = min(by_layout.confidence or 0.0, DOUBT)
            return replace(by_layout, confidence=confidence, why=(*doubts, *by_layout.why))
        return by_layout if by_layout.at_least(threshold) or not by_captions.at_least(threshold) else by_captions

    def _parsed(self) -> ParsedText | None:
        request = self._request
        if request.parser == CAPTIONS:
            return None
        parsers = [parser for parser in self._rules.parsers() if parser.schema == request.schema.name]
        named = next((parser for parser in parsers if parser.name == request.parser), None)
        return surest_reading(parsers, request.text) if named is None else parse(named, request.text)

    async def external(self) -> Draft | None:
        """Run step 3."""
        privacy = self._exchange.privacy
        if not privacy.may_leave:
            marks = ", ".join(privacy.reasons) or "default"
            self.reports.append(StepReport("external", "skipped", why=f"private: must not leave (marked by {marks})"))
            return None
        surest = max((draft.confidence or 0.0 for draft in self.drafts), default=None)
        gain = None if surest is None else 1.0 - surest
        step = replace(self._external_step(), gain=gain)
        return await self._ask_model("external", step, self._threshold("external"))

    def offer_audit(self, answer: Draft) -> None:
        """Offer the local reading to the audits, now that the document has its answer."""
        local = next((draft for draft in self.drafts if draft.step == "local"), None)
        if local is None or local.confidence is None or not local.scores or self._request.min_confidence is not None:
            return

        def compare(answer: Mapping[str, Any]) -> DocumentComparison | None:
            better = doubted_draft(draft_of_answer(answer, "external", self._context), self._captions, self._context)
            return compare_drafts(local, better) if better.at_least(self._rules.thresholds.external) else None

        reading = LocalReading(
            ScoredAnswer(
                task=self._request.schema.name,
                backend=local.backend,
                model=local.model,
                confidence=local.confidence,
                scores=local.scores,
            ),
            threshold=self._rules.thresholds.local,
            used=answer is local,
            external=compare_drafts(local, answer) if answer.step == "external" else None,
        )
        self._exchange.offer_audit(reading, self._external_step(), compare)

    def _external_step(self) -> StepRequest:
        return StepRequest("cloud", self._body(local=False), self._rules.external)

    async def _ask_model(self, step: str, request: StepRequest, threshold: float) -> Draft | None:
        judged: list[Draft] = []

        def judge(answer: Mapping[str, Any]) -> AnswerJudgement:
            draft = draft_of_answer(answer, step, self._context, self.drafts)
            draft = doubted_draft(draft, self._captions, self._context, self.drafts)
            draft = doubt_recognition(draft, self._request.unsure, self._context)
            judged.append(draft)
            return AnswerJudgement(draft.confidence, draft.at_least(threshold))

        reply = await self._exchange.run_step(request, judge)
        if reply.answer is None or not judged:
            self.reports.append(_report_without_answer(step, reply))
            return None
        draft = replace(judged[-1], backend=reply.backend, model=reply.model)
        self.drafts.append(draft)
        accepted = draft.at_least(threshold)
        self._report(draft, threshold, accepted=accepted, cost_nano=reply.cost_nano)
        return draft if accepted else None

    def _report(self, draft: Draft, threshold: float, *, accepted: bool, cost_nano: int = 0) -> None:
        shortfall = "no signal" if draft.confidence is None else f"{draft.confidence:.3f} < {threshold:g}"
        self.reports.append(
            StepReport(
                step=draft.step,
                outcome="accepted" if accepted else "unsure",
                backend=draft.backend,
                model=draft.model,
                confidence=draft.confidence,
                threshold=threshold,
                why="" if accepted else "; ".join((shortfall, *draft.why)),
                cost_nano=cost_nano,
            )
        )

    def _threshold(self, step: Literal["local", "parser", "external"]) -> float:
        required = self._request.min_confidence
        if required is not None and self._exchange.may_route:
            return required
        configured: float = getattr(self._rules.thresholds, step)
        if step == "local":
            configured = self._exchange.threshold(configured)
        return configured if required is None else min(required, configured)

    def _body(self, *, local: bool) -> dict[str, Any]:
        request = self._request
        messages = request.messages
        if messages is None:
            messages = request.schema.messages(request.text, local=local)
        return {
            "model": request.model,
            "messages": messages,
            "max_tokens": self._rules.max_output_tokens,
            "response_format": request.schema.response_format(),
            "logprobs": True,
            "top_logprobs": TOP_LOGPROBS,
        }


def _report_without_answer(step: str, reply: StepReply) -> StepReport:
    """Report a step that brought no answer: it was skipped if nothing was sent.

    The report is stored with the review, so it says in the router's words how the last attempt ended: an engine's own
    words may repeat the document.
    """
    if not reply.attempts:
        return StepReport(step, "skipped", why=reply.message or reply.code, cost_nano=reply.cost_nano)
    last = reply.attempts[-1]
    why = f"{reply.code}: {last.outcome.detail or last.outcome.kind}"
    return StepReport(
        step=step, outcome="failed", backend=last.backend, model=last.model, why=why, cost_nano=reply.cost_nano
    )
