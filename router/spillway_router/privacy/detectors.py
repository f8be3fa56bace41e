"""Find private content in a request's text: keywords, and patterns with check digits or issuers' prefixes.

A request of plain ASCII takes a quick look that rules most of them out at a few nanoseconds per byte. What remains is
read in every form of `folding`, in time linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spillway_router.privacy.contacts import CONTACTS
from spillway_router.privacy.embedded import embedded_texts
from spillway_router.privacy.folding import decoded, folded, neat, unescaped_once, unmixed
from spillway_router.privacy.glance import ENCODED, ESCAPED, FOREIGN, HOLDS, MATCHES, glance, may_embed
from spillway_router.privacy.keywords import KeywordMatch, Keywords
from spillway_router.privacy.marks import MAY_MATCH
from spillway_router.privacy.national_ids import NATIONAL_IDS
from spillway_router.privacy.patterns import Expression, Pattern
from spillway_router.privacy.payment import PAYMENT
from spillway_router.privacy.pieces import may_meet, seams, text_pieces
from spillway_router.privacy.secrets import SECRETS
from spillway_router.privacy.word_lists import WORD_LISTS

PATTERNS: tuple[Pattern, ...] = (*PAYMENT, *NATIONAL_IDS, *CONTACTS, *SECRETS)
PATTERN_NAMES = tuple(pattern.name for pattern in PATTERNS)
_TAG = Expression("</?[A-Za-z][^<>]{0,200}>")
_INLINE = Expression(
    r"(?i:</?(?:a|b|em|font|i|mark|s|small|span|strong|sub|sup|u|wbr)(?:\s[^<>]{0,200})?/?>|<!--[^<>]{0,200}-->)|\*\*|~~"
)
"""Markup within a number or an address that someone marked or that a search has found."""
_CONTROLS = (b"\\r", b"\\t", b"\\f", b"\\b")
_LONG_RUN = 512
_RUN_END = 64
_HAS_LONG_RUN = Expression(f"[A-Za-z0-9+/=]{{{_LONG_RUN}}}")
_BASE64_RUN = re.compile(b"[A-Za-z0-9+/=]{%d,}+" % _LONG_RUN)
_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Sought:
    """Keywords by their kinds, and patterns."""

    keywords: tuple[tuple[str, Keywords], ...]
    patterns: tuple[Pattern, ...]

    def kinds(self, text: str) -> frozenset[str]:
        """Return the kinds of what is in a neat text."""
        data = text.encode(errors="replace")
        kinds: list[str] = []
        if self.keywords:
            line = _without_tags(data if text.isascii() else folded(text).encode(errors="replace"))
            kinds += [kind for kind, words in self.keywords if words.may_occur(line) and words.occur_in(text)]
        if self.patterns:
            for form in (data, _INLINE.cut_from(data)) if _may_be_marked_up(data) else (data,):
                if MAY_MATCH.search(form) is not None:
                    kinds += [pattern.name for pattern in self.patterns if pattern.occurs_in(form)]
        return frozenset(kinds)


class Detectors:
    """The detectors of one configuration. They are shared by all requests and threads."""

    def __init__(
        self,
        keywords: Sequence[str] = (),
        *,
        match: KeywordMatch = "words",
        word_lists: Iterable[str] = (),
        patterns: Iterable[str] = (),
    ) -> None:
        names = frozenset(patterns)
        lists = {"keyword": tuple(keywords)} | {f"words:{name}": WORD_LISTS[name] for name in word_lists}
        self._all = _Sought(
            tuple((kind, Keywords(words, match)) for kind, words in lists.items() if words),
            tuple(pattern for pattern in PATTERNS if pattern.name in names),
        )

    @property
    def active(self) -> bool:
        """Whether there is anything to detect."""
        return bool(self._all.patterns or self._all.keywords)

    def kinds_in_body(self, body: Mapping[str, Any], text: bytes) -> frozenset[str]:
        """Return the kinds of what is in a body, of which `text` is the JSON."""
        texts = text_pieces(body)
        met = "".join(seams(texts)).encode(errors="replace") if len(texts) > 1 and may_meet(texts) else b""
        seen = glance(text)
        sought = self._likely(text, met, seen)
        kinds = _NOTHING if sought is None else _kinds_in_json(text, sought) | _kinds_across(texts, sought)
        # In this order: the first question is answered in C, and nearly always with no.
        if not kinds and may_embed(text) and (seen & (HOLDS | FOREIGN) or b"data" in text or b"base64" in text):
            kinds = self._kinds_embedded(text)
        if not kinds and met and seen & (HOLDS | FOREIGN) and may_embed(met):
            kinds = self._kinds_embedded(met)
        return kinds

    def kinds_in_json(self, text: bytes) -> frozenset[str]:
        """Return the kinds of what is in a part of a JSON text; characters that were cut are left out."""
        sought = self._likely(text, b"", glance(text))
        return _NOTHING if sought is None else _kinds_in_json(text, sought)

    def kinds_in_text(self, text: str) -> frozenset[str]:
        """Return the kinds of what is in a text."""
        plain = neat(decoded(text))
        latin = unmixed(plain)
        return self._all.kinds(plain) if latin == plain else self._all.kinds(plain) | self._all.kinds(latin)

    def _kinds_embedded(self, text: bytes) -> frozenset[str]:
        inner = "\0".join(filter(None, embedded_texts(text)))
        return self.kinds_in_text(inner) if inner else _NOTHING

    def _likely(self, text: bytes, met: bytes, seen: int) -> _Sought | None:
        """Return what may be in a JSON text, or in `met`, the ends of its texts where they meet; None if nothing of it
        is.

        `seen` is what a glance at the text saw.
        """
        seen_met = glance(met) if met else 0
        if (seen | seen_met) & (FOREIGN | ENCODED):
            return self._all
        patterns, keywords = self._all.patterns, self._all.keywords
        if patterns and _may_be_marked_up(met):
            seen_met |= glance(_INLINE.cut_from(met))
        marked_up = bool(patterns) and _may_be_marked_up(text)
        if not (seen | seen_met) & HOLDS and not (marked_up and glance(_INLINE.cut_from(text)) & HOLDS):
            if not keywords:
                return None
            patterns = ()
        plain = _without_controls(text) if seen & ESCAPED else text
        if patterns:
            if plain is not text:
                seen = glance(plain)
            if marked_up:
                seen |= glance(_INLINE.cut_from(plain))
            if not (seen | seen_met) & MATCHES:
                patterns = ()
        if keywords:
            plain, met = _without_tags(plain), _without_tags(met)
            keywords = tuple([pair for pair in keywords if pair[1].may_occur(plain) or pair[1].may_occur(met)])
        return _Sought(keywords, patterns) if keywords or patterns else None


def _without_tags(text: bytes) -> bytes:
    return _TAG.cut_from(text) if b"<" in text else text


def _may_be_marked_up(text: bytes) -> bool:
    return b"<" in text or b"**" in text or b"~~" in text


def _without_controls(text: bytes) -> bytes:
    if b"\\" in text:
        text = text.replace(b"\\n", b" ")
        if b"\\" in text:
            for control in _CONTROLS:
                text = text.replace(control, b" ")
    return text


def _shortened(text: bytes) -> bytes:
    """Return the text with the ends only of each long run of base64, such as that of a picture."""
    if len(text) <= _LONG_RUN or _HAS_LONG_RUN.search(text) is None:
        return text
    return _BASE64_RUN.sub(lambda run: run.group()[:_RUN_END] + run.group()[-_RUN_END:], text)


def _kinds_in_json(text: bytes, sought: _Sought) -> frozenset[str]:
    plain = _shortened(text).decode(errors="ignore")
    parsed, undone = unescaped_once(plain), decoded(plain)
    once = neat(parsed)
    wholly = once if parsed == undone else neat(undone)
    kinds = sought.kinds(once) if once == wholly else sought.kinds(once) | sought.kinds(wholly)
    latin = unmixed(wholly)
    return kinds if kinds or latin == wholly else sought.kinds(latin)


def _kinds_across(texts: Sequence[str], sought: _Sought) -> frozenset[str]:
    """Return the kinds of what is where texts meet that are read one after the other."""
    if len(texts) < 2:
        return _NOTHING
    ends = seams(texts)
    apart, joined = neat(decoded("\n".join(ends))), neat(decoded("".join(ends)))
    latin = unmixed(joined)
    kinds = sought.kinds(apart) | sought.kinds(joined)
    return kinds if latin == joined else kinds | sought.kinds(latin)
