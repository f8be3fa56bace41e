"""Labelled answers, one JSON object a line: what `spillway calibrate` reads.

    {"right": true, "scores": {"mean": -0.01, ...}, "top_logprobs": 2}       scores as the router reports them (of so
                                                                             many alternatives, if you know), or
    {"right": true, "tokens": [["{\"", -0.001, [-0.001, -7.2]], ...],        the answer with its tokens: text,
     "text": "...", "source": "...", "schema": {...}, "task": "...",         log-probability, best alternatives
     "tools": false}

Optional in both: `group` (rows of one document, customer or day: never split between fitting and certifying; default:
every row its own), `values` ({pointer: right?}, labels of single fields), `prefixes` ({"16": {scores}}; made from the
tokens where they are given), `self_check` ({"p_true": 0.9} or {"stated": 0.8}: what the engine said of its own answer,
as the request's record tells it; only where the router asked, or the certificate is one for another traffic).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from spillway_router.core.confidence.judge import AnswerContext, PrefixScore, judge, value_scores
from spillway_router.core.confidence.scores import Token
from spillway_router.core.confidence.self_check import QUESTIONS

PREFIXES = (1, 4, 16, 64)
BUCKETS = 2**32


class LabelError(Exception):
    """A labelled line can't be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer: its scores, whether it was right, and scores of its first k tokens and of its values, the latter
    with a label each. `alternatives`: per token, that the scores were made of; 0 where it isn't known."""

    scores: Mapping[str, float]
    right: bool
    group: str
    prefixes: Mapping[int, Mapping[str, float]]
    values: tuple[tuple[Mapping[str, float], bool], ...]
    alternatives: int = 0


def read(lines: Iterable[str]) -> Iterator[Labelled]:
    """The labelled answers of these lines; answers without a signal are left out, as the router never keeps them.

    Raises LabelError for a line that is none.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = _row(json.loads(line), number)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise LabelError(
                f"line {number}: {type(error).__name__} {error}; see `spillway calibrate --help`"
            ) from error
        if found is not None:
            yield found


def _row(data: Mapping[str, Any], number: int) -> Labelled | None:
    right = data["right"]
    if not isinstance(right, bool):
        raise TypeError(f"`right` is {right!r}, not true or false")
    group = str(data.get("group", f"line {number}"))
    labels = data.get("values") or {}
    if "scores" in data:
        scores = _finite(data["scores"])
        prefixes = {int(k): _finite(found) for k, found in (data.get("prefixes") or {}).items()}
        alternatives = int(data.get("top_logprobs") or 0)
        return Labelled({**scores, **asked_scores(data)}, right, group, prefixes, (), alternatives) if scores else None
    tokens = [
        Token(str(t[0]), float(t[1]), tuple(float(x) for x in (t[2] if len(t) > 2 else ()))) for t in data["tokens"]
    ]
    asked = AnswerContext(
        data.get("schema"), data.get("source", ""), data.get("task", ""), bool(data.get("tools", False))
    )
    found = from_tokens(tokens, str(data["text"]), asked, right, group, labels)
    return None if found is None else replace(found, scores={**found.scores, **asked_scores(data)})


def asked_scores(data: Mapping[str, Any]) -> dict[str, float]:
    """Scores of a second look (core/confidence/self_check.py). Raises ValueError for others, and beyond [0, 1]."""
    found = _finite(data.get("self_check") or {})
    for name, score in found.items():
        if name not in QUESTIONS or not 0.0 <= score <= 1.0:
            raise ValueError(f"self_check holds {name} {score:g}; it takes {' or '.join(QUESTIONS)} from 0 to 1")
    return found


def from_tokens(
    tokens: list[Token], text: str, asked: AnswerContext, right: bool, group: str, labels: Mapping[str, bool]
) -> Labelled | None:
    """The labelled answer with these tokens; None where they carry no signal."""
    verdict = judge(tokens, text, asked, None)
    if not verdict.scores:
        return None
    own = value_scores(tokens, text, asked) if labels else {}
    values = tuple((own[pointer], good) for pointer, good in labels.items() if own.get(pointer))
    alternatives = min(len(token.top) for token in tokens)
    return Labelled(verdict.scores, right, group, prefix_scores(tokens), values, alternatives)


def prefix_scores(tokens: Iterable[Token]) -> dict[int, dict[str, float]]:
    """Scores of the first k tokens for every k of PREFIXES that the answer reaches; a shorter answer's last ones count
    for the next k, since by then the stream has ended."""
    found: dict[int, dict[str, float]] = {}
    score = PrefixScore()
    for token in tokens:
        score.add(token)
        if score.tokens in PREFIXES:
            found[score.tokens] = score.scores()
    for k in PREFIXES:
        found.setdefault(k, score.scores())
    return {k: scores for k, scores in found.items() if scores}


def _finite(scores: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(x) for name, x in scores.items() if math.isfinite(float(x))}


def in_share(group: str, share: float, salt: str) -> bool:
    """Whether a group falls into the first `share` of all: the same on every machine and for every order of lines."""
    digest = hashlib.sha256(f"{salt}/{group}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * BUCKETS
