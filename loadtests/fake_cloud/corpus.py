"""The oracle: it maps the text of a document to the values that the document truly holds.

Each line of the corpus file is one JSON object: {"sha256": hex of the document's UTF-8 text, "answer": its answer}.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

UNKNOWN_ANSWER = "I can't find a biometry report in this message."

# Cuts roughly as modern tokenizers do: words in pieces, up to three digits together, the rest by character.
_PIECES = re.compile(r" ?[^\W\d_]{1,6}|\d{1,3}|\s+|.", re.DOTALL)


class CorpusError(ValueError):
    """The corpus file is invalid; the message names the line and the problem."""


@dataclass(frozen=True, slots=True)
class CorpusEntry:
    """The oracle's entry for a message: the document's hash and answer.

    Of an unknown document, the hash is that of the whole message.
    """

    sha256: str
    known: bool
    answer: str


def digest(text: str) -> str:
    """Return the key of a document: the hex SHA-256 of its UTF-8 text (lone surrogates are kept, as JSON has them)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def pieces(text: str) -> list[str]:
    """Cut a text into the fake cloud's tokens; joined, they are the text again."""
    return _PIECES.findall(text)


def load(path: Path) -> dict[str, str]:
    """Read the answers by document hash.

    Raises:
        CorpusError: a line is not as this module describes it.
        OSError: the file can't be read.
    """
    answers: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            answers[str(row["sha256"])] = str(row["answer"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f'{path}:{number}: needs {{"sha256": ..., "answer": ...}} ({error!r})') from error
    return answers


def save(path: Path, answers: Iterable[tuple[str, str]]) -> None:
    """Write (document text, answer) pairs as a corpus file."""
    rows = (json.dumps({"sha256": digest(text), "answer": answer}) for text, answer in answers)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def look_up(answers: Mapping[str, str], message: str) -> CorpusEntry:
    """Find the document of a user message: the whole message, or what follows its first line (the instruction)."""
    _, _, rest = message.partition("\n")
    for text in (message, rest):
        key = digest(text)
        if text and key in answers:
            return CorpusEntry(key, known=True, answer=answers[key])
    return CorpusEntry(digest(message), known=False, answer=UNKNOWN_ANSWER)
