"""Read a text with a declared parser: values, their places, and how sure they are. Pure.

Confidence of a field:

    .99   one value within its range, or a mark for "no value"
    .95   missing together with its line on a page that is otherwise intact: every line is known, the last one is there
    .30   out of range, or in the wrong order (K1 above K2)
    .20   two different values, or missing on a page with unknown lines or without its last line

Confidence of the document: that of its least sure required field, times .97 for each line that no pattern explains.
Damage that is visible between the values may also be inside them, where nothing shows a wrong digit: of lightly damaged
documents that were accepted at .8, about one in thirteen is wrong (tests/documents/test_parsers.py prints the share).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spillway_router.documents.parser_files import FieldRule, Parser

SURE, LEFT_OUT, DOUBTFUL, UNKNOWN = 0.99, 0.95, 0.30, 0.20
PER_UNKNOWN_LINE = 0.97

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ParsedField:
    """One field: its value, confidence in [0, 1], place in the text (start, end), and why it is doubted ("" if not)."""

    value: Any
    confidence: float
    span: Span | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class ParsedText:
    """What a parser read in a text."""

    parser: str
    fields: Mapping[str, ParsedField]
    confidence: float
    unknown_lines: int
    why: tuple[str, ...]

    @property
    def values(self) -> dict[str, Any]:
        """Map each field to its value, None if it has none."""
        return {name: field.value for name, field in self.fields.items()}


def applies(parser: Parser, text: str) -> bool:
    """Return True if a line of the text identifies this parser's layout."""
    return any(pattern.search(text) is not None for pattern in parser.applies_to)


def surest_reading(parsers: Iterable[Parser], text: str) -> ParsedText | None:
    """Return the surest reading among the parsers that apply; None if none does."""
    readings = [parse(parser, text) for parser in parsers if applies(parser, text)]
    return max(readings, key=lambda parsed: parsed.confidence, default=None)


def parse(parser: Parser, text: str) -> ParsedText:
    """Read a text with a parser, whether it applies or not."""
    covered: list[Span] = []
    hits = {rule.name: _hits(rule, parser, text, covered) for rule in parser.fields}
    for pattern in (*parser.applies_to, *parser.other_lines):
        covered.extend(match.span() for match in pattern.finditer(text))
    complete = True
    if parser.last_line is not None:
        last = [match.span() for match in parser.last_line.finditer(text)]
        covered.extend(last)
        complete = bool(last)
    unknown = _unknown_lines(text, covered)
    seen = frozenset[str]().union(*(rule.lines for rule in parser.fields if hits[rule.name]))
    intact = complete and not unknown
    fields = {r.name: _field(r, hits[r.name], left_out=intact and not r.lines & seen) for r in parser.fields}
    fields.update(_fields_in_wrong_order(parser.order, fields))
    least = min(fields[rule.name].confidence for rule in parser.fields if rule.required)
    why = [f"{name}: {field.why}" for name, field in fields.items() if field.why]
    if unknown:
        why.append(f"{unknown} lines are unknown in this layout")
    if not complete:
        why.append("the last line of the layout is missing")
    return ParsedText(
        parser=parser.name,
        fields=fields,
        confidence=least * PER_UNKNOWN_LINE**unknown,
        unknown_lines=unknown,
        why=tuple(why),
    )


def _hits(rule: FieldRule, parser: Parser, text: str, covered: list[Span]) -> list[tuple[Any, Span]]:
    """Return every value that a pattern of the field finds, with its span; None for a mark of no value.

    The spans of the matches are added to `covered`.
    """
    hits: list[tuple[Any, Span]] = []
    for pattern in rule.patterns:
        group = pattern.groupindex["value"]
        for match in pattern.finditer(text):
            covered.append(match.span())
            printed = match.group(group)
            hits.append((None if printed in parser.blanks else _value(rule, printed), match.span(group)))
    return hits


def _value(rule: FieldRule, printed: str) -> Any:
    if rule.choices is not None:
        return rule.choices[" ".join(printed.split())]
    return float(printed.replace(",", ".")) if rule.number else printed


def _field(rule: FieldRule, hits: Sequence[tuple[Any, Span]], *, left_out: bool) -> ParsedField:
    if not hits:
        return ParsedField(None, LEFT_OUT) if left_out else ParsedField(None, UNKNOWN, None, "not found")
    value, span = hits[0]
    if any(other != value for other, _ in hits):
        return ParsedField(value, UNKNOWN, span, "two different values")
    if value is not None and rule.low is not None and rule.high is not None and not rule.low <= value <= rule.high:
        allowed = f"{rule.low:g} to {rule.high:g} {rule.unit}".rstrip()
        return ParsedField(value, DOUBTFUL, span, f"{value:g} is outside {allowed}")
    return ParsedField(value, SURE, span)


def _fields_in_wrong_order(
    order: Sequence[tuple[str, str]], fields: Mapping[str, ParsedField]
) -> dict[str, ParsedField]:
    """Return the fields of the pairs whose values are in the wrong order, with the doubt that this raises."""
    doubted: dict[str, ParsedField] = {}
    for low, high in order:
        first, second = fields[low], fields[high]
        if first.value is not None and second.value is not None and first.value > second.value:
            for name, other, field in ((low, high, first), (high, low, second)):
                confidence = min(field.confidence, DOUBTFUL)
                doubted[name] = ParsedField(field.value, confidence, field.span, f"in the wrong order with {other}")
    return doubted


def _unknown_lines(text: str, covered: Sequence[Span]) -> int:
    """Count the non-empty lines that no match covers."""
    unknown = start = 0
    for line in text.split("\n"):
        end = start + len(line)
        if line.strip() and not any(a <= start and end <= b for a, b in covered):
            unknown += 1
        start = end + 1
    return unknown
