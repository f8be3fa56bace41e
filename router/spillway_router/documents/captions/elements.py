"""Group the tokens of a text into what a reader of captions sees: captions, values, units, separators. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from spillway_router.documents.captions.book import Caption, CaptionBook
from spillway_router.documents.captions.tokens import Token

ElementKind = Literal["caption", "choice", "number", "blank", "date", "unit", "neutral", "mark", "word"]
UNITS = {
    "mm": "mm", "cm": "cm", "µm": "um", "μm": "um", "um": "um", "d": "D", "dpt": "D", "dptr": "D", "diopters": "D",
    "dioptres": "D", "dioptrien": "D", "dioptries": "D", "kg": "kg", "g": "g", "eur": "EUR", "€": "EUR", "usd": "USD",
    "mmol": "mmol", "mg": "mg", "l": "l", "ml": "ml", "dl": "dl", "mmhg": "mmHg", "deg": "°",
}  # fmt: skip
"""Printed units, folded, by the unit that they mean."""
NEUTRAL = frozenset(
    [
        "mean",
        "avg",
        "average",
        "value",
        "measured",
        "measurement",
        "mittel",
        "mittelwert",
        "mw",
        "wert",
        "moyenne",
        "moy",
        "valeur",
        "mesure",
        "media",
        "valor",
        "is",
        "was",
        "of",
        "the",
        "a",
        "an",
        "and",
        "with",
        "at",
        "und",
        "et",
        "y",
        "e",
        "beträgt",
        "betragt",
        "est",
        "der",
        "die",
        "das",
        "le",
        "la",
        "les",
        "de",
        "du",
        "des",
        "d",
        "result",
        "ergebnis",
        "gemessen",
        "measures",
        "in",
        "has",
        "ist",
        "war",
        "von",
        "bei",
        "mit",
        "reads",
        "shows",
        "nr",
        "no",
        "num",
        "numero",
        "n",
        "code",
    ]
)
"""Words between a caption and its value that say nothing about which value it is."""
SECONDARY = frozenset("x a à at sd axis achse axe asse eje bei um ± @ ( / ° + [ n".split())  # noqa: SIM905
"""What stands before a second number that belongs to the first: its axis, its spread, the same in another unit."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element at [start, end), `gap` columns behind the one before on its line. `caption` for captions and choices.

    `text` is folded for words, units and captions.
    """

    kind: ElementKind
    text: str
    start: int
    end: int
    line: int
    gap: int
    caption: Caption | None = None

    @property
    def field(self) -> str | None:
        """The name of the captioned field, "" for another one's caption, None for what is no caption."""
        return self.caption.field if self.caption is not None and self.kind == "caption" else None


@dataclass(slots=True)
class Line:
    """The elements of one line that is not empty."""

    number: int
    elements: list[Element] = field(default_factory=list)


def lines_of(tokens: Sequence[Token], book: CaptionBook) -> list[Line]:
    """Return the lines of a text as elements."""
    lines: list[Line] = []
    index = 0
    while index < len(tokens):
        element, index = _next(tokens, index, book)
        if not lines or lines[-1].number != element.line:
            lines.append(Line(element.line))
        lines[-1].elements.append(element)
    return lines


def _next(tokens: Sequence[Token], index: int, book: CaptionBook) -> tuple[Element, int]:
    token = tokens[index]
    match = _caption_at(tokens, index, book)
    if match is not None:
        caption, end = match
        text = " ".join(caption.words)
        kind: ElementKind = "choice" if caption.choice else "caption"
        unit = UNITS.get(text) if len(caption.words) == 1 and index and tokens[index - 1].kind == "number" else None
        if unit is None:
            last = tokens[end - 1]
            return _element(kind, text, token, last.end, caption), end
    return _element(_plain_kind(token), token.folded, token, token.end, None), index + 1


def _element(kind: ElementKind, text: str, first: Token, end: int, caption: Caption | None) -> Element:
    return Element(kind=kind, text=text, start=first.start, end=end, line=first.line, gap=first.gap, caption=caption)


def _plain_kind(token: Token) -> ElementKind:
    if token.kind != "word":
        return "unit" if token.kind == "mark" and token.text in UNITS else token.kind
    if token.folded in UNITS:
        return "unit"
    return "neutral" if token.folded in NEUTRAL else "word"


def _caption_at(tokens: Sequence[Token], index: int, book: CaptionBook) -> tuple[Caption, int] | None:
    """Return the longest caption that begins at a token, and the index behind it: a listed or a composed one."""
    first = tokens[index]
    if first.kind == "mark" and first.text not in book.starts:
        return None
    listed: tuple[Caption, int] | None = None
    for caption in book.starts.get(first.folded, ()):
        end = _match(tokens, index, caption.words)
        if end is not None:
            listed = caption, end
            break
    phrase = book.composer.phrase_at(tokens, index)
    if phrase is None or (listed is not None and phrase.end <= listed[1]):
        return listed
    return Caption(phrase.words, phrase.field, phrase.tier), phrase.end


def _match(tokens: Sequence[Token], index: int, words: Sequence[str]) -> int | None:
    at, line = index, tokens[index].line
    for number, word in enumerate(words):
        while (
            number and at < len(tokens) and tokens[at].line == line and tokens[at].gap <= 1 and _joins(tokens[at].text)
        ):
            at += 1
        if at >= len(tokens) or tokens[at].line != line or tokens[at].folded != word or (number and tokens[at].gap > 1):
            return None
        at += 1
    return at


def _joins(text: str) -> bool:
    """Return whether a mark may stand between the words of a caption: White-to-white, Pat.Nr, al_mm, N° patient."""
    return re.fullmatch(r"[-._'’°/]", text) is not None
