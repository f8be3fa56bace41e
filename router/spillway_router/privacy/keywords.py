"""Find keywords in text, as whole words or anywhere, in every spelling that honest clients send."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from spillway_router.privacy.folding import UNSPACED, decoded, neat, split_humps, tightened, words
from spillway_router.privacy.patterns import Expression

KeywordMatch = Literal["words", "anywhere"]
_SQUEEZED_OUT = bytes(i for i in range(128) if not chr(i).isalnum())
_LOWER = bytes(range(256)).lower()
_MEMORY_BYTES = 64 << 20
"""Most memory of one compiled pattern, for thousands of keywords."""
_EDGE = rf"[^\pL\pM\pN]|[{UNSPACED}]"


class KeywordError(ValueError):
    """A keyword with which nothing can be compared; the message names it."""


def keyword_forms(keyword: str) -> frozenset[str]:
    """Return what is searched for a keyword in the form of `folding.words`.

    Raise KeywordError for one that has neither a letter nor a digit nor a symbol.
    """
    forms = {words(neat(text)).strip() for text in (keyword, decoded(keyword))}
    if not all(forms):
        raise KeywordError(f"the keyword {keyword!r} has neither a letter nor a digit nor a symbol")
    return frozenset(forms)


class Keywords:
    """At least one keyword, compiled. Thread-safe."""

    def __init__(self, keywords: Sequence[str], match: KeywordMatch = "words") -> None:
        forms = sorted({form for keyword in keywords for form in keyword_forms(keyword)})
        self._whole = match == "words"
        self._pattern = _compiled(_alternatives(forms, whole=self._whole))
        squeezed = {form.encode().translate(None, _SQUEEZED_OUT) for form in forms}
        self._always = b"" in squeezed
        self._squeezed = _compiled("|".join(_escaped(s.decode()) for s in sorted(squeezed)))

    def may_occur(self, text: bytes) -> bool:
        """Return False only if no keyword is in a text, wherever its words are cut. The text is UTF-8, neat and folded;
        ASCII may have capitals."""
        return self._always or self._squeezed.search(text.translate(_LOWER, _SQUEEZED_OUT)) is not None

    def occur_in(self, text: str) -> bool:
        """Return whether a keyword is in a neat text."""
        pattern = self._pattern
        if pattern.search(words(text).encode(errors="replace")) is not None:
            return True
        tight = tightened(text)
        if tight != text and pattern.search(words(tight).encode(errors="replace")) is not None:
            return True
        if not self._whole:
            return False
        split = split_humps(text)
        return split != text and pattern.search(words(split).encode(errors="replace")) is not None


def _compiled(pattern: str) -> Any:
    import re2  # only where keywords are configured

    options = re2.Options()
    options.max_mem = _MEMORY_BYTES
    options.never_capture = True
    return re2.compile(pattern.encode(), options)


def _alternatives(forms: Iterable[str], *, whole: bool) -> str:
    """Return one pattern for all forms. An end that is a letter or digit is the end of a word, unless the script
    puts no spaces between words; a plural in s or es is the same word."""
    if not whole:
        return "|".join(_escaped(form) for form in forms)
    groups: dict[tuple[bool, bool], list[str]] = {}
    for form in forms:
        groups.setdefault((_is_spaced(form[0]), _is_spaced(form[-1])), []).append(_escaped(form))
    parts = []
    for (starts, ends), escaped in groups.items():
        left = f"(?:^|{_EDGE})" if starts else ""
        right = f"(?:e?s)?(?:$|{_EDGE})" if ends else ""
        parts.append(f"{left}(?:{'|'.join(escaped)}){right}")
    return "|".join(parts)


def _escaped(text: str) -> str:
    import re2

    return str(re2.escape(text))


def _is_spaced(character: str) -> bool:
    return character.isalnum() and _UNSPACED.search(character.encode()) is None


_UNSPACED = Expression(f"[{UNSPACED}]")
