"""One document, from its text to values: each step costs more than the one before, and the first that is sure enough
answers. Read `extract` from top to bottom.

1. local       a local model, through the exchange: sure enough at `thresholds.local`
2. parser      patterns of the device's layout: sure enough at `thresholds.parser`; costs nothing, sends nothing
3. external    a cloud model, through the exchange, if the document may leave and a budget pays for it
4. review      a person

A request's `min_confidence` stands for all three thresholds. The values in the reply are those of the step that
answered, else of the surest. One row of the ledger is `ok` per document: that of the step that answered, or a row
without cost for a parser or the queue; drafts that were not used are `discarded`.

Audits may raise the local threshold, and hear of the local reading once the document has its answer
(proxy/audits/audits.py), unless the request brought a `min_confidence` of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from spillway_router.core.confidence.calibration import Calibration
from spillway_router.documents.drafts import Draft, Reading, compared, of_model, of_parser
from spillway_router.documents.parsers import Parsed, best, parse
from spillway_router.documents.schemas import Schema
from spillway_router.proxy.client.document_step import (
    DocumentComparison,
    DocumentExchange,
    LocalRead,
    StepAsked,
    StepJudgement,
    StepReply,
)

if TYPE_CHECKING:
    from spillway_router.documents.parser_files import Parser

TOP_LOGPROBS = 5
Status = Literal["answered", "unsure"]
Verb = Literal["accepted", "unsure", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Least confidence with which each step answers, in [0, 1]."""

    local: float = 0.9
    parser: float = 0.8
    external: float = 0.8


@dataclass(frozen=True, slots=True)
class CascadeRules:
    """`external`: names of cloud backends in order; empty: those of the request's model. `trust`: see drafts.py.
    `parsers` is called when the first document comes: most routers never need them, nor RE2."""

    thresholds: Thresholds = Thresholds()
    external: tuple[str, ...] = ()
    trust: float = 0.9
    parsers: Callable[[], tuple[Parser, ...]] = tuple
    max_output_tokens: int = 512
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class ExtractionRequest:
    """What is to be read. `messages`: the client's own chat, None where it sent a text. `parser`: auto, none, name."""

    text: str
    schema: Schema
    messages: Sequence[Any] | None = None
    parser: str = "auto"
    min_confidence: float | None = None
    model: str = "auto"


@dataclass(frozen=True, slots=True)
class StepTold:
    """What a step did, for the reply: confidence against threshold, and why it did not answer ("" if it did)."""

    step: str
    verb: Verb
    backend: str = ""
    model: str = ""
    confidence: float | None = None
    threshold: float | None = None
    why: str = ""
    cost_nano: int = 0


@dataclass(frozen=True, slots=True)
class Extraction:
    """The end of it: the draft that answered, or the surest one, or None where no step read anything."""

    status: Status
    draft: Draft | None
    steps: tuple[StepTold, ...]

    @property
    def cost_nano(self) -> int:
        """Nano-dollars of all steps."""
        return sum(step.cost_nano for step in self.steps)


async def extract(exchange: DocumentExchange, order: ExtractionRequest, rules: CascadeRules) -> Extraction:
    """Read one document. Cancelled when its client leaves."""
    run = _Run(exchange, order, rules)
    found = await run.local() or await run.parser() or await run.external()
    if found is not None:
        run.watched(found)
        return Extraction("answered", found, tuple(run.told))
    surest = max(run.drafts, key=lambda draft: draft.confidence or 0.0, default=None)
    await exchange.note("review", order.schema.name, None if surest is None else surest.confidence)
    return Extraction("unsure", surest, tuple(run.told))


class _Run:
    """The steps of one document, and what they told."""

    def __init__(self, exchange: DocumentExchange, order: ExtractionRequest, rules: CascadeRules) -> None:
        self._exchange, self._order, self._rules = exchange, order, rules
        self._reading = Reading(order.text, order.schema, rules.calibration, rules.trust)
        self.told: list[StepTold] = []
        self.drafts: list[Draft] = []

    def watched(self, found: Draft) -> None:
        """Tell audits of the local reading."""
        read = next((draft for draft in self.drafts if draft.step == "local"), None)
        if read is None or read.confidence is None or not read.scores or self._order.min_confidence is not None:
            return
        asked = self._asked_outside()
        known = compared(read, found) if found.step == "external" else None
        bar = self._rules.thresholds.local

        def compare(answer: Mapping[str, Any]) -> DocumentComparison | None:
            better = of_model(answer, "external", self._reading)
            return compared(read, better) if better.at_least(self._rules.thresholds.external) else None

        self._exchange.watch(
            LocalRead(read.backend, read.model, read.confidence, read.scores, bar, found is read, known, asked, compare)
        )

    async def local(self) -> Draft | None:
        """Step 1."""
        body = self._body(local=True) | {"temperature": 0}
        return await self._model("local", StepAsked("local", body), self._threshold("local"))

    async def parser(self) -> Draft | None:
        """Step 2."""
        order, threshold = self._order, self._threshold("parser")
        if order.parser == "none":
            self.told.append(StepTold("parser", "skipped", why="the request asks for no parser"))
            return None
        # In a thread: parsers are loaded with the first document, and a text may be long.
        read = await asyncio.to_thread(self._parsed)
        if read is None:
            self.told.append(StepTold("parser", "skipped", why="no parser knows this layout"))
            return None
        draft = of_parser(read, self._reading)
        self.drafts.append(draft)
        good = draft.at_least(threshold)
        self._tell(draft, threshold, good)
        if good:
            await self._exchange.note("parsers", draft.model, draft.confidence)
        return draft if good else None

    def _parsed(self) -> Parsed | None:
        order = self._order
        fitting = [p for p in self._rules.parsers() if p.schema == order.schema.name]
        named = next((p for p in fitting if p.name == order.parser), None)
        return best(fitting, order.text) if named is None else parse(named, order.text)

    async def external(self) -> Draft | None:
        """Step 3."""
        privacy = self._exchange.privacy
        if not privacy.may_leave:
            marks = ", ".join(privacy.reasons) or "default"
            self.told.append(StepTold("external", "skipped", why=f"private: it must not leave (marked by {marks})"))
            return None
        surest = max((d.confidence or 0.0 for d in self.drafts), default=None)
        gain = None if surest is None else 1.0 - surest
        asked = replace(self._asked_outside(), gain=gain)
        return await self._model("external", asked, self._threshold("external"))

    def _asked_outside(self) -> StepAsked:
        return StepAsked("cloud", self._body(local=False), self._rules.external)

    async def _model(self, step: str, asked: StepAsked, threshold: float) -> Draft | None:
        made: list[Draft] = []

        def judge(answer: Mapping[str, Any]) -> StepJudgement:
            draft = of_model(answer, step, self._reading, self.drafts)
            made.append(draft)
            return StepJudgement(draft.confidence, draft.at_least(threshold))

        reply = await self._exchange.ask(asked, judge)
        if reply.answer is None or not made:
            self.told.append(_failed(step, reply))
            return None
        draft = replace(made[-1], backend=reply.backend, model=reply.model)
        self.drafts.append(draft)
        good = draft.at_least(threshold)
        self._tell(draft, threshold, good, reply.cost_nano)
        return draft if good else None

    def _tell(self, draft: Draft, threshold: float, good: bool, cost_nano: int = 0) -> None:
        verb: Verb = "accepted" if good else "unsure"
        sure = "no signal" if draft.confidence is None else f"{draft.confidence:.3f} < {threshold:g}"
        why = "" if good else "; ".join((sure, *draft.why))
        self.told.append(
            StepTold(draft.step, verb, draft.backend, draft.model, draft.confidence, threshold, why, cost_nano)
        )

    def _threshold(self, step: Literal["local", "parser", "external"]) -> float:
        least = self._order.min_confidence
        if least is not None:
            return least
        configured: float = getattr(self._rules.thresholds, step)
        return self._exchange.bar(configured) if step == "local" else configured

    def _body(self, *, local: bool) -> dict[str, Any]:
        order = self._order
        messages = order.schema.messages(order.text, local=local) if order.messages is None else order.messages
        return {
            "model": order.model,
            "messages": messages,
            "max_tokens": self._rules.max_output_tokens,
            "response_format": order.schema.response_format(),
            "logprobs": True,
            "top_logprobs": TOP_LOGPROBS,
        }


def _failed(step: str, reply: StepReply) -> StepTold:
    """A step that brought no answer: skipped if nothing was sent."""
    last = reply.attempts[-1] if reply.attempts else None
    verb: Verb = "skipped" if last is None else "failed"
    why = reply.message or reply.code
    backend, model = ("", "") if last is None else (last.backend, last.model)
    return StepTold(step, verb, backend, model, why=why, cost_nano=reply.cost_nano)
