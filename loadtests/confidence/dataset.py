"""The committed answers with their documents: read, split by document, and written as `spillway calibrate` reads them.

    python -m loadtests.confidence.dataset --part fit > labelled.jsonl
    spillway calibrate labelled.jsonl --out calibration.json

The fresh answers were collected later, for judging alone: nothing was ever fitted or chosen on them.

Documents are split before anything is fitted: all five kinds of one document stay on the same side, so that no
patient's numbers are in both parts.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from spillway_router.calibration.labelled import Labelled, from_tokens, in_share
from spillway_router.core.confidence.judge import AnswerContext
from spillway_router.core.confidence.scores import Token
from spillway_server.demo_model.documents import HELD_OUT_SEEDS, NOISES, Document, exact, generate, numeral, prompt

ANSWERS = Path(__file__).with_name("answers.jsonl.gz")
FRESH = Path(__file__).with_name("fresh_answers.jsonl.gz")
FIRST = 100_000
"""Number of the first held-out document here; the demo, the tests and the model's own table use documents below it."""
DOCUMENTS = 1708
"""Documents per file; the fresh documents follow the first ones."""
FIT_SHARE = 0.6
_LOOK_ALIKE = str.maketrans("OlSBZ,", "01582.")


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """What the model said of one document.

    `tokens` has text, log-probability, and the best two alternatives. `fresh`: the answer belongs to the documents that
    are for judging alone.
    """

    seed: int
    noise: str
    text: str
    tokens: tuple[Token, ...]
    fresh: bool = False

    @property
    def document(self) -> Document:
        """Return the document of the question."""
        return generate(self.seed, self.noise)

    @property
    def held_out(self) -> bool:
        """Return whether the answer belongs to the part that nothing was fitted on."""
        return self.fresh or not in_share(str(self.seed), FIT_SHARE, "confidence")


def answers(path: Path = ANSWERS) -> Iterator[LabelledAnswer]:
    """Read the answers of a file, in the order of their documents."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield LabelledAnswer(
                seed=HELD_OUT_SEEDS[row["s"]],
                noise=NOISES[row["n"]],
                text=row["t"],
                tokens=_tokens(row),
                fresh=path == FRESH,
            )


def _tokens(row: dict[str, Any]) -> tuple[Token, ...]:
    at, tokens = 0, []
    whole = row["t"] + row["e"]
    for length, chosen, second in zip(row["l"], row["p"], row["q"], strict=True):
        tokens.append(Token(whole[at : at + length], chosen, (chosen, second)))
        at += length
    return tuple(tokens)


def packed(number: int, noise: str, text: str, tokens: list[tuple[str, list[float]]]) -> str:
    """Return one answer as a line of the file: numbers with four digits, tokens as lengths, the end mark behind the
    text.

    Raises:
        ValueError: the tokens are not the text.
    """
    joined = "".join(token for token, _ in tokens)
    if not joined.startswith(text):
        raise ValueError(f"document {number} ({noise}): the tokens are not the text")
    row = {
        "s": number,
        "n": NOISES.index(noise),
        "t": text,
        "e": joined[len(text) :],
        "l": [len(token) for token, _ in tokens],
        "p": [float(f"{top[0]:.4g}") for _, top in tokens],
        "q": [float(f"{top[1]:.4g}") for _, top in tokens],
    }
    return json.dumps(row, separators=(",", ":"))


def asked(document: Document) -> AnswerContext:
    """Return what the router knows of the question: the prompt."""
    return AnswerContext(source=prompt(document.text)[0]["content"])


def value_labels(text: str, truth: dict[str, object]) -> dict[str, bool]:
    """Return pointer -> whether that field's value is right, for an answer that is a JSON object."""
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    return (
        {f"/{key}": values.get(key) == truth[key] for key in truth if key in values} if isinstance(values, dict) else {}
    )


def labelled(answer: LabelledAnswer, *, values: bool = False) -> Labelled:
    """Return the answer with its scores and label.

    Raises:
        ValueError: it carries no signal.
    """
    document = answer.document
    labels = value_labels(answer.text, document.truth) if values else {}
    right = exact(answer.text, document.truth)
    example = from_tokens(list(answer.tokens), answer.text, asked(document), right, str(answer.seed), labels)
    if example is None:
        raise ValueError(f"document {answer.seed} ({answer.noise}): no signal")
    return example


def legible(document: Document) -> bool:
    """Return whether every value is still in the text for a reader who undoes look-alikes, blanks and decimal commas.

    Replaced, lost and duplicated digits can't be undone: no reader is to blame where they affect a value. This is the
    strong model that escalation is measured against.
    """
    text = document.text.translate(_LOOK_ALIKE).replace(" ", "")
    for key, value in document.truth.items():
        if value is None or key == "eye":
            continue
        written = numeral(key, value) if isinstance(value, float) else str(value).translate(_LOOK_ALIKE)
        if written not in text:
            return False
    return True


def write(part: str, out: TextIO) -> int:
    """Write one part ("fit", "held-out" or "all") as `spillway calibrate` reads it; return the number of answers."""
    count = 0
    for answer in answers():
        if part != "all" and answer.held_out != (part == "held-out"):
            continue
        document = answer.document
        row = {
            "right": exact(answer.text, document.truth),
            "group": str(answer.seed),
            "text": answer.text,
            "source": asked(document).source,
            "tokens": [[token.text, token.logprob, list(token.top)] for token in answer.tokens],
            "values": value_labels(answer.text, document.truth),
        }
        out.write(json.dumps(row, separators=(",", ":")) + "\n")
        count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description="Labelled answers as JSON lines on the standard output.")
    parser.add_argument("--part", choices=("fit", "held-out", "all"), default="fit")
    given = parser.parse_args()
    print(f"{write(given.part, sys.stdout)} answers", file=sys.stderr)


if __name__ == "__main__":
    main()
