"""The referee: a model that says how likely an answer without log-probabilities is right.

Confidence needs log-probabilities. Where a backend sends none, an answer can be judged by asking: the model that gave
it (a self-check in words), or another one. What a model says of answers is no probability, and models are too sure of
their own, so that the threshold beside it has to be tried on labelled answers.

Sources: S. Kadavath et al., Language Models (Mostly) Know What They Know, 2022; L. Zheng et al., Judging LLM-as-a-Judge
with MT-Bench and Chatbot Arena, 2023 (a judge's bias towards its own answers).
"""

from __future__ import annotations

from dataclasses import dataclass

SELF = "self"
"""Stands for the backend that gave the answer."""
QUESTION = (
    "How likely is it that the answer above is right and complete? Answer with a number from 0 to 100 and nothing else."
)
MOST_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Referee:
    """Who is asked about answers without log-probabilities, what, and for how many seconds at most."""

    backend: str
    """A backend, or SELF."""
    longest_s: float
    question: str = QUESTION
    max_tokens: int = MOST_TOKENS
