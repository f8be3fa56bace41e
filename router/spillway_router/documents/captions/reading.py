"""Read all values of a schema by their captions: one value for each field, with its confidence and its place. Pure.

Confidence of a field:

    .99   one value, in range, in the unit and with the decimals that are due, or a mark for "no value"
    .85   the only number of the page that looks like an identifier, where no caption names one
    .75   nowhere: the page may not have it, or may be cut off, or print it under a caption that nobody knows
    .60   a doubt: an unknown word at the caption, several numbers behind it, a decimal mark of its own
    .50   a scanner damaged the page, or the value seems to have lost or doubled a digit
    .30   out of range, or in an order that its captions deny (flat above steep)
    .20   two different values

The confidence of the document is that of its least sure field. `kind` is the share of the schema's fields with a
caption and a value that fits; a page of another kind has few of them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spillway_router.documents.captions.book import CaptionBook, CaptionedField
from spillway_router.documents.captions.confidences import ABSENT, CONFLICT, DAMAGED, DENIED, DOUBTED, LONE, SURE
from spillway_router.documents.captions.elements import Element, Line, lines_of
from spillway_router.documents.captions.hits import Findings, LineReader
from spillway_router.documents.captions.numerals import decimal_mark
from spillway_router.documents.captions.tables import column_scopes, read_columns, read_table
from spillway_router.documents.captions.tokens import looks_damaged, tokens_of
from spillway_router.documents.captions.values import Document, Hit, warns
from spillway_router.documents.parsers import ParsedField

NOT_FOUND = "no caption names it"
_LONE_IDENTIFIER = re.compile(r"[A-Z]{0,3}\d{4,}")
_FEW = 3
_USUAL_DECIMALS = 2
_MOST_COMPARED = 100
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class CaptionReading:
    """What captions say: values by the schema, fields by JSON pointer, both confidences (see above). `certified` and
    `answers`: see CaptionBook."""

    values: dict[str, Any]
    fields: Mapping[str, ParsedField]
    confidence: float
    kind: float
    certified: float | None = None
    answers: bool = False
    why: tuple[str, ...] = field(default=())

    @property
    def right_kind(self) -> bool:
        """False if the page has fewer of the captions than certified for this kind of document."""
        return self.certified is None or self.kind >= self.certified


def read_captions(text: str, json_schema: Mapping[str, Any], book: CaptionBook) -> CaptionReading:
    """Read a text."""
    tokens = tokens_of(text)
    lines = lines_of(tokens, book)
    mark = decimal_mark(token.text for token in tokens if token.kind == "number")
    document = Document(text, mark, has_warning=any(warns(line.elements) for line in lines))
    findings = _find(document, book, lines)
    page = _Page(book, findings, lines, text, damaged=looks_damaged(text, tokens))
    fields: dict[str, ParsedField] = {}
    values = page.fill(json_schema, "", "", fields)
    fields = {pointer: page.doubt_damage(one) for pointer, one in fields.items()}
    return CaptionReading(
        values=values if isinstance(values, dict) else {},
        fields=fields,
        confidence=min((one.confidence for one in fields.values()), default=0.0),
        kind=page.kind(),
        certified=book.certified,
        answers=book.answers,
        why=tuple(f"{pointer}: {one.why}" for pointer, one in fields.items() if one.why),
    )


def _find(document: Document, book: CaptionBook, lines: Sequence[Line]) -> Findings:
    findings = Findings()
    reader = LineReader(document, book, findings)
    scopes: list[str] = []
    index = 0
    while index < len(lines):
        heads = column_scopes(lines[index], book)
        if heads:
            scopes = heads
            index += 1
            continue
        if scopes and read_columns(document, book, lines[index], scopes, findings):
            index += 1
            continue
        rows = read_table(document, book, lines, index, findings)
        if not rows:
            following = lines[index + 1] if index + 1 < len(lines) else None
            reader.read(lines[index], following)
        index += max(rows, 1)
    return findings


class _Page:
    """The findings of one page, and the schema's values as they say."""

    def __init__(
        self, book: CaptionBook, findings: Findings, lines: Sequence[Line], text: str, *, damaged: bool
    ) -> None:
        self._book, self._findings, self._text, self._damaged = book, findings, text, damaged
        self._mentioned = {mention.choice for mention in findings.mentions}
        self._hits = [self._placed(hit) for hit in findings.hits]
        self._lone = None if any(hit.field == self._identifier() for hit in self._hits) else self._lone_id(lines)
        self._decimals = _usual_decimals(self._hits, book)

    def kind(self) -> float:
        """Return the share of fields with a fitting value."""
        fitting = {hit.field for hit in self._hits if hit.fits}
        return len(fitting & self._book.fields.keys()) / max(1, len(self._book.fields))

    def fill(self, node: Any, pointer: str, scope: str, fields: dict[str, ParsedField], depth: int = 0) -> Any:
        """Return the values of an object schema for one scope ("" for the page's own), and note them in `fields`."""
        values: dict[str, Any] = {}
        properties = node.get("properties") if isinstance(node, Mapping) else None
        for name, inner in (properties or {}).items() if depth < _MAX_DEPTH else ():
            if not isinstance(inner, Mapping):
                continue
            here = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            items = inner.get("items")
            if isinstance(inner.get("properties"), Mapping):
                values[name] = self.fill(inner, here, self._scope_named(name) or scope, fields, depth + 1)
            elif isinstance(items, Mapping) and isinstance(items.get("properties"), Mapping):
                values[name] = self._items(items, here, fields, depth)
            elif name in self._book.fields:
                read = self._field(self._book.fields[name], scope)
                values[name], fields[here] = read.value, read
        return values

    def _items(self, items: Mapping[str, Any], pointer: str, fields: dict[str, ParsedField], depth: int) -> list[Any]:
        """Return one item for each scope that the page has values of, in the order of the page."""
        scopes = list(dict.fromkeys(hit.scope for hit in sorted(self._hits, key=lambda h: h.start) if hit.scope))
        if not scopes:
            scopes = [""]
        return [self.fill(items, f"{pointer}/{n}", scope, fields, depth + 1) for n, scope in enumerate(scopes)]

    def _scope_named(self, name: str) -> str:
        rule = self._book.fields.get(self._book.scope)
        folded = name.casefold()
        return "" if rule is None else rule.choices.get(folded, rule.short.get(folded, ""))

    def _field(self, rule: CaptionedField, scope: str) -> ParsedField:
        if rule.name == self._book.scope:
            return self._scope_field(scope)
        hits = [hit for hit in self._hits if hit.field == rule.name]
        own = scope or self._own_scope().value
        hits = [hit for hit in hits if hit.scope in ("", own)] if own else hits
        if not hits:
            if rule.kind == "identifier" and self._lone is not None:
                lone = self._lone
                return ParsedField(lone.value, DOUBTED if lone.doubt else LONE, (lone.start, lone.end), lone.doubt)
            why = "its caption has no value" if rule.name in self._findings.empty else NOT_FOUND
            return ParsedField(None, ABSENT if why == NOT_FOUND else DOUBTED, None, why)
        tier = min(hit.tier for hit in hits)
        return self._judged(rule, [hit for hit in hits if hit.tier == tier], own)

    def _judged(self, rule: CaptionedField, hits: Sequence[Hit], scope: str | None) -> ParsedField:
        hit = hits[0]
        span = (hit.start, hit.end) if hit.end else None
        if any(other.value != hit.value for other in hits):
            return ParsedField(hit.value, CONFLICT, span, "two different values")
        if not hit.fits:
            return ParsedField(hit.value, DENIED, span, hit.doubt)
        order = self._order_doubt(rule.name, hit, scope)
        if order:
            return ParsedField(hit.value, DENIED, span, order)
        if 0 <= hit.decimals < self._decimals.get(rule.name, 0):
            return ParsedField(hit.value, DAMAGED, span, "it has fewer decimals than the others; a digit may be lost")
        others = [other.decimals for other in self._hits if other.field != rule.name and other.fits]
        if rule.units and hit.decimals > max(_USUAL_DECIMALS, max(others, default=0)):
            return ParsedField(hit.value, DAMAGED, span, "it has more decimals than the others; a digit may be doubled")
        doubt = next((other.doubt for other in hits if other.doubt), "")
        if not doubt and rule.name in self._findings.questioned:
            doubt = "a sentence questions it"
        return ParsedField(hit.value, DOUBTED if doubt else SURE, span, doubt)

    def _order_doubt(self, name: str, hit: Hit, scope: str | None) -> str:
        for low, high, words in self._book.ordered:
            if name not in (low, high) or hit.value is None:
                continue
            pair = {
                field: next((h for h in self._hits if h.field == field and h.scope in ("", scope or h.scope)), None)
                for field in (low, high)
            }
            first, second = pair[low], pair[high]
            if first is None or second is None or first.value is None or second.value is None:
                continue
            if words & set(first.caption.split()) and first.value > second.value:
                return f"{low} is above {high}, which their captions deny"
        return ""

    def _scope_field(self, scope: str) -> ParsedField:
        return ParsedField(scope, SURE) if scope else self._own_scope()

    def _own_scope(self) -> ParsedField:
        """Return the choice of the scope field that the page as a whole is about."""
        named = [hit for hit in self._hits if hit.field == self._book.scope and hit.value is not None]
        if named and len({hit.value for hit in named}) == 1:
            hit = named[0]
            others = self._mentioned - {hit.value} and not self._has_sections()
            doubt = hit.doubt or ("others are mentioned" if others else "")
            return ParsedField(hit.value, DOUBTED if doubt else SURE, (hit.start, hit.end), doubt)
        if not named and len(self._mentioned) == 1:
            mention = self._findings.mentions[0]
            return ParsedField(mention.choice, SURE, (mention.start, mention.start + 1))
        scopes = {hit.scope for hit in self._hits if hit.scope}
        if not named and not self._mentioned and len(scopes) == 1:
            return ParsedField(scopes.pop(), SURE)
        several = named or self._mentioned or scopes
        return ParsedField(
            None, CONFLICT if several else ABSENT, None, "several are on the page" if several else NOT_FOUND
        )

    def _has_sections(self) -> bool:
        """Return whether every choice that is mentioned heads values of its own."""
        scopes = {hit.scope for hit in self._hits if hit.scope and hit.decimals >= 0}
        return len(self._mentioned) > 1 and self._mentioned <= scopes

    def _placed(self, hit: Hit) -> Hit:
        """Return the hit in the section of the last mention before it, where the page has sections."""
        rule = self._book.fields.get(hit.field)
        if hit.scope or len(self._mentioned) < 2 or rule is None or rule.kind == "identifier":
            return hit
        if hit.field == self._book.scope:
            return hit
        before = bisect_left(self._findings.mentions, hit.start, key=lambda mention: mention.start)
        return replace(hit, scope=self._findings.mentions[before - 1].choice) if before else hit

    def _identifier(self) -> str | None:
        return next((rule.name for rule in self._book.fields.values() if rule.kind == "identifier"), None)

    def _lone_id(self, lines: Sequence[Line]) -> Hit | None:
        """Return the only thing above the values that looks like an identifier and stands alone in its cell, or with a
        doubt the only one behind a name that nobody knows."""
        name = self._identifier()
        if name is None or name in self._findings.empty:
            return None
        first = min((hit.start for hit in self._hits if hit.decimals >= 0), default=0)
        places = [(line.elements, n) for line in lines for n in range(len(line.elements))]
        places = [
            (elements, n)
            for elements, n in places
            if elements[n].start < first
            and elements[n].start not in self._findings.claimed
            and _is_number_like(elements[n])
        ]
        alone = [elements[n] for elements, n in places if _stands_alone(elements, n)]
        behind = [elements[n] for elements, n in places if n > 1 and elements[n - 1].text in ":="]
        lone, doubt = (alone, "") if alone else (behind, "what names it is unknown")
        if len(lone) != 1:
            return None
        return Hit(name, self._text[lone[0].start : lone[0].end], lone[0].start, lone[0].end, doubt=doubt)

    def doubt_damage(self, one: ParsedField) -> ParsedField:
        """Doubt a field of a page that a scanner damaged: the damage may be in the values as well."""
        if not self._damaged or one.confidence <= DAMAGED:
            return one
        return replace(one, confidence=DAMAGED, why="a scanner damaged the page")


def _is_number_like(element: Element) -> bool:
    return element.kind in ("number", "word") and _LONE_IDENTIFIER.fullmatch(element.text.upper()) is not None


def _stands_alone(elements: Sequence[Element], index: int) -> bool:
    element = elements[index]
    before = elements[index - 1] if index else None
    behind = elements[index + 1] if index + 1 < len(elements) else None
    open_before = before is None or before.text in ("|", ";") or element.gap > 1
    return open_before and (behind is None or behind.text in ("|", ";") or behind.gap > 1)


def _usual_decimals(hits: Sequence[Hit], book: CaptionBook) -> dict[str, int]:
    """Return the decimals that most values print, for fields that print fewer.

    Only where at most one value in four prints fewer than the usual number: a page may print some values short.
    """
    fitting = [hit for hit in hits if hit.decimals >= 0 and hit.fits and book.fields[hit.field].units]
    usual = {hit.field: least for hit in fitting if (least := book.fields[hit.field].decimals) is not None}
    numbers = [hit for hit in fitting if hit.field not in usual][:_MOST_COMPARED]
    for hit in numbers:
        peers = [other for other in numbers if other.field != hit.field]
        fewer = [other for other in peers if other.decimals <= hit.decimals]
        if len(peers) > _FEW and len(fewer) <= len(peers) // 4 and hit.decimals < _USUAL_DECIMALS:
            usual[hit.field] = max(0, min(other.decimals for other in peers if other not in fewer))
    return usual
