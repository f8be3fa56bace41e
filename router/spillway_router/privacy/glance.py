"""A glance at ASCII text that rules out most private content: what every request pays for its detectors.

`glance.c` beside this file says the same in one pass, for a twentieth of the time. The build
(router/spillway_compiler) puts it in the place of this module, which is its reference: a test compares both on
generated text.
"""

from __future__ import annotations

import re2

from spillway_router.privacy.marks import BASE64_BEGINNING, MAY_MATCH

HOLDS = 1
"""A pattern, or a character that is written as others, may be in the text; without this bit none is."""
ENCODED = 2
"""Characters may be written as others: by percent signs, entities, escapes, or in quoted-printable."""
MATCHES = 4
"""A pattern may be in the text as it stands."""
ESCAPED = 8
"""There is a backslash."""
FOREIGN = 16
"""There is a byte that is not ASCII; then no other bit is set."""

_LATIN = re2.Options()
_LATIN.encoding = re2.Options.Encoding.LATIN1
_DROPPED = bytes(i for i in range(256) if chr(i) not in '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ @%&\\ux"')
"""The bytes that say nothing of patterns and encodings; without them one search takes a third of the time."""
_REMNANT = re2.Set.SearchSet(_LATIN)
_REMNANT.Add(rb"[@%&]|\\[uxU]|BEGIN|[A-Z0-9ux]{8}|\d(?:[ \\ux]{0,6}\d){5}|[A-Z]{5}\d{4}[A-Z]")
_REMNANT.Compile()
_MAY_BEGIN = re2.Set.SearchSet(_LATIN)
_MAY_BEGIN.Add(BASE64_BEGINNING)
_MAY_BEGIN.Compile()
_MAY_BE_ENCODED = re2.compile(
    rb"%(?:u?[0-9A-Fa-f]{2})|&[#A-Za-z]|\\u[0-9A-Fa-f{]|\\x|\\U[0-9A-Fa-f]{8}|="
    rb"(?:[0-9A-F]{2}=[0-9A-F]{2}|3D|\\+[nr]|\?[A-Za-z])"
)


def glance(text: bytes) -> int:
    """Return what may be in a text, as the sum of the bits above."""
    if not text.isascii():
        return FOREIGN
    seen = ESCAPED if b"\\" in text else 0
    if _REMNANT.Match(text.translate(None, _DROPPED)):
        seen |= HOLDS
    if _MAY_BE_ENCODED.search(text) is not None:
        seen |= ENCODED
    if MAY_MATCH.search(text) is not None:
        seen |= MATCHES
    return seen


def may_embed(text: bytes) -> bool:
    """Return False if a JSON text has nothing that could be text in base64. It may hold any bytes."""
    return bool(_MAY_BEGIN.Match(text))
