"""The oracle: from the text of a document to what it truly says.

The corpus file has one JSON object per line: {"sha256": hex of the document's UTF-8 text, "answer": what to say}.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

UNKNOWN_ANSWER = "I can't find a biometry report in this message."

# About how modern tokenizers cut: words in pieces, up to three digits together, the rest by character.
_PIECES = re.compile(r" ?[^\W\d_]{1,6}|\d{1,3}|\s+|.", re.DOTALL)


class CorpusError(ValueError):
    """The corpus file can't be read; the message names the line and what is wrong."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the oracle knows of a message: the document's hash (of the whole message where unknown) and the answer."""

    sha256: str
    known: bool
    answer: str


def digest(text: str) -> str:
    """The key of a document: hex SHA-256 of its UTF-8 text (lone surrogates kept, so that any JSON string has one)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def pieces(text: str) -> list[str]:
    """The text cut into the stand-in's tokens; joined they give the text again."""
    return _PIECES.findall(text)


def load(path: Path) -> dict[str, str]:
    """Answers by document hash. Raises CorpusError for a line that isn't as the module says, OSError for the file."""
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


def look_up(answers: Mapping[str, str], message: str) -> Found:
    """Find the document in a user message: the message as a whole, or what follows its first line (the instruction)."""
    _, _, rest = message.partition("\n")
    for text in (message, rest):
        key = digest(text)
        if text and key in answers:
            return Found(key, known=True, answer=answers[key])
    return Found(digest(message), known=False, answer=UNKNOWN_ANSWER)
