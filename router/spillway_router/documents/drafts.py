"""What one step read in a document: values, their places in the text, and how sure they are. Pure.

core/confidence/judge.py judges a model's answer by its tokens. A value of a model that returns no log-probabilities is
trusted as far as `DraftContext.trust` says. second_opinion.py then doubts what the document contradicts. A value on
which an earlier step agrees is surer, as if both would have to be wrong independently: 1 - (1 - a)(1 - b). That rule
is a stated guess, not a calibrated probability; `calibrated` tells the two apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spillway_router.core.confidence.agreement import same
from spillway_router.core.confidence.calibration import ANY, Calibration
from spillway_router.core.confidence.json_values import is_required, required_pointers
from spillway_router.core.confidence.judge import AnswerContext, judge
from spillway_router.core.confidence.validators import FATAL, matches_schema
from spillway_router.documents.captions.confidences import DOUBTED, SURE
from spillway_router.documents.highlight import TextSpan, pointers, spans_of_values
from spillway_router.documents.parsers import ParsedText
from spillway_router.documents.schemas import Schema
from spillway_router.providers.logprobs import answer_text, tokens_of_choice
from spillway_router.proxy.exchange.audit_sample import DocumentComparison

if TYPE_CHECKING:
    from spillway_router.documents.captions.reading import CaptionReading

DOUBT = 0.5
AGREEING = 0.8
CAPTIONS = "captions"
"""The name under which the reading by captions appears among the parsers."""
NOT_IN_DOCUMENT = "not found in the document"
UNSURE_WORD = "it was recognised in a picture with doubts"


@dataclass(frozen=True, slots=True)
class FieldReading:
    """One value: its confidence in [0, 1] or None, its place in the text, and why it is doubted ("" if it is not)."""

    value: Any
    confidence: float | None
    place: TextSpan | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a step read. `fields` are keyed by JSON pointer. `values` is None if nothing could be used."""

    step: str
    backend: str
    model: str
    values: dict[str, Any] | None
    fields: Mapping[str, FieldReading]
    confidence: float | None
    calibrated: bool = False
    why: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)

    def at_least(self, threshold: float) -> bool:
        """Return True if the draft may be used at this threshold."""
        return self.values is not None and self.confidence is not None and self.confidence >= threshold


@dataclass(frozen=True, slots=True)
class DraftContext:
    """What every draft of a document is judged by. `trust`: see the module docstring."""

    text: str
    schema: Schema
    calibration: Calibration | None = None
    trust: float = 0.9


def draft_of_answer(
    answer: Mapping[str, Any], step: str, context: DraftContext, earlier: Sequence[Draft] = ()
) -> Draft:
    """Return the draft in a model's whole answer. The caller fills in its backend and model."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    text, tokens = _without_code_fence(answer_text(choice)), tokens_of_choice(choice)
    prompt = AnswerContext(schema=context.schema.json_schema, source=context.text, task=context.schema.name)
    calibration = context.calibration
    applies = calibration is not None and calibration.key.model in (ANY, answer.get("model"))
    verdict = judge(tokens, text, prompt, calibration if applies else None)
    values = _json_object(text)
    draft = Draft(
        step=step,
        backend="",
        model="",
        values=values,
        fields={},
        confidence=0.0,
        calibrated=verdict.calibrated,
        why=verdict.flaws or ("json",),
        scores=verdict.scores,
    )
    if values is None:
        return draft
    by_pointer = dict(pointers(values))
    places = spans_of_values(context.text, by_pointer)
    if verdict.scores:
        fields = {p: FieldReading(v, verdict.fields.get(p, 1.0), places.get(p)) for p, v in by_pointer.items()}
        return replace(draft, fields=fields, confidence=verdict.confidence, why=verdict.flaws)
    fields = _trusted_fields(by_pointer, places, context, earlier)
    least = 0.0 if FATAL & set(verdict.flaws) else _least_confidence(fields, context.schema)
    return replace(draft, fields=fields, confidence=least, calibrated=False, why=verdict.flaws)


def _trusted_fields(
    values: Mapping[str, Any], places: Mapping[str, TextSpan], context: DraftContext, earlier: Sequence[Draft]
) -> dict[str, FieldReading]:
    """Return the readings of a model that did not say how sure it is."""
    fields: dict[str, FieldReading] = {}
    for pointer, value in values.items():
        confidence = context.trust
        for draft in earlier:
            other = draft.fields.get(pointer)
            if other is not None and other.value == value and other.confidence is not None:
                confidence = 1.0 - (1.0 - confidence) * (1.0 - other.confidence)
        fields[pointer] = FieldReading(value, round(confidence, 6), places.get(pointer))
    return fields


def compare_drafts(draft: Draft, better: Draft) -> DocumentComparison:
    """Compare a draft with a better reading. A field that only one of them has counts as wrong."""
    return compare_values(
        {pointer: reading.value for pointer, reading in draft.fields.items()},
        {pointer: reading.value for pointer, reading in better.fields.items()},
    )


def compare_values(read: Mapping[str, Any], actual: Mapping[str, Any]) -> DocumentComparison:
    """Compare the values that were read with the actual ones, both by JSON pointer.

    Texts may differ in white space at their ends, as in core/confidence/agreement.py.
    """
    fields = {pointer: pointer in read and same(read[pointer], value) for pointer, value in actual.items()}
    return DocumentComparison(all(fields.values()) and read.keys() == actual.keys(), fields)


def draft_of_parsed_text(parsed: ParsedText, context: DraftContext) -> Draft:
    """Return the draft in a parser's reading. Values that do not fit the schema give it confidence 0."""
    fields = {
        f"/{name}": FieldReading(
            parsed_field.value,
            parsed_field.confidence,
            None if parsed_field.span is None else TextSpan(*parsed_field.span),
            parsed_field.why,
        )
        for name, parsed_field in parsed.fields.items()
    }
    draft = Draft(
        step="parser",
        backend="parsers",
        model=parsed.parser,
        values=parsed.values,
        fields=fields,
        confidence=parsed.confidence,
        why=parsed.why,
    )
    if matches_schema(parsed.values, context.schema.json_schema):
        return draft
    return replace(draft, confidence=0.0, why=("schema", *parsed.why))


def draft_of_captions(reading: CaptionReading, context: DraftContext) -> Draft:
    """Return the draft in a reading by captions. Values that do not fit the schema give it confidence 0."""
    fields = {
        pointer: FieldReading(
            field.value, field.confidence, None if field.span is None else TextSpan(*field.span), field.why
        )
        for pointer, field in reading.fields.items()
    }
    confidence, why = _least_confidence(fields, context.schema) or 0.0, reading.why
    if not reading.right_kind:
        confidence, why = min(confidence, DOUBT), (f"captions of {reading.kind:.0%} of the fields only", *why)
    if not matches_schema(reading.values, context.schema.json_schema):
        confidence, why = 0.0, ("schema", *why)
    return Draft(
        step="parser",
        backend="parsers",
        model=CAPTIONS,
        values=reading.values,
        fields=fields,
        confidence=confidence,
        why=why,
    )


def with_agreement(draft: Draft, earlier: Sequence[Draft], context: DraftContext) -> Draft:
    """Return a reading by captions that is surer of what an earlier step reads alike, with a confidence of AGREEING.

    Only a doubt that a second reader can lift counts (an unknown word at a caption); damage, contradictions and nulls
    stay as they are.
    """
    fields = dict(draft.fields)
    for pointer, reading in draft.fields.items():
        if reading.value is None or reading.confidence is None or not DOUBTED <= reading.confidence < SURE:
            continue
        others = [other.fields[pointer] for other in earlier if pointer in other.fields]
        for other in others:
            if same(other.value, reading.value) and other.confidence is not None and other.confidence >= AGREEING:
                confidence = round(1.0 - (1.0 - reading.confidence) * (1.0 - other.confidence), 6)
                reading = replace(reading, confidence=max(reading.confidence, min(SURE, confidence)))
        fields[pointer] = reading
    least = _least_confidence(fields, context.schema)
    if draft.confidence is None or least is None or draft.confidence < DOUBTED:
        return draft
    return replace(draft, fields=fields, confidence=max(draft.confidence, least))


def doubt_recognition(draft: Draft, unsure: Sequence[tuple[int, int]], context: DraftContext) -> Draft:
    """Return a draft that doubts values in words that were recognised with doubts, at the places `unsure`."""
    if not unsure or draft.confidence is None:
        return draft
    fields = {
        pointer: replace(reading, confidence=min(reading.confidence or 0.0, DOUBT), why=reading.why or UNSURE_WORD)
        if reading.place is not None and any(s < reading.place.end and reading.place.start < e for s, e in unsure)
        else reading
        for pointer, reading in draft.fields.items()
    }
    least = _least_confidence(fields, context.schema)
    confidence = draft.confidence if least is None else min(draft.confidence, least)
    why = tuple(f"{pointer}: {UNSURE_WORD}" for pointer, reading in fields.items() if reading.why == UNSURE_WORD)
    return replace(draft, fields=fields, confidence=confidence, why=(*draft.why, *why))


def _least_confidence(fields: Mapping[str, FieldReading], schema: Schema) -> float | None:
    required = required_pointers(schema.json_schema)
    confidences = [
        reading.confidence
        for pointer, reading in fields.items()
        if reading.confidence is not None and is_required(pointer, required)
    ]
    return min(confidences, default=None)


def _without_code_fence(text: str) -> str:
    """Return the answer without the code fence that some models put around JSON."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```") and "\n" in stripped:
        return stripped[stripped.index("\n") + 1 : -3].strip()
    return text


def _json_object(text: str) -> dict[str, Any] | None:
    """Parse the JSON object behind the model's thoughts, if it wrote any; None if there is no object."""
    try:
        parsed = json.loads(text[text.rfind("</think>") + 8 :] if "</think>" in text else text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None
