"""Recognise the words of a picture with Tesseract, an external program. It is found on the PATH; nothing is installed.

Tesseract says how certain it is of every word. A word below `UNSURE` is kept with its place, so that a value in it is
doubted (drafts.py): of 8 and 3 in a bad scan nobody can be sure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spillway_router.documents.page_lines import PageText, Piece, lines_of_pieces

PROGRAM = "tesseract"
PROGRAM_PATH = f"{os.defpath}:/usr/local/bin:/opt/homebrew/bin"
UNSURE = 0.8
"""The least certainty, 0 to 1, of a word that is taken as read."""
_WORD_LEVEL, _COLUMNS = "5", 12
_ONE_BLOCK = "6"
"""Page segmentation as one block of text: lines go across the page, so that a table's rows stay together."""


class RecognitionError(Exception):
    """A picture can't be recognised; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Recogniser:
    """Tesseract with its languages, such as ("eng", "deu"). `limit_s` bounds one page.

    `path` names the folders in which the program is looked for.
    """

    languages: tuple[str, ...]
    limit_s: float = 60.0
    path: str = PROGRAM_PATH

    def page(self, picture: bytes) -> PageText:
        """Return the text of a picture (PNG, JPEG, TIFF, WebP, BMP, PNM). Raise RecognitionError."""
        program = shutil.which(PROGRAM, path=self.path)
        if program is None:
            raise RecognitionError(
                "recognising it needs Tesseract: install the package tesseract-ocr, or send the document's text"
            )
        command = [program, "stdin", "stdout", "-l", "+".join(self.languages), "--psm", _ONE_BLOCK, "tsv"]
        try:
            # One thread: several are slower on small pages, and the router decides how many pages are read at once.
            done = subprocess.run(
                command,
                input=picture,
                capture_output=True,
                check=False,
                timeout=self.limit_s,
                env={"PATH": self.path, "OMP_THREAD_LIMIT": "1"},
            )
        except subprocess.TimeoutExpired:
            raise RecognitionError(f"recognising a page took more than {self.limit_s:g} s; send it smaller") from None
        if done.returncode != 0:
            raise RecognitionError(_reason(done.stderr.decode(errors="replace"), self.languages))
        return lines_of_pieces(list(_words(done.stdout.decode(errors="replace"))))


def _reason(errors: str, languages: Sequence[str]) -> str:
    if "loading language" in errors or "traineddata" in errors:
        packages = ", ".join(f"tesseract-ocr-{name}" for name in languages)
        return f"Tesseract lacks a language of {'+'.join(languages)}: install {packages}"
    return "Tesseract can't read the picture; it may be damaged"


def _words(table: str) -> Iterator[Piece]:
    """Yield the words of Tesseract's table. Its y grows downwards; a piece's grows upwards."""
    for row in table.split("\n")[1:]:
        cells = row.split("\t")
        if len(cells) != _COLUMNS or cells[0] != _WORD_LEVEL or not cells[11].strip():
            continue
        left, top, width, height = map(float, cells[6:10])
        certainty = max(0.0, float(cells[10]) / 100)
        yield Piece(
            left=left,
            bottom=-(top + height),
            right=left + width,
            top=-top,
            text=cells[11].strip(),
            sure=certainty >= UNSURE,
        )
