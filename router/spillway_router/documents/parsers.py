"""Reading a text with a declared parser: values, where they stand, and how sure they are. Sans-I/O.

Confidence of a field:

    .99   one value, in its range, or a mark for "no value"
    .95   not there, nor its line, and the rest of the page is: every line is known, and the last line stands
    .30   out of range, or breaking an order (K1 above K2)
    .20   two different values, or not there on a page with unknown lines or without its last line

Confidence of the document: least of its required fields, times .97 for each line that no pattern explains. Damage that
shows beside the values may also have struck inside them, where a wrong digit can't be seen: of lightly damaged
documents that were accepted at .8, about one in thirteen is wrong (tests/documents/test_parsers.py prints it).
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
    """One field: its value, confidence in [0, 1], where it stands in the text (start, end), and why it is doubted."""

    value: Any
    confidence: float
    span: Span | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser made of a text."""

    parser: str
    fields: Mapping[str, ParsedField]
    confidence: float
    unknown_lines: int
    why: tuple[str, ...]

    @property
    def values(self) -> dict[str, Any]:
        """Field -> value, None where there is none."""
        return {name: found.value for name, found in self.fields.items()}


def applies(parser: Parser, text: str) -> bool:
    """True if a line of the text says that it is of this parser's layout."""
    return any(pattern.search(text) is not None for pattern in parser.applies_to)


def best(parsers: Iterable[Parser], text: str) -> Parsed | None:
    """The surest reading among the parsers that apply; None if none does."""
    read = [parse(parser, text) for parser in parsers if applies(parser, text)]
    return max(read, key=lambda parsed: parsed.confidence, default=None)


def parse(parser: Parser, text: str) -> Parsed:
    """The parser's reading of a text, whether it applies or not."""
    covered: list[Span] = []
    hits = {rule.name: _hits(rule, parser, text, covered) for rule in parser.fields}
    for pattern in (*parser.applies_to, *parser.other_lines):
        covered.extend(match.span() for match in pattern.finditer(text))
    whole = True
    if parser.last_line is not None:
        last = [match.span() for match in parser.last_line.finditer(text)]
        covered.extend(last)
        whole = bool(last)
    unknown = _unknown_lines(text, covered)
    seen = frozenset[str]().union(*(rule.places for rule in parser.fields if hits[rule.name]))
    intact = whole and not unknown
    fields = {r.name: _found(r, hits[r.name], left_out=intact and not r.places & seen) for r in parser.fields}
    fields.update(_disordered(parser.order, fields))
    least = min(fields[rule.name].confidence for rule in parser.fields if rule.required)
    why = [f"{name}: {found.why}" for name, found in fields.items() if found.why]
    if unknown:
        why.append(f"{unknown} lines are not known in this layout")
    if not whole:
        why.append("the last line of the layout is missing")
    return Parsed(parser.name, fields, least * PER_UNKNOWN_LINE**unknown, unknown, tuple(why))


def _hits(rule: FieldRule, parser: Parser, text: str, covered: list[Span]) -> list[tuple[Any, Span]]:
    """Every value that a pattern of the field finds, with its span; None for a mark of no value."""
    found: list[tuple[Any, Span]] = []
    for pattern in rule.patterns:
        group = pattern.groupindex["value"]
        for match in pattern.finditer(text):
            covered.append(match.span())
            printed = match.group(group)
            found.append((None if printed in parser.blanks else _value(rule, printed), match.span(group)))
    return found


def _value(rule: FieldRule, printed: str) -> Any:
    if rule.choices is not None:
        return rule.choices[" ".join(printed.split())]
    return float(printed.replace(",", ".")) if rule.number else printed


def _found(rule: FieldRule, hits: Sequence[tuple[Any, Span]], *, left_out: bool) -> ParsedField:
    if not hits:
        return ParsedField(None, LEFT_OUT) if left_out else ParsedField(None, UNKNOWN, None, "not found")
    value, span = hits[0]
    if any(other != value for other, _ in hits):
        return ParsedField(value, UNKNOWN, span, "two different values")
    if value is not None and rule.low is not None and rule.high is not None and not rule.low <= value <= rule.high:
        allowed = f"{rule.low:g} to {rule.high:g} {rule.unit}".rstrip()
        return ParsedField(value, DOUBTFUL, span, f"{value:g} is outside {allowed}")
    return ParsedField(value, SURE, span)


def _disordered(order: Sequence[tuple[str, str]], fields: Mapping[str, ParsedField]) -> dict[str, ParsedField]:
    """The fields of pairs that stand the wrong way round."""
    found: dict[str, ParsedField] = {}
    for low, high in order:
        first, second = fields[low], fields[high]
        if first.value is not None and second.value is not None and first.value > second.value:
            for name, other, field in ((low, high, first), (high, low, second)):
                confidence = min(field.confidence, DOUBTFUL)
                found[name] = ParsedField(field.value, confidence, field.span, f"in the wrong order with {other}")
    return found


def _unknown_lines(text: str, covered: Sequence[Span]) -> int:
    """Lines with something in them that no match covers."""
    unknown = start = 0
    for line in text.split("\n"):
        end = start + len(line)
        if line.strip() and not any(a <= start and end <= b for a, b in covered):
            unknown += 1
        start = end + 1
    return unknown
