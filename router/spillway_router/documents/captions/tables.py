"""Find values in tables: captions above their values, and one column for each choice of the scope field. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spillway_router.documents.captions.book import OTHER, CaptionBook, CaptionedField
from spillway_router.documents.captions.elements import SECONDARY, UNITS, Element, Line
from spillway_router.documents.captions.hits import Findings
from spillway_router.documents.captions.values import Document, Hit, choice_of, read_value

_DELIMITERS = (";", "|", "gap", ",", "each")
_VALUES = ("number", "blank", "date")
_FEWEST_CAPTIONS = 2
_MOST_WORDS = 3


@dataclass(frozen=True, slots=True)
class _Column:
    """What the head of a column says: the field (None: unknown), its scope, unit, caption, tier and doubt."""

    field: str | None
    scope: str = ""
    unit: str = ""
    caption: str = ""
    tier: int = 0
    doubt: str = ""


def read_table(document: Document, book: CaptionBook, lines: Sequence[Line], index: int, findings: Findings) -> int:
    """Read the table whose head is lines[index] into the findings; return its number of lines, 0 if there is none."""
    for delimiter in _DELIMITERS:
        cells = _cells(lines[index], delimiter)
        heads = [_column(cell, book) for cell in cells]
        columns = [head for head in heads if head is not None]
        named = {(c.field, c.scope) for c in columns if c.field not in (None, OTHER, book.scope)}
        if len(columns) < len(heads) or len(named) < _FEWEST_CAPTIONS:
            continue
        rows, hits = 0, len(findings.hits)
        for line in lines[index + 1 :]:
            if all(element.kind in ("mark", "blank") for element in line.elements):
                rows += 1
                continue
            if not _read_row(document, book, columns, _cells(line, delimiter), findings):
                break
            rows += 1
        if len(findings.hits) > hits:
            return rows + 1
    return 0


def _cells(line: Line, delimiter: str) -> list[list[Element]]:
    """Split a line into cells; "gap" splits at two columns of white space, "each" gives every element its own."""
    cells: list[list[Element]] = [[]]
    for element in line.elements:
        if element.text == delimiter:
            cells.append([])
            continue
        if delimiter == "each" and (element.kind == "mark" or (element.kind == "unit" and cells[-1])):
            continue
        if (delimiter == "gap" and element.gap > 1 and cells[-1]) or (delimiter == "each" and cells[-1]):
            cells.append([])
        cells[-1].append(element)
    if delimiter == "|":
        cells = cells[1:] if not cells[0] else cells
        cells = cells[:-1] if cells and not cells[-1] else cells
    return cells


def _column(cell: Sequence[Element], book: CaptionBook) -> _Column | None:
    """Return what a head's cell says, None if it is no head."""
    if any(element.kind in _VALUES for element in cell):
        return None
    captions = [e.caption for e in cell if e.kind == "caption" and e.caption is not None]
    fields = {caption.field for caption in captions if caption.field != OTHER}
    if len(fields) > 1:
        return None
    scopes = {e.caption.choice for e in cell if e.kind == "choice" and e.caption and e.caption.field == book.scope}
    words = [e.text for e in cell if e.kind == "word"]
    if not captions:
        return _Column(None) if len(words) <= _MOST_WORDS else None
    chosen = next((caption for caption in captions if caption.field != OTHER), captions[0])
    unit = next((UNITS.get(e.text, "") for e in cell if e.kind == "unit"), "")
    belonging = [word for word in words if book.composer.belongs(word, chosen.field)]
    words = [word for word in words if word not in belonging]
    return _Column(
        field=chosen.field,
        scope=scopes.pop() if len(scopes) == 1 else "",
        unit=unit,
        caption=" ".join([*(" ".join(caption.words) for caption in captions), *belonging]),
        tier=chosen.tier,
        doubt=f"what {words[0]!r} means is unknown" if words else "",
    )


def _read_row(
    document: Document,
    book: CaptionBook,
    columns: Sequence[_Column],
    cells: Sequence[Sequence[Element]],
    findings: Findings,
) -> bool:
    """Read a row of values; return False if the line is none."""
    if len(cells) != len(columns) or any(element.kind == "caption" for cell in cells for element in cell):
        return False
    hits: list[Hit] = []
    scope = ""
    for column, cell in zip(columns, cells, strict=True):
        rule = None if column.field is None else book.fields.get(column.field)
        if rule is None:
            continue
        if not cell:
            hits.append(Hit(rule.name, None, 0, 0, tier=column.tier, scope=column.scope, doubt="the cell is empty"))
            continue
        value = _cell_value(document, rule, cell, column.unit)
        if value is None:
            return False
        if rule.name == book.scope and isinstance(value.value, str):
            scope = value.value
        doubt = value.doubt or column.doubt
        hits.append(replace(value, tier=column.tier, scope=column.scope, caption=column.caption, doubt=doubt))
    for hit in hits:
        scoped = hit.scope or ("" if hit.field == book.scope or book.fields[hit.field].kind == "identifier" else scope)
        findings.hits.append(replace(hit, scope=scoped))
        findings.claimed.add(hit.start)
    return bool(hits)


def _cell_value(document: Document, rule: CaptionedField, cell: Sequence[Element], unit: str) -> Hit | None:
    read = read_value(document, rule, cell, 0, unit)
    if read is None:
        return None
    hit, behind = read
    rest = [element for element in cell[behind:] if element.kind not in ("mark", "unit")]
    return replace(hit, doubt=hit.doubt or "the cell holds more than the value") if rest else hit


def column_scopes(line: Line, book: CaptionBook) -> list[str]:
    """Return the choices of the scope field that head the columns of a line, [] if it is no such head."""
    rule = book.fields.get(book.scope)
    if rule is None:
        return []
    scopes: list[str] = []
    words = 0
    for element in line.elements:
        choice = choice_of(rule, element)
        if choice is not None:
            scopes.extend([] if scopes and scopes[-1] == choice else [choice])
        elif element.kind == "number" or (element.kind == "caption" and element.field not in (OTHER, book.scope)):
            return []
        else:
            words += element.kind == "word"
    return scopes if len(scopes) > 1 and len(scopes) == len(set(scopes)) and words <= _MOST_WORDS else []


def read_columns(document: Document, book: CaptionBook, line: Line, scopes: Sequence[str], findings: Findings) -> bool:
    """Read a line with a caption and one value for each scope; return False if it is none."""
    caption = next((element for element in line.elements if element.kind == "caption"), None)
    if caption is None or caption.caption is None:
        return False
    same = [e for e in line.elements if e.kind == "caption" and e.field != caption.field]
    rule = book.fields.get(caption.caption.field)
    if same and same[0].field != OTHER:
        return False
    for secondary in (SECONDARY, SECONDARY - {"/"}):
        values, unit, unknown = _values(line.elements, caption, secondary)
        if len(values) != len(scopes):
            continue
        if rule is None:
            findings.claimed.update(element.start for element, _ in values)
            return True
        hits = [_scoped(document, rule, element, after or unit) for element, after in values]
        if rule.name == book.scope or any(hit is None for hit in hits):
            return False
        unknown = [word for word in unknown if not book.composer.belongs(word, caption.caption.field)]
        doubt = f"what {unknown[0]!r} means is unknown" if unknown else ""
        for hit, scope in zip(hits, scopes, strict=True):
            if hit is not None:
                hit = replace(
                    hit, scope=scope, tier=caption.caption.tier, caption=caption.text, doubt=hit.doubt or doubt
                )
                findings.hits.append(hit)
                findings.claimed.add(hit.start)
        return True
    return False


def _values(
    elements: Sequence[Element], caption: Element, secondary: frozenset[str]
) -> tuple[list[tuple[Element, str]], str, list[str]]:
    """Return the values of a line with the units behind them, the caption's unit, and the unknown words before."""
    values: list[tuple[Element, str]] = []
    unit, unknown, skip = "", [], False
    for element in elements:
        if element.kind in ("number", "blank"):
            if not skip:
                values.append((element, ""))
            skip = False
        elif element.kind == "unit":
            if values:
                values[-1] = (values[-1][0], values[-1][1] or UNITS.get(element.text, ""))
            else:
                unit = UNITS.get(element.text, "")
        elif element.kind == "word" and not values:
            unknown.append(element.text)
        elif element.text in secondary and values:
            skip = True
        elif element is not caption and element.text in "|;":
            skip = False
    return values, unit, unknown


def _scoped(document: Document, rule: CaptionedField, element: Element, unit: str) -> Hit | None:
    read = read_value(document, rule, [element], 0, unit)
    return None if read is None else read[0]
