"""A pattern of private content: where it may be, and how a match is checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BEFORE = r"(?:^|[^0-9A-Za-z_.\-/]|[^0-9][.\-/])"
"""What may stand before a number: no digit or letter, and no digits with a point as in a fraction or version."""
AFTER = r"(?:$|[^0-9A-Za-z_\-/.]|[.\-/](?:$|[^0-9])|\.00?(?:$|[^0-9.]|\.(?:$|[^0-9])))"
"""What may stand behind one: `.0` is what tables make of whole numbers in a column with gaps."""
GAP = r"[\s\-]{0,3}"
"""What may separate the groups of a number."""
_NEAR_BYTES = 80
"""Distance within which a word before or after a number says what the number is."""


class Expression:
    """A regular expression for the UTF-8 bytes of a neat text. It is compiled when it is first needed: an idle router
    needs none of a hundred, and does without the library then."""

    __slots__ = ("_compiled", "_source")

    def __init__(self, source: str) -> None:
        self._source = source
        self._compiled: Any = None

    def _ready(self) -> Any:
        if self._compiled is None:
            import re2  # not before anything private may be in a text

            options = re2.Options()
            options.log_errors = False
            self._compiled = re2.compile(self._source.encode(), options)
        return self._compiled

    def search(self, text: bytes, at: int = 0) -> Any:
        """Return the first match from `at` on; None without one."""
        return self._ready().search(text, at)

    def fullmatch(self, text: bytes) -> Any:
        """Return the match of the whole text; None without one."""
        return self._ready().fullmatch(text)

    def cut_from(self, text: bytes) -> bytes:
        """Return the text without its matches."""
        return bytes(self._ready().sub(b"", text))


@dataclass(frozen=True, slots=True)
class Pattern:
    """One kind of private content. Group 1 of `finder` is what `check` judges.

    `context` is needed near matches that are too common by themselves; matches of `clear` (None: of nothing) do
    without.
    """

    name: str
    finder: Expression
    check: Callable[[str], bool]
    context: Expression | None = None
    clear: Expression | None = None

    def occurs_in(self, text: bytes) -> bool:
        """Return whether the text, which is neat UTF-8, has a valid match."""
        # A word that is nowhere in the text is near no match. None can be put together of what stands around a match:
        # marks or spaces on both sides part it.
        if self.clear is None and self.context is not None and self.context.search(text) is None:
            return False
        at = 0
        while (match := self.finder.search(text, at)) is not None:
            start, end = match.span(1)
            if self._is_expected(text, start, end) and self.check(text[start:end].decode(errors="replace")):
                return True
            at = max(end, at + 1)
        return False

    def _is_expected(self, text: bytes, start: int, end: int) -> bool:
        if self.context is None:
            return True
        if self.clear is not None and self.clear.fullmatch(text[start:end]) is not None:
            return True
        near = text[max(0, start - _NEAR_BYTES) : start] + b" " + text[end : end + _NEAR_BYTES]
        return self.context.search(near) is not None


def number(name: str, shape: str, check: Callable[[str], bool], context: str = "", clear: str = "") -> Pattern:
    """Return the pattern of a number or code that no other letters or digits touch."""
    return Pattern(
        name,
        finder=Expression(f"(?i:{BEFORE}({shape}){AFTER})"),
        check=check,
        context=Expression(f"(?i:{context})") if context else None,
        clear=Expression(f"(?i:{clear})") if clear else None,
    )


def compact(text: str) -> str:
    """Return the letters and digits of a match, in upper case."""
    return _NO_SIGNS.sub("", text).upper()


_NO_SIGNS = re.compile("[^0-9A-Za-z]+")
_NO_DIGITS = re.compile("[^0-9]+")


def digits_of(text: str) -> str:
    """Return the digits of a match."""
    return _NO_DIGITS.sub("", text)
