"""What one step read in a document: values, where they stand, and how sure they are. Pure.

A model's answer is judged by core/confidence/judge.py, from its tokens. A model that sends no log-probabilities is
trusted as far as `Reading.plain` says where a number stands in the document, and `DOUBT` where it doesn't; a value
that an earlier step read alike is surer, as if both had to be wrong independently: 1 - (1 - a)(1 - b). That rule is a
stated guess and no calibrated probability; `calibrated` tells them apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spillway_router.core.confidence.agreement import same
from spillway_router.core.confidence.calibration import ANY, Calibration
from spillway_router.core.confidence.json_values import is_required, required_pointers
from spillway_router.core.confidence.judge import AnswerContext, judge
from spillway_router.core.confidence.validators import FATAL, PromptSource, matches_schema
from spillway_router.documents.highlight import TextSpan, places, pointers
from spillway_router.documents.parsers import Parsed
from spillway_router.documents.schemas import Schema
from spillway_router.providers.logprobs import answer_text, tokens_of_choice
from spillway_router.proxy.client.document_step import DocumentComparison

DOUBT = 0.5
_ABSENT = "does not stand in the document"


@dataclass(frozen=True, slots=True)
class Read:
    """One value: confidence in [0, 1] or None, where it stands, and why it is doubted ("" if it isn't)."""

    value: Any
    confidence: float | None
    place: TextSpan | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a step read. `fields` by JSON pointer. `values` None: nothing that could be used."""

    step: str
    backend: str
    model: str
    values: dict[str, Any] | None
    fields: Mapping[str, Read]
    confidence: float | None
    calibrated: bool = False
    why: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)

    def at_least(self, threshold: float) -> bool:
        """Whether it may be used at this threshold."""
        return self.values is not None and self.confidence is not None and self.confidence >= threshold


@dataclass(frozen=True, slots=True)
class Reading:
    """What every draft of a document is judged by. `plain`: trust in a value of a model without log-probabilities."""

    text: str
    schema: Schema
    calibration: Calibration | None = None
    plain: float = 0.9


def of_model(answer: Mapping[str, Any], step: str, reading: Reading, earlier: Sequence[Draft] = ()) -> Draft:
    """The draft that a model's whole answer holds; its backend and model are not known yet."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    text, tokens = _bare(answer_text(choice)), tokens_of_choice(choice)
    asked = AnswerContext(schema=reading.schema.json_schema, source=reading.text, task=reading.schema.name)
    known = reading.calibration
    made_for_it = known is not None and known.key.model in (ANY, answer.get("model"))
    verdict = judge(tokens, text, asked, known if made_for_it else None)
    values = _object(text)
    if values is None:
        return Draft(step, "", "", None, {}, 0.0, verdict.calibrated, verdict.flaws or ("json",), verdict.scores)
    found = dict(pointers(values))
    where = places(reading.text, found)
    if verdict.scores:
        fields = {p: Read(v, verdict.fields.get(p, 1.0), where.get(p)) for p, v in found.items()}
        draft = Draft(
            step, "", "", values, fields, verdict.confidence, verdict.calibrated, verdict.flaws, verdict.scores
        )
        return draft if verdict.calibrated else _doubted(draft, reading.text)
    fields = _trusted(found, where, reading, earlier)
    least = 0.0 if FATAL & set(verdict.flaws) else _least(fields, reading.schema)
    return Draft(step, "", "", values, fields, least, False, (*verdict.flaws, *_doubts(fields)), verdict.scores)


def _doubted(draft: Draft, text: str) -> Draft:
    """Without a calibration, which knows what it means, a number that stands nowhere in the document is doubted."""
    source = PromptSource(text)
    fields = {
        pointer: replace(read, confidence=min(read.confidence or 0.0, DOUBT), why=_ABSENT)
        if isinstance(read.value, int | float) and source.holds(read.value) is False
        else read
        for pointer, read in draft.fields.items()
    }
    doubts = _doubts(fields)
    if draft.confidence is None or not doubts:
        return draft
    return replace(draft, fields=fields, confidence=min(draft.confidence, DOUBT), why=(*draft.why, *doubts))


def _doubts(fields: Mapping[str, Read]) -> tuple[str, ...]:
    return tuple(f"{pointer}: {read.why}" for pointer, read in fields.items() if read.why)


def _trusted(
    found: Mapping[str, Any], where: Mapping[str, TextSpan], reading: Reading, earlier: Sequence[Draft]
) -> dict[str, Read]:
    """The values of a model that didn't say how sure it is."""
    source = PromptSource(reading.text)
    fields: dict[str, Read] = {}
    for pointer, value in found.items():
        absent = isinstance(value, int | float) and source.holds(value) is False
        confidence = DOUBT if absent else reading.plain
        for draft in earlier:
            other = draft.fields.get(pointer)
            if other is not None and other.value == value and other.confidence is not None:
                confidence = 1.0 - (1.0 - confidence) * (1.0 - other.confidence)
        why = _ABSENT if absent else ""
        fields[pointer] = Read(value, round(confidence, 6), where.get(pointer), why)
    return fields


def compared(draft: Draft, better: Draft) -> DocumentComparison:
    """What a better reading says of a draft. A field that only one of them has counts as wrong."""
    was = {pointer: read.value for pointer, read in draft.fields.items()}
    now = {pointer: read.value for pointer, read in better.fields.items()}
    return agreement(was, now)


def agreement(was: Mapping[str, Any], now: Mapping[str, Any]) -> DocumentComparison:
    """Values by JSON pointer, as read and as they are: which were right. Texts may differ in white space at their ends,
    as in core/confidence/agreement.py."""
    fields = {pointer: pointer in was and same(was[pointer], value) for pointer, value in now.items()}
    return DocumentComparison(all(fields.values()) and was.keys() == now.keys(), fields)


def of_parser(parsed: Parsed, reading: Reading) -> Draft:
    """The draft of a parser's reading; values that don't fit the schema make it worth nothing."""
    fields = {
        f"/{name}": Read(
            found.value, found.confidence, None if found.span is None else TextSpan(*found.span), found.why
        )
        for name, found in parsed.fields.items()
    }
    draft = Draft("parser", "parsers", parsed.parser, parsed.values, fields, parsed.confidence, False, parsed.why)
    if matches_schema(parsed.values, reading.schema.json_schema):
        return draft
    return replace(draft, confidence=0.0, why=("schema", *parsed.why))


def _least(fields: Mapping[str, Read], schema: Schema) -> float | None:
    required = required_pointers(schema.json_schema)
    known = [r.confidence for p, r in fields.items() if r.confidence is not None and is_required(p, required)]
    return min(known, default=None)


def _bare(text: str) -> str:
    """The answer without the code fence that some models put around JSON."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```") and "\n" in stripped:
        return stripped[stripped.index("\n") + 1 : -3].strip()
    return text


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text[text.rfind("</think>") + 8 :] if "</think>" in text else text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
