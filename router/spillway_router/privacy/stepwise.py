"""Look for private content in a long text in small steps, so that the event loop serves everybody else meanwhile."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from spillway_router.privacy.detectors import Detectors
from spillway_router.privacy.embedded import embedded_texts
from spillway_router.privacy.pieces import seams, text_pieces_in_steps

STEP = 8 << 10
"""Bytes or characters that are searched between two turns of the event loop: at most 25 ms, for numbers one after the
other that all need their check digits computed."""
OVERLAP = 2 << 10
"""What two searched parts have in common, so that nothing is cut in two. A keyword is at most a fourth as long."""

Steps = Generator[None, None, frozenset[str]]


def search_json(detectors: Detectors, text: bytes, overlap: bytes = b"") -> Steps:
    """Return the kinds of what comes first in a part of a JSON text. `overlap` is the end of the part before it."""
    kinds: frozenset[str] = frozenset()
    for at in range(0, len(text), STEP):
        before = text[at - OVERLAP : at] if at else overlap
        kinds = detectors.kinds_in_json(before + text[at : at + STEP])
        if kinds:
            break
        yield
    return kinds


def search_seams(detectors: Detectors, body: Mapping[str, Any]) -> Steps:
    """Return the kinds of what comes first where the texts of a body meet."""
    kinds: frozenset[str] = frozenset()
    texts = yield from text_pieces_in_steps(body)
    ends = seams(texts) if len(texts) > 1 else []
    for joint in ("\n", ""):
        text = joint.join(ends)
        for at in range(0, len(text), STEP):
            kinds = detectors.kinds_in_text(text[max(0, at - OVERLAP) : at + STEP])
            if kinds:
                return kinds
            yield
    return (yield from search_embedded(detectors, "".join(ends).encode(errors="replace")))


def search_embedded(detectors: Detectors, text: bytes) -> Steps:
    """Return the kinds of what comes first in the texts that are encoded within a JSON text."""
    for piece in embedded_texts(text):
        for at in range(0, len(piece), STEP):
            kinds = detectors.kinds_in_text(piece[max(0, at - OVERLAP) : at + STEP])
            if kinds:
                return kinds
        yield
    return frozenset()


def search_body(detectors: Detectors, body: Mapping[str, Any], text: bytes) -> Steps:
    """Return the kinds of what comes first in a body, of which `text` is the JSON."""
    kinds = yield from search_json(detectors, text)
    kinds = kinds or (yield from search_seams(detectors, body))
    return kinds or (yield from search_embedded(detectors, text))
