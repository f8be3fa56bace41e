"""Text from elsewhere steers no terminal and no spreadsheet."""

from __future__ import annotations

import pytest

from spillway_router.core.printable import printable, spreadsheet_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢 👩\u200d💻 \xa0", "plain é 漢 👩\u200d💻 \xa0"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\r\nb\tc\0", "a\\x0d\\x0ab\\x09c\\x00"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp\u2066", "\\u202egnp\\u2066"),
        ("a\u2028b\ud800", "a\\u2028b\\ud800"),
    ],
)
def test_what_steers_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode()


def test_some_characters_may_stay() -> None:
    assert printable("a\n\tb\x1b", keeps="\n\t") == "a\n\tb\\x1b"


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "|", "%", " =", "\u00a0=", "\uff1d"])
def test_a_formula_is_text(first: str) -> None:
    assert spreadsheet_text(f"{first}cmd|'/C calc'!A0") == f"'{first}cmd|'/C calc'!A0"


@pytest.mark.parametrize("text", ["", "gpt-4o", "openai/gpt-oss-20b", "2026-11-29T00:00:00Z", "-0.25", "+3", "{}"])
def test_other_cells_stay(text: str) -> None:
    assert spreadsheet_text(text) == text
    assert spreadsheet_text("\t=1") == "\\x09=1"
