"""Text from elsewhere, made harmless for a terminal, a log line or a cell of a spreadsheet."""

from __future__ import annotations

import re

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, marks that turn the direction of writing, and halves of characters."""
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters with which a spreadsheet takes a cell for a formula or a command; the last four are full width."""


def printable(text: str, keeps: str = "") -> str:
    """Return the text with escapes such as `\\x1b` for what could steer a terminal or forge a line. The characters of
    `keeps` stay."""
    if text.isprintable():
        return text
    return _UNSAFE.sub(lambda match: match.group() if match.group() in keeps else _escape(match.group()), text)


def spreadsheet_text(text: str) -> str:
    """Return the text so that a spreadsheet shows it and runs nothing. Numbers stay, with their sign."""
    if not text or (text[0].isalnum() and text.isprintable()):
        return text
    text = printable(text)
    is_formula = text.lstrip(" \xa0").startswith(_FORMULA) and _NUMBER.fullmatch(text) is None
    return f"'{text}" if is_formula else text


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
