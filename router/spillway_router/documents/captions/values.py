"""Read one value at an element: a number with its unit, an identifier, a choice, a date, a text. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from spillway_router.documents.captions.book import CaptionedField
from spillway_router.documents.captions.elements import SECONDARY, UNITS, Element
from spillway_router.documents.captions.numerals import read_numeral

_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[-./](?=\w*\d)\w+)*")
_SHORTEST_ID = 3
_YES = frozenset(["yes", "y", "true", "ja", "oui", "si", "x", "positive", "positiv"])
_NO = frozenset(["no", "n", "false", "nein", "non", "negative", "negativ"])
_CLOSED = ")]}"
_DASHES = ("-", "–", "—", "..", "to", "bis", "à")
MOST_BESIDE = 12
"""How many elements behind a value or a caption are looked at for remarks."""
_EXCLAMATIONS = ("!", "⚠", "not", "nicht", "pas", "must", "should")
_ARROWS, _MOST_BEHIND = ("→", "->", "-", ">", "=>"), 3
_FOOTNOTES = ("*", "†", "‡")
_QUESTIONING = (
    "correct", "korrig", "korrekt", "corrig", "rectif", "corretto", "invalid", "ungült", "ungult", "discard",
    "verworfen", "verwerf", "rejet", "reject", "unreliab", "unzuverl", "estim", "geschätzt", "geschatzt",
    "error", "erron", "fehler", "erreur", "wrong", "falsch", "faux", "repeat", "wiederhol", "doubt",
    "fraglich", "zweifel", "uncertain", "unsicher", "incertain", "provis", "vorläufig", "vorlaufig",
    "implausib", "unplausib", "artefact", "artifact", "artefakt", "failed", "missing", "warn", "achtung",
    "attention", "caution", "vorsicht", "poor", "schlecht", "mauvais", "replac", "ersetzt", "rempla",
)  # fmt: skip
"""Beginnings of words, folded, that say of a value that it does not hold, or that another one does."""
_HARMLESS = (
    "normal", "norm", "ref", "range", "bereich", "usual", "üblich", "ublich", "statt", "instead", "prev", "earlier",
    "vorher", "früher", "fruher", "avant", "antér", "anter", "achse", "axis",
)  # fmt: skip
"""Beginnings of words behind which a number is what is usual, what was measured earlier, or an axis..."""
_HARMLESS_WORDS = frozenset("was war axe ax asse eje sd n od os og oi".split())  # noqa: SIM905
"""...and whole words, with those of eyes."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A value that a caption names, at [start, end); None stands for a mark of no value.

    `scope` is the choice of the scope field that it belongs to, "" if its caption or column says none. `tier` is its
    caption's. `caption` is the words of all its captions. `doubt` says why it may be another value, "" if it may not.
    `decimals` is -1 for what is no number.
    """

    field: str
    value: Any
    start: int
    end: int
    tier: int = 0
    scope: str = ""
    caption: str = ""
    doubt: str = ""
    mark: str = ""
    decimals: int = -1
    fits: bool = True


@dataclass(frozen=True, slots=True)
class Document:
    """The text under reading, its decimal mark ("" if nothing shows it), and whether a footnote questions values."""

    text: str
    mark: str
    has_warning: bool = False


def read_value(
    document: Document, rule: CaptionedField, elements: Sequence[Element], index: int, unit: str
) -> tuple[Hit, int] | None:
    """Return the value of a field at elements[index] and the index behind it; None if there is no such value.

    `unit` is the one that the caption named, "" if none.
    """
    element = elements[index]
    if element.kind == "blank" or (element.text in "-–—" and element.kind == "mark"):
        return Hit(rule.name, None, element.start, element.end), index + 1
    if rule.kind == "number":
        return _number(document, rule, elements, index, unit)
    if rule.kind == "identifier":
        return _identifier(document, rule, elements, index)
    if rule.kind == "choice":
        return _choice(rule, elements, index)
    if rule.kind == "date":
        return _date(rule, element, index)
    if rule.kind == "boolean":
        value = True if element.text in _YES else False if element.text in _NO else None
        return None if value is None else (Hit(rule.name, value, element.start, element.end), index + 1)
    return _text(document, rule, elements, index)


def _number(
    document: Document, rule: CaptionedField, elements: Sequence[Element], index: int, unit: str
) -> tuple[Hit, int] | None:
    element = elements[index]
    numeral = read_numeral(element.text, document.mark) if element.kind == "number" else None
    if numeral is None:
        return None
    behind = index + 1
    before = elements[index - 1] if index else None
    negative = before is not None and before.text in "-−" and before.kind == "mark" and element.gap == 0
    value: float | int = -numeral.value if negative else numeral.value
    if behind < len(elements) and elements[behind].kind == "unit" and elements[behind].gap <= 1:
        unit = UNITS.get(elements[behind].text, "")
        behind += 1
    doubt, fits = _range_doubt(rule, value, unit)
    if numeral.ambiguous:
        doubt = "the comma may part thousands or decimals"
    elif numeral.mark and document.mark and numeral.mark != document.mark:
        doubt = "its decimal mark is not that of the other numbers"
    elif before is not None and before.kind == "mark" and before.text in ".," and before.gap + element.gap == 0:
        doubt = "the number is torn apart"
    elif _glued(elements, index, numeral.mark):
        doubt = "the number runs into something else"
    trailing = besides(document, rule, value, unit, elements, behind)
    behind, several = _trailing(elements, behind)
    trailing = several or trailing
    if rule.whole:
        value = int(value) if value == int(value) else value
    hit = Hit(rule.name, value, element.start, element.end, doubt=doubt or trailing)
    return replace(hit, mark=numeral.mark, decimals=numeral.decimals, fits=fits), behind


def _glued(elements: Sequence[Element], index: int, mark: str) -> bool:
    """Return whether letters or a broken decimal follow a number without a space, as in 22.B5.

    Behind a number with a decimal mark another one parts it from the next value.
    """
    following = [element for element in elements[index + 1 : index + 3] if element.gap == 0]
    if not following or following[0].kind == "unit":
        return False
    if following[0].kind in ("word", "number"):
        return True
    return not mark and len(following) > 1 and following[0].text in ".," and following[1].kind in ("word", "number")


def _range_doubt(rule: CaptionedField, value: float, unit: str) -> tuple[str, bool]:
    """Return why a number may not be this field's, and whether it is in the range of one of its units."""
    if not rule.units:
        return "", True
    if unit and unit not in rule.units:
        return f"{unit} is not a unit of {rule.name}", False
    ranges = [rule.units[unit]] if unit else list(rule.units.values())
    if any(low <= value <= high for low, high in ranges):
        return "", True
    low, high = ranges[0]
    return f"{value:g} is outside {low:g} to {high:g} {unit or next(iter(rule.units))}", False


def _trailing(elements: Sequence[Element], index: int) -> tuple[int, str]:
    """Skip what belongs to the number before: its axis, its spread. Return the index behind and a doubt."""
    while index < len(elements):
        element = elements[index]
        following = elements[index + 1] if index + 1 < len(elements) else None
        if element.kind == "number":
            return index, "several numbers stand behind the caption"
        if element.text == "?":
            return index + 1, "a question mark stands behind the value"
        if element.text in SECONDARY and following is not None and following.kind in ("number", "caption"):
            if following.kind == "caption" and following.field != "":
                return index, ""
            index += 2
            while index < len(elements) and (
                elements[index].kind in ("unit", "number") or elements[index].text in (*_CLOSED, "=", ".", ":", "°")
            ):
                index += 1
        elif element.kind == "unit" or (element.kind == "mark" and element.text in _CLOSED):
            index += 1
        else:
            return index, ""
    return index, ""


def besides(
    document: Document, rule: CaptionedField, value: float, unit: str, elements: Sequence[Element], index: int
) -> str:
    """Return the doubt that the rest of a value's cell raises: another number that may be meant, a correction, a remark
    that the value does not hold."""
    before: list[str] = []
    for at in range(index, min(len(elements), index + MOST_BESIDE)):
        element = elements[at]
        if element.kind == "caption" and element.field != "":
            break
        if element.kind == "number" and "@" not in before[-1:] and not _is_harmless(before):
            other = read_numeral(element.text, document.mark)
            following = elements[at + 1] if at + 1 < len(elements) else None
            own = UNITS.get(following.text, "") if following is not None and following.kind == "unit" else ""
            same_unit = not unit or own in ("", unit)
            if other is not None and other.value != value and same_unit and _are_alike(rule, value, other.value, unit):
                return "" if _begins_range(elements, at) and before[-1:] == ["|"] else "another value stands beside it"
        is_note = element.text in _FOOTNOTES and document.has_warning
        if is_note or element.text.startswith(_QUESTIONING) or element.text in _EXCLAMATIONS:
            return f"{element.text!r} stands beside it"
        if element.text == ";":
            break
        before.append(element.text)
    return ""


def _are_alike(rule: CaptionedField, value: float, other: float, unit: str) -> bool:
    """Return whether two numbers are in one range of a field, so that either may be meant."""
    ranges = [rule.units[unit]] if unit in rule.units else list(rule.units.values())
    return any(low <= value <= high and low <= other <= high for low, high in ranges)


def _is_harmless(before: Sequence[str]) -> bool:
    """Return whether words say that a number to come is none of the value's: what is usual, what was earlier."""
    return any(word.startswith(_HARMLESS) or word in _HARMLESS_WORDS for word in before)


def _begins_range(elements: Sequence[Element], at: int) -> bool:
    """Return whether a number is the lower end of a range, as in a column of what is usual."""
    behind = elements[at + 1 : at + 4]
    dashes = [n for n, element in enumerate(behind) if element.text in _DASHES]
    return bool(dashes) and any(element.kind == "number" for element in behind[dashes[0] + 1 :])


def questions(elements: Sequence[Element]) -> bool:
    """Return whether words of a line say that a value does not hold."""
    return any(element.text.startswith(_QUESTIONING) or element.text in _EXCLAMATIONS for element in elements)


def warns(elements: Sequence[Element]) -> bool:
    """Return whether a line is a footnote that questions what it is a note to."""
    return elements[0].text in _FOOTNOTES and questions(elements[:MOST_BESIDE])


def _identifier(
    document: Document, rule: CaptionedField, elements: Sequence[Element], index: int
) -> tuple[Hit, int] | None:
    element = elements[index]
    match = _IDENTIFIER.match(document.text, element.start)
    if match is None or element.kind == "date" or len(match.group()) < _SHORTEST_ID:
        return None
    value, end = match.group(), match.end()
    if not any(character.isdigit() for character in value):
        return None
    behind = index
    while behind < len(elements) and elements[behind].start < end:
        behind += 1
    doubt = "" if element.kind != "number" or value.isalnum() else "it may be a number with decimals"
    if value.isalnum() is False and "-" in value:
        doubt = ""
    follows = elements[behind] if behind < len(elements) else None
    if follows is not None and follows.line == element.line:
        torn = follows.kind == "number" and follows.gap <= 1
        glued = follows.gap == 0 and follows.text in "-_/"
        doubt = "more of it may follow" if torn or glued else doubt
        doubt = doubt or _followed(elements, behind)
    return Hit(rule.name, value, element.start, end, doubt=doubt), behind


def _followed(elements: Sequence[Element], index: int) -> str:
    """Return the doubt that an arrow, a question mark or a word of replacement right behind a value raises."""
    for element in elements[index : index + _MOST_BEHIND]:
        if element.kind == "caption" or element.text in ("|", ";", ",", "/", "("):
            return ""
        is_arrow = element.text in _ARROWS and element.gap > 0
        if is_arrow or element.text in ("?", *_EXCLAMATIONS) or element.text.startswith(_QUESTIONING):
            return f"{element.text!r} stands behind it"
    return ""


def _choice(rule: CaptionedField, elements: Sequence[Element], index: int) -> tuple[Hit, int] | None:
    """Return the choice here; the same choice in other words may follow, as in OD (right)."""
    value, end, behind = None, 0, index
    doubt = ""
    while behind < len(elements):
        element = elements[behind]
        here = choice_of(rule, element)
        if here is None:
            if value is None or not (element.kind == "mark" and element.text in "()[]/"):
                break
        elif value is None or here == value:
            value, end = here, element.end
        else:
            doubt = "two choices stand here"
        behind += 1
    if value is None:
        return None
    return Hit(rule.name, value, elements[index].start, end, doubt=doubt or _followed(elements, behind)), behind


def choice_of(rule: CaptionedField, element: Element) -> str | None:
    """Return the choice that an element means where a choice of this field is due."""
    if element.kind == "choice" and element.caption is not None and element.caption.field == rule.name:
        return element.caption.choice
    return rule.short.get(element.text) or rule.choices.get(element.text)


def _date(rule: CaptionedField, element: Element, index: int) -> tuple[Hit, int] | None:
    if element.kind != "date" or ":" in element.text:
        return None
    parts = [int(part) for part in re.split(r"[-./]", element.text)]
    year_first = len(re.split(r"[-./]", element.text)[0]) == 4
    year, month, day = parts if year_first else parts[::-1]
    year += 2000 if year < 100 else 0
    swapped = not year_first and "/" in element.text and day <= 12 and month != day
    if month > 12 >= day:
        month, day = day, month
    try:
        value = date(year, month, day).isoformat()
    except ValueError:
        return None
    doubt = "day and month may be the other way round" if swapped else ""
    return Hit(rule.name, value, element.start, element.end, doubt=doubt), index + 1


def _text(document: Document, rule: CaptionedField, elements: Sequence[Element], index: int) -> tuple[Hit, int] | None:
    first, behind = elements[index], index + 1
    while behind < len(elements) and elements[behind].gap <= 1 and elements[behind].text not in ("|", ";"):
        if elements[behind].kind == "caption":
            break
        behind += 1
    end = elements[behind - 1].end
    doubt = "" if behind == len(elements) else "where the text ends is not certain"
    return Hit(rule.name, document.text[first.start : end].strip(), first.start, end, doubt=doubt), behind
