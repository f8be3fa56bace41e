"""Documents and the answers of models to them, for tests."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

from spillway_router.testing import Answer
from spillway_server.demo_model.documents import Document, canonical_json, generate

CLEAN: Document = generate(10_000_000, "clean", "iolmaster_en")
"""A parser knows its layout."""


def with_odd_words(document: Document) -> Document:
    """Return a letter with words that no caption explains, so that captions are not sure: at the axial length, or at
    the patient's number if the letter has no length."""
    text = document.text.replace("(AL) is", "(AL) came out at")
    if text == document.text:
        text = text.replace("patient", "patient known since long")
    return replace(document, text=text)


STRANGE: Document = with_odd_words(generate(10_000_000, "clean", "letter_en"))
"""No parser knows its layout, and captions are not sure of it."""
SCALE_PARSER = """
name: scale
schema: weight
applies_to: ['Scale .*']
fields:
  kg: {patterns: ['Weight: {value} kg'], unit: kg, decimal: any, digits: 1, range: [0, 300]}
  low: {patterns: ['Low: {value} kg'], digits: 1, required: false}
order: [[low, kg]]
other_lines: ['Thank you']
last_line: 'Thank you'
examples: [{text: "Scale 1\\nWeight: 71.5 kg\\nThank you", values: {kg: 71.5, low: null}}]
"""
"""A small parser file of another schema."""


def answer(text: str, confidence: float | None = None, model: str = "m", status: int = 200) -> Answer:
    """Return a chat completion with this content. `confidence`: the probability of its least sure value; None: no
    log-probabilities."""
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
        "logprobs": None if confidence is None else {"content": tokens(text, confidence)},
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    return Answer.json(
        {"id": "c", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage}, status
    )


def tokens(text: str, confidence: float) -> list[dict[str, Any]]:
    """Return the tokens of a JSON text, one per character or numeral. The first numeral has this probability, the
    others are nearly certain."""
    papers: list[dict[str, Any]] = []
    doubted = False
    for part in re.findall(r"\d+\.\d+|.", text, re.DOTALL):
        sure = not (len(part) > 1 and not doubted)
        doubted = doubted or not sure
        logprob = -0.001 if sure else math.log(confidence)
        others = [{"token": part, "logprob": logprob}, {"token": "?", "logprob": math.log1p(-math.exp(logprob))}]
        papers.append({"token": part, "logprob": logprob, "top_logprobs": others})
    return papers


def truth(document: Document) -> str:
    """Return the right answer."""
    return canonical_json(document.truth)


def wrong(document: Document) -> str:
    """Return an answer with a number that is not in the document."""
    return canonical_json({**document.truth, "AL": 29.99})
