"""Find the values that captions name within a line: `AL: 23.10`, `AL=23.10 | K1=43.2`, `K1 / K2: 43.1 / 44.2`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from spillway_router.documents.captions.book import OTHER, CaptionBook, CaptionedField
from spillway_router.documents.captions.elements import UNITS, Element, Line
from spillway_router.documents.captions.values import MOST_BESIDE, Document, Hit, choice_of, questions, read_value

_STOPS = frozenset("@±?")
_PARTED = frozenset(["/", ",", "+", "&", "and", "und", "et", "y", "e"])
_FIELD_ENDS = frozenset("|;")
_MOST_UNKNOWN = 2
_BOUNDS = ("≤", "≥", "≈", "~")


@dataclass(frozen=True, slots=True)
class Mention:
    """A choice of the scope field at a place, outside of a table's header."""

    choice: str
    start: int


@dataclass(slots=True)
class Findings:
    """What was found in a text so far.

    `empty` names fields whose caption stands there without a value, `questioned` those of which a sentence without a
    value says that theirs does not hold.
    """

    hits: list[Hit] = field(default_factory=list)
    mentions: list[Mention] = field(default_factory=list)
    empty: set[str] = field(default_factory=set)
    questioned: set[str] = field(default_factory=set)
    claimed: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Group:
    """Captions of one field with what stands between them and their value. `at` is the index behind."""

    name: str
    tier: int
    words: list[str]
    at: int
    scope: str = ""
    unit: str = ""
    unknown: list[str] = field(default_factory=list)
    peers: list[Element] = field(default_factory=list)


def _compares(elements: Sequence[Element], index: int) -> bool:
    """Return whether a mark says that the value is a bound, or about right; `<` and `>` may belong to a tag."""
    element, following = elements[index], elements[index + 1 : index + 2]
    if element.text not in ("<", ">"):
        return element.text in _BOUNDS
    return any(one.kind == "number" for one in following) and (element.text == "<" or element.gap > 0)


class LineReader:
    """Reads the lines of one document that are no tables."""

    def __init__(self, document: Document, book: CaptionBook, findings: Findings) -> None:
        self._document, self._book, self._findings = document, book, findings
        self._first = len(document.text) - len(document.text.lstrip())

    def read(self, line: Line, following: Line | None) -> None:
        """Read a line. A caption at its end may name the value at the start of the following one."""
        elements = line.elements
        self._note_heading(elements)
        index = 0
        while index < len(elements):
            element = elements[index]
            if element.kind == "choice" and element.caption is not None and element.caption.field == self._book.scope:
                self._findings.mentions.append(Mention(element.caption.choice, element.start))
            if element.kind == "caption":
                index = self._captioned(elements, index, following)
            else:
                index += 1

    def _note_heading(self, elements: Sequence[Element]) -> None:
        """Note a choice of the scope field that stands alone on its line, even as R or L: it heads a section."""
        rule = self._book.fields.get(self._book.scope)
        words = [element for element in elements if element.kind != "mark"]
        if rule is None or len(words) != 1 or words[0].kind == "choice":
            return
        choice = choice_of(rule, words[0])
        if choice is not None:
            self._findings.mentions.append(Mention(choice, words[0].start))

    def _captioned(self, elements: Sequence[Element], index: int, following: Line | None) -> int:
        first = elements[index]
        assert first.caption is not None
        rule = self._book.fields.get(first.caption.field)
        group = self._group(elements, index, rule)
        if rule is None:
            return self._other(elements, group.at)
        if group.peers:
            return self._peers(elements, group, first)
        at, source = group.at, elements
        if at >= len(elements) and following is not None and self._begins_with_value(following, rule):
            at, source = 0, following.elements
        value = None if at >= len(source) else read_value(self._document, rule, source, at, group.unit)
        if value is None:
            self._findings.empty.add(rule.name)
            if questions(elements[group.at : group.at + MOST_BESIDE]):
                self._findings.questioned.add(rule.name)
            return group.at
        hit, behind = value
        doubt = hit.doubt or self._qualified(elements, index, group)
        hit = replace(hit, tier=group.tier, scope=group.scope, caption=" ".join(group.words), doubt=doubt)
        self._add(hit)
        return behind if source is elements else len(elements)

    def _group(self, elements: Sequence[Element], index: int, rule: CaptionedField | None) -> _Group:
        first = elements[index]
        assert first.caption is not None
        group = _Group(first.caption.field, first.caption.tier, [first.text], index + 1)
        ends = 0
        while group.at < len(elements):
            element = elements[group.at]
            ends = ends + 1 if element.text in _FIELD_ENDS else ends
            if ends > 1 or not self._absorb(group, element, rule, elements):
                break
            group.at += 1
        return group

    def _absorb(
        self, group: _Group, element: Element, rule: CaptionedField | None, elements: Sequence[Element]
    ) -> bool:
        """Return whether an element still stands between a caption and its value; note what it says."""
        kind = element.kind
        if kind == "caption" and element.caption is not None:
            if element.caption.field == group.name and group.name != OTHER:
                group.tier = min(group.tier, element.caption.tier)
                group.words.append(element.text)
                return True
            parted = elements[group.at - 1].text in _PARTED
            if rule is not None and rule.kind == "number" and parted and element.field:
                group.peers.append(element)
                return True
            return False
        if group.peers:
            return kind in ("unit", "neutral") or (kind == "mark" and element.text not in _STOPS)
        if kind == "unit" and not (rule is not None and rule.kind == "choice"):
            group.unit = UNITS.get(element.text, "")
            return True
        if kind == "choice" and rule is not None and rule.kind != "choice" and element.caption is not None:
            group.scope = element.caption.choice if element.caption.field == self._book.scope else group.scope
            return True
        if kind == "mark" and _compares(elements, group.at):
            group.unknown.append(element.text)
        if kind in ("neutral", "mark"):
            is_blank = element.text in "-–—" and self._ends_cell(elements, group.at)
            return element.text not in _STOPS and not is_blank and not self._is_value(rule, element)
        if kind == "word" and rule is not None and not self._is_value(rule, element):
            if self._book.composer.belongs(element.text, group.name):
                group.words.append(element.text)
                return True
            group.unknown.append(element.text)
            return len(group.unknown) <= _MOST_UNKNOWN
        return kind == "word" and rule is None and len(group.unknown) < _MOST_UNKNOWN

    def _is_value(self, rule: CaptionedField | None, element: Element) -> bool:
        if rule is None:
            return False
        if rule.kind == "choice":
            return choice_of(rule, element) is not None
        if rule.kind == "identifier":
            return any(character.isdigit() for character in element.text) or self._glued(element)
        return rule.kind in ("text", "boolean") and element.kind in ("word", "neutral")

    def _glued(self, element: Element) -> bool:
        """Return whether an identifier goes on behind a mark, as in E-402211."""
        text = self._document.text
        return (
            element.kind == "word"
            and text[element.end : element.end + 1] == "-"
            and (text[element.end + 1 : element.end + 2].isdigit())
        )

    @staticmethod
    def _ends_cell(elements: Sequence[Element], index: int) -> bool:
        following = elements[index + 1] if index + 1 < len(elements) else None
        return following is None or following.kind == "caption" or following.text in _FIELD_ENDS

    def _begins_with_value(self, line: Line, rule: CaptionedField) -> bool:
        first = line.elements[0]
        if any(element.kind == "caption" for element in line.elements):
            return False
        return first.kind in ("number", "blank", "date") or self._is_value(rule, first)

    def _qualified(self, elements: Sequence[Element], index: int, group: _Group) -> str:
        """Return the doubt that unknown words at a caption raise: `previous AL` is not AL."""
        before = elements[index - 1] if index else None
        unknown = list(group.unknown)
        adjacent = before is not None and before.kind == "word" and elements[index].gap <= 1
        titled = before is not None and before.start == self._first  # a device, or a headline
        named = any(character.isdigit() for character in before.text) if before is not None else False
        if adjacent and before is not None and not titled and not named:
            if self._book.composer.belongs(before.text, group.name):
                group.words.append(before.text)
            else:
                unknown.insert(0, before.text)
        if before is not None and before.field == OTHER and elements[index].gap <= 1:
            unknown.insert(0, before.text)  # target axial length
        return f"what {unknown[0]!r} means is unknown" if unknown else ""

    def _other(self, elements: Sequence[Element], at: int) -> int:
        """Claim the number behind a caption that no field asks for."""
        if at < len(elements) and elements[at].kind in ("number", "blank", "date"):
            self._findings.claimed.add(elements[at].start)
            return at + 1
        return at

    def _peers(self, elements: Sequence[Element], group: _Group, first: Element) -> int:
        """Read K1 / K2: 43.1 / 44.2, one value for each caption in its order."""
        captions = [first, *group.peers]
        numbers: list[Element] = []
        unit, at = group.unit, group.at
        while at < len(elements) and (elements[at].kind in ("number", "unit", "blank") or elements[at].text in _PARTED):
            if elements[at].kind in ("number", "blank"):
                numbers.append(elements[at])
            elif elements[at].kind == "unit":
                unit = UNITS.get(elements[at].text, "")
            at += 1
        for caption, number in zip(captions, numbers, strict=False):
            rule = self._book.fields.get(caption.field or "")
            value = None if rule is None else read_value(self._document, rule, [number], 0, unit)
            if value is not None and caption.caption is not None:
                doubt = value[0].doubt or (
                    "" if len(numbers) == len(captions) else "captions and values differ in number"
                )
                self._add(replace(value[0], tier=caption.caption.tier, caption=caption.text, doubt=doubt))
        return max(at, group.at)

    def _add(self, hit: Hit) -> None:
        self._findings.hits.append(hit)
        self._findings.claimed.add(hit.start)
