"""Read captions that nobody listed, from the parts that they are composed of. Pure.

`Prof. de la chambre ant.`, `Depth of anterior chamber` and `Vorderkammertiefe` all are made of the parts depth, chamber
and, if at all, anterior. A book names the parts with their words in several languages, and which parts a caption needs
and may have:

    parts: {axial: [axial, axiale, achs], length: [length, longueur, länge], eye: [eye, œil, auge]}
    composed:
      - {field: AL, needs: [axial, length], may: [eye]}
      - {field: '', needs: [cornea, thickness]}       # a caption that no field asks for

A word is of a part if it is one of its words, an abbreviation of one (three letters, or any with a full stop), an
inflection of one, or if it is compounded of words of several parts. A phrase is a caption only if each of its words is
of a part that its field needs or may have: one word too many, as in `previous axial length`, and it is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from spillway_router.documents.captions.tokens import Token, fold, tokens_of

CONNECTORS = frozenset(
    {"of", "the", "to", "for", "in", "de", "la", "le", "les", "du", "des", "d", "l", "del", "della", "dell", "dello"}
    | {"dei", "el", "los", "der", "die", "das", "den", "dem", "zu", "zur", "im", "tot", "van", "het", "a", "plus", "o"}
)
"""Words inside a caption that are of no part."""
_MOST_WORDS, _LONGEST_WORD = 8, 40
_SHORTEST_ABBREVIATION, _SHORTEST_STEM, _LONGEST_ENDING = 3, 5, 3
_SHORTEST_SEGMENT, _MOST_SEGMENTS = 2, 4
_LINKS = ("", "s", "n", "en", "es", "e")
_CLEAR_LETTERS = 3


@dataclass(frozen=True, slots=True)
class Pattern:
    """A way to compose the caption of a field. `tier` 0 comes before 1."""

    field: str
    needs: tuple[str, ...]
    may: frozenset[str]
    tier: int = 0

    @property
    def parts(self) -> frozenset[str]:
        """Every part that a caption of this pattern may have."""
        return self.may.union(self.needs)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A composed caption: its field ("" for what no field asks for), its folded words, and the token index behind."""

    field: str
    tier: int
    words: tuple[str, ...]
    end: int


@dataclass(frozen=True)
class Composer:
    """The parts by their folded words, the parts by every beginning of a word, and the patterns.

    Words that were looked up are kept.
    """

    words: Mapping[str, frozenset[str]] = field(default_factory=dict)
    beginnings: Mapping[str, frozenset[str]] = field(default_factory=dict)
    patterns: tuple[Pattern, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_readings", lru_cache(maxsize=4096)(self._readings_of))

    def phrase_at(self, tokens: Sequence[Token], index: int) -> Phrase | None:
        """Return the longest composed caption that begins at a token, None if there is none.

        It has at least two parts, so that no plain word becomes a caption.
        """
        if not self.patterns or tokens[index].kind != "word" or not self._of(tokens, index):
            return None
        best: Phrase | None = None
        viable: Sequence[Pattern] = self.patterns
        readings: tuple[tuple[tuple[str, ...], ...], ...] = ()
        used: list[int] = []
        for at in _places(tokens, index):
            used.append(at)
            reading = self._of(tokens, at)
            if not reading:
                if tokens[at].folded not in CONNECTORS:
                    break
                continue
            readings = (*readings, reading)
            viable = [pattern for pattern in viable if _composes(pattern, readings, whole=False)]
            if not viable:
                break
            fitting = [pattern for pattern in viable if _composes(pattern, readings, whole=True)]
            clear = any(len(tokens[one].folded) >= _CLEAR_LETTERS for one in used)
            if fitting and clear and len({pattern.field for pattern in fitting}) == 1:
                words = tuple(tokens[one].folded for one in used)
                best = Phrase(fitting[0].field, fitting[0].tier, words, at + 1)
        return best

    def belongs(self, word: str, name: str | None) -> bool:
        """Return whether a folded word is of a part that some caption of a field has: `flat` in `K1 flat`."""
        readings = self._lookup(word, dotted=False)
        mine = [pattern.parts for pattern in self.patterns if pattern.field == name]
        return any(parts.issuperset(reading) for reading in readings for parts in mine)

    def _of(self, tokens: Sequence[Token], at: int) -> tuple[tuple[str, ...], ...]:
        following = tokens[at + 1] if at + 1 < len(tokens) else None
        dotted = following is not None and following.text == "." and following.gap == 0
        return self._lookup(tokens[at].folded, dotted=dotted)

    def _lookup(self, word: str, *, dotted: bool) -> tuple[tuple[str, ...], ...]:
        readings: tuple[tuple[str, ...], ...] = self._readings(word, dotted)  # type: ignore[attr-defined]
        return readings

    def _readings_of(self, word: str, dotted: bool) -> tuple[tuple[str, ...], ...]:
        """Return every way to read a word, each as its parts."""
        exact = self.words.get(word)
        if exact is not None:
            return tuple((part,) for part in sorted(exact))
        if word in CONNECTORS or len(word) > _LONGEST_WORD:
            return ()
        parts: frozenset[str] = frozenset()
        if len(word) >= (1 if dotted else _SHORTEST_ABBREVIATION):
            parts = self.beginnings.get(word, parts)
        for end in range(max(_SHORTEST_STEM, len(word) - _LONGEST_ENDING), len(word)):
            parts |= self.words.get(word[:end], frozenset())
        compounds = self._segments(word, _MOST_SEGMENTS, dotted=dotted)
        return tuple((part,) for part in sorted(parts)) + tuple(sorted(set(compounds)))

    def _segments(self, word: str, most: int, *, dotted: bool) -> list[tuple[str, ...]]:
        """Return the ways to cut a compound into words of two parts or more, as vorder|kammer|tiefe.

        Its last word may be abbreviated where a full stop follows, as in Linsend.
        """
        cuts: list[tuple[str, ...]] = []
        for end in range(_SHORTEST_SEGMENT, len(word)):
            of = self.words.get(word[:end])
            if of is None or most < 2:
                continue
            rests: list[tuple[str, ...]] = []
            for link in _LINKS:
                rest = word[end + len(link) :] if word.startswith(link, end) else ""
                if rest:
                    rests.extend((part,) for part in self._last(rest, dotted=dotted))
                    rests.extend(self._segments(rest, most - 1, dotted=dotted))
            cuts.extend((part, *rest_parts) for part in of for rest_parts in rests)
        return cuts

    def _last(self, word: str, *, dotted: bool) -> frozenset[str]:
        exact = self.words.get(word, frozenset())
        if exact or not (dotted or len(word) > _SHORTEST_ABBREVIATION):
            return exact if len(word) >= _SHORTEST_SEGMENT else frozenset()
        return self.beginnings.get(word, frozenset())


def _places(tokens: Sequence[Token], index: int) -> list[int]:
    """Return the indexes of the words that may be of one caption with that at `index`."""
    places, at, line, depth = [index], index + 1, tokens[index].line, 0
    while at < len(tokens) and tokens[at].line == line and tokens[at].gap <= 1 and len(places) < _MOST_WORDS:
        token = tokens[at]
        if token.kind == "word" or (token.kind == "number" and token.text in ("1", "2")):
            places.append(at)
        elif token.text == "(" and depth == 0:
            depth = 1
        elif token.text == ")" and depth == 1:
            depth = 0
        elif token.text not in ("-", "–", ".", "_", "'", "’", "°"):
            break
        at += 1
    return places


@lru_cache(maxsize=8192)
def _composes(pattern: Pattern, readings: tuple[tuple[tuple[str, ...], ...], ...], *, whole: bool) -> bool:
    """Return whether words with these readings have no part that a pattern does not know and, if they are the `whole`
    caption, all that it needs.

    A part may come twice only if the pattern needs it twice.
    """

    def fits(at: int, missing: tuple[str, ...], unused: frozenset[str], parts: int) -> bool:
        if at == len(readings):
            return not whole or (not missing and parts > 1)
        for reading in readings[at]:
            left, free = list(missing), set(unused)
            for part in reading:
                if part in left:
                    left.remove(part)
                elif part in free:
                    free.discard(part)
                else:
                    break
            else:
                if fits(at + 1, tuple(left), frozenset(free), parts + len(reading)):
                    return True
        return False

    return fits(0, pattern.needs, pattern.may, 0)


def composer_of(book: Mapping[str, Any], fields: Mapping[str, Any]) -> Composer:
    """Return the composer of a book's content; captions of fields that the schema lacks are nobody's."""
    words: dict[str, set[str]] = {}
    for part, rows in book.get("parts", {}).items():
        for text in rows:
            tokens = tokens_of(str(text))
            words.setdefault(tokens[0].folded if len(tokens) == 1 else fold(str(text)), set()).add(str(part))
    patterns = tuple(
        Pattern(
            field=row["field"] if row["field"] in fields else "",
            needs=tuple(row["needs"]),
            may=frozenset(row.get("may", ())),
            tier=int(row.get("tier", 0)),
        )
        for row in book.get("composed", [])
    )
    beginnings: dict[str, set[str]] = {}
    for word, parts in words.items():
        for end in range(1, len(word) + 1):
            beginnings.setdefault(word[:end], set()).update(parts)
    return Composer(_frozen(words), _frozen(beginnings), patterns)


def _frozen(sets: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    return {name: frozenset(parts) for name, parts in sets.items()}
