"""Cut a text into words, numbers, dates and marks, with their places. Pure, and linear in the text."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

TokenKind = Literal["number", "word", "date", "blank", "mark"]
_UNIT_LETTERS = r"(?:mm|cm|µm|μm|um|dpt|dptr|D|kg|g|€|eur)(?![^\W_])"
_NUMBER = r"\d{1,3}(?:[.,'’]\d{3})+[.,]\d{1,2}|\d+[.,]\d+|\d+"
_TOKEN = re.compile(
    rf"""
    (?P<date>(?<![\w.,])(?:\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-./]\d{{1,2}}[-./](?:\d{{4}}|\d{{2}})
        |\d{{1,2}}:\d{{2}}(?::\d{{2}})?)(?![\w]|[.,]\d))
    |(?P<blank>(?:n/a|n\.\s?a\.|k\.\s?a\.|n\.\s?d\.)(?!\w)|-+\.-+|(?<!-)-,-+|-{{2,}}|\?{{2,}}|\*{{2,}})
    |(?P<number>(?<![^\W_])(?:{_NUMBER})(?=[^\w]|_|$|{_UNIT_LETTERS}))
    |(?P<word>[^\W_]+)
    |(?P<leader>\.{{2,}}|…)
    |(?P<mark>\S)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LOOK_ALIKE = re.compile(r"\d[OoIlZSB]|[A-Za-z]\d[A-Za-z]{2}")
_LONE_LOOK_ALIKE = re.compile(
    r"(?<![^\W_])(?!O[SI],\d+[.,])[OIlZSB]{1,2}[.,]\d|\d[.,][OIlZSB](?=\d|(?![^\W_]))|\d[.,] \d|\d [.,]\d"
)
_TAB_GAP = 8


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text at [start, end), in line `line`, `gap` columns behind the one before. `folded`: see fold."""

    kind: TokenKind
    text: str
    folded: str
    start: int
    end: int
    line: int
    gap: int


def fold(word: str) -> str:
    """Return a word in small letters without accents, so that Œil, OEIL and oeil are the same."""
    plain = word.casefold().replace("œ", "oe").replace("ø", "o")
    return "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of a text in order."""
    tokens: list[Token] = []
    at = 0
    for number, line in enumerate(text.split("\n")):
        end = 0
        for match in _TOKEN.finditer(line):
            kind = match.lastgroup or "mark"
            before = line[end : match.start()]
            gap = len(before) + _TAB_GAP * before.count("\t")
            end = match.end()
            word = match.group()
            tokens.append(
                Token(
                    kind="mark" if kind == "leader" else kind,  # type: ignore[arg-type]
                    text=word,
                    folded=fold(word) if kind == "word" else word,
                    start=at + match.start(),
                    end=at + match.end(),
                    line=number,
                    gap=gap,
                )
            )
        at += len(line) + 1
    return tokens


def looks_damaged(text: str, tokens: list[Token]) -> bool:
    """Return whether a scanner seems to have taken letters for digits, or the reverse, or torn numbers apart."""
    mixed = any(t.kind == "word" and _LOOK_ALIKE.search(t.text) is not None for t in tokens)
    return mixed or _LONE_LOOK_ALIKE.search(text) is not None
