"""Put the pieces of text of one page together as lines, from top to bottom and from left to right. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SAME_LINE = 0.5
"""Share of the lower height by which two pieces of text overlap if they are on one line."""
_WIDE_GAP = 1.5
"""Widths of a character from which a gap parts two cells."""
_NARROW_GAP = 0.25
_CELL_GAP = "   "


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text on a page: its box, y growing upwards, in any unit. `sure`: it was read for certain."""

    left: float
    bottom: float
    right: float
    top: float
    text: str
    sure: bool = True


@dataclass(frozen=True, slots=True)
class PageText:
    """A text, and the places [start, end) in it that were recognised with doubts."""

    text: str
    unsure: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def joined(pages: Iterable[PageText], between: str) -> PageText:
        """Return the pages that hold text as one."""
        text, unsure = "", list[tuple[int, int]]()
        for page in pages:
            if page.text:
                text += between if text else ""
                unsure.extend((start + len(text), end + len(text)) for start, end in page.unsure)
                text += page.text
        return PageText(text, tuple(unsure))


def lines_of_pieces(pieces: Sequence[Piece]) -> PageText:
    """Return pieces of text as lines, with wide gaps kept wide: they part the cells of a table."""
    rows: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda p: (-p.top, p.left)):
        row = next((row for row in reversed(rows[-3:]) if _on_one_line(row[0], piece)), None)
        if row is None:
            rows.append([piece])
        else:
            row.append(piece)
    return PageText.joined((_joined(sorted(row, key=lambda p: p.left)) for row in rows), "\n")


def _on_one_line(one: Piece, other: Piece) -> bool:
    overlap = min(one.top, other.top) - max(one.bottom, other.bottom)
    return overlap > _SAME_LINE * min(one.top - one.bottom, other.top - other.bottom)


def _joined(row: Sequence[Piece]) -> PageText:
    line, unsure = "", list[tuple[int, int]]()
    for number, piece in enumerate(row):
        if number:
            width = (piece.right - piece.left) / max(1, len(piece.text))
            gap = piece.left - row[number - 1].right
            line += _CELL_GAP if gap > _WIDE_GAP * width else " " if gap > _NARROW_GAP * width else ""
        if not piece.sure:
            unsure.append((len(line), len(line) + len(piece.text)))
        line += piece.text
    return PageText(line, tuple(unsure))
