"""The documents of the demo model as labelled requests, as `spillway calibrate-complexity` reads them.

    python -m loadtests.confidence.requests > requests.jsonl
    spillway calibrate-complexity requests.jsonl

A request is hard if the demo model's answer is wrong. The dear answer is right where the document is legible
(dataset.py) and costs what the tokens would cost at the list price of GPT-4o, at four characters a token.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain

from loadtests.confidence.dataset import FRESH, LabelledAnswer, answers, asked, legible
from spillway_server.demo_model.documents import exact

INPUT_USD, OUTPUT_USD = 2.50e-6, 10.0e-6
"""GPT-4o's list price per token."""
CHARACTERS_PER_TOKEN = 4


def request_line(answer: LabelledAnswer) -> str:
    """Return one document as a line of JSON."""
    document, text = answer.document, asked(answer.document).source
    usd = (len(text) * INPUT_USD + len(answer.text) * OUTPUT_USD) / CHARACTERS_PER_TOKEN
    row = {
        "text": text,
        "hard": not exact(answer.text, document.truth),
        "dear_quality": float(legible(document)),
        "dear_usd": round(usd, 9),
        "group": str(answer.seed),
    }
    return json.dumps(row, ensure_ascii=False)


def request_lines() -> Iterator[str]:
    """Yield all labelled documents, the first ones and the fresh ones."""
    yield from map(request_line, chain(answers(), answers(FRESH)))


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in request_lines())
