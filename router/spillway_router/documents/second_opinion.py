"""Doubt what a model read, by what the document itself shows. Pure.

A value is doubted, whatever the model's own confidence and its calibration, where

- it is nowhere in the document, or only as a part of a longer word or number; choices and booleans need no place
- its caption names another value (captions/reading.py), or names a value where the model read none
- the schema has certified captions, and none of them confirms it
- fewer captions than certified are on the page: it is not this kind of document
- nothing, or less than half of what was due, was read

A doubt lowers the confidence of the field, and of the document if the field is required; it never raises one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spillway_router.core.confidence.json_values import is_required, required_pointers
from spillway_router.documents.captions.confidences import DOUBTED
from spillway_router.documents.drafts import DOUBT, NOT_IN_DOCUMENT, Draft, DraftContext, FieldReading
from spillway_router.documents.parsers import ParsedField

if TYPE_CHECKING:
    from spillway_router.documents.captions.reading import CaptionReading

CONFIRMED = 0.8
"""The least confidence with which captions confirm or contradict a value."""
UNCONFIRMED = 0.85
"""The most confidence in a value that no caption confirms, where captions are known: below the usual threshold of the
local step, above that of the external one."""
_EMPTY_SHARE = 0.5
_FREE = frozenset({"choice", "boolean"})


def doubted_draft(
    draft: Draft, reading: CaptionReading | None, context: DraftContext, earlier: Sequence[Draft] = ()
) -> Draft:
    """Return a model's draft with its doubts. A value that an earlier draft has as well needs no caption."""
    if draft.values is None or draft.confidence is None:
        return draft
    kinds = {name: rule.kind for name, rule in context.schema.captions().fields.items()}
    fields: dict[str, FieldReading] = {}
    for pointer, field in draft.fields.items():
        name = _leaf(pointer)
        named = None if reading is None else _named(pointer, field.value, reading)
        cap, why = _field_doubt(field, kinds.get(name), named, context.text)
        alone = not _confirmed(named, field.value) and not any(_has(other, pointer, field.value) for other in earlier)
        if not why and alone and reading is not None and reading.certified is not None:
            cap, why = UNCONFIRMED, "no caption confirms it"
        fields[pointer] = _capped(field, cap, why)
    caps = dict(_document_doubts(draft, reading))
    lowered = [
        field.confidence or 0.0
        for pointer, field in fields.items()
        if _counts(pointer, field, draft, required_pointers(context.schema.json_schema))
    ]
    new = [f"{pointer}: {field.why}" for pointer, field in fields.items() if field.why]
    return replace(
        draft,
        fields=fields,
        confidence=min(draft.confidence, *lowered, *caps.values(), 1.0),
        why=tuple(dict.fromkeys((*draft.why, *caps, *new))),
    )


def _counts(pointer: str, field: FieldReading, draft: Draft, required: frozenset[str]) -> bool:
    """Return whether a field's new doubt counts for the document."""
    before = draft.fields[pointer].confidence
    lowered = field.confidence is not None and (before is None or field.confidence < before)
    return lowered and is_required(pointer, required)


def _field_doubt(field: FieldReading, kind: str | None, named: ParsedField | None, text: str) -> tuple[float, str]:
    """Return the most confidence in a field, and why; "" if nothing speaks against it."""
    value = field.value
    if named is not None and named.confidence >= CONFIRMED and not _compatible(value, named.value, kind):
        return DOUBT, f"its caption names {_shown(named.value)}"
    if value is None:
        other = None if named is None else named.value
        return (DOUBT, f"its caption seems to name {_shown(other)}") if other is not None else (1.0, "")
    if named is not None and _agree(value, named.value):
        return 1.0, ""
    if kind in _FREE or isinstance(value, bool) or value == "" or field.place is not None:
        return 1.0, ""
    return (1.0, "") if isinstance(value, str) and _date_stands(value, text) else (DOUBT, NOT_IN_DOCUMENT)


def _has(draft: Draft, pointer: str, value: Any) -> bool:
    other = draft.fields.get(pointer)
    return other is not None and value is not None and _agree(value, other.value)


def _confirmed(named: ParsedField | None, value: Any) -> bool:
    return named is not None and named.confidence >= DOUBTED and _agree(value, named.value)


def _document_doubts(draft: Draft, reading: CaptionReading | None) -> Iterator[tuple[str, float]]:
    if reading is not None and not reading.right_kind:
        yield f"captions of {reading.kind:.0%} of the fields, fewer than this kind of document has", DOUBT
    values = [field.value for field in draft.fields.values()]
    empty = sum(value is None or value == "" for value in values)
    booked = reading is not None and reading.certified is not None
    if values and (empty == len(values) or (booked and empty > _EMPTY_SHARE * len(values))):
        yield f"{empty} of {len(values)} values are empty", DOUBT


def _named(pointer: str, value: Any, reading: CaptionReading) -> ParsedField | None:
    """Return what captions say of a field. Items of an array may be in another order: then any item's value counts."""
    field = reading.fields.get(pointer)
    if field is not None and _agree(value, field.value):
        return field
    shape = _shape(pointer)
    if shape == pointer:
        return field
    others = [one for where, one in reading.fields.items() if _shape(where) == shape and _agree(value, one.value)]
    return others[0] if others else field


def _shape(pointer: str) -> str:
    return re.sub(r"/\d+(?=/|$)", "/*", pointer)


def _leaf(pointer: str) -> str:
    return pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~")


def _compatible(value: Any, other: Any, kind: str | None) -> bool:
    """Return whether two readings may both be right: of a text one may have more of it than the other."""
    if kind == "text" and isinstance(value, str) and isinstance(other, str) and value:
        return value.casefold() in other.casefold() or other.casefold() in value.casefold()
    return _agree(value, other)


def _agree(value: Any, other: Any) -> bool:
    if isinstance(value, str) and isinstance(other, str):
        return " ".join(value.split()).casefold() == " ".join(other.split()).casefold()
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def _date_stands(value: str, text: str) -> bool:
    """Return whether an ISO date is in the text in another notation."""
    match = re.fullmatch(r"(\d{4})-(\d{2})-(\d{2})(?:T.*)?", value)
    if match is None:
        return False
    year, month, day = match.groups()
    numbers = re.findall(r"\d+", text)
    return {int(year), int(day)} <= {int(number) for number in numbers if len(number) <= len(year)} or (
        f"{day}{month}{year[2:]}" in "".join(numbers)
    )


def _capped(field: FieldReading, cap: float, why: str) -> FieldReading:
    if not why:
        return field
    confidence = cap if field.confidence is None else min(field.confidence, cap)
    return replace(field, confidence=confidence, why=why)


def _shown(value: Any) -> str:
    return "no value" if value is None else str(value)[:40]


def contradictions(layout: Mapping[str, FieldReading], captions: Mapping[str, FieldReading]) -> list[str]:
    """Return where a layout's parser speaks against a reading by captions: both are sure of different values, or the
    parser denies the value that captions read (out of range, in the wrong order)."""
    doubts = []
    for pointer, mine in layout.items():
        other = captions.get(pointer)
        if other is None or (other.confidence or 0.0) < CONFIRMED:
            continue
        if (mine.confidence or 0.0) >= CONFIRMED:
            if not _agree(mine.value, other.value):
                doubts.append(f"{pointer}: its caption names {_shown(other.value)}")
        elif mine.value is not None:
            doubts.append(f"{pointer}: {mine.why}")
    return doubts
