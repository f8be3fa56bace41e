"""Labelled answers, one JSON object a line: what `spillway calibrate` reads.

    {"right": true, "scores": {"mean": -0.01, ...}, "top_logprobs": 2}       scores as the router reports them
                                                                             (`top_logprobs`: the number of
                                                                             alternatives, if known), or
    {"right": true, "tokens": [["{\"", -0.001, [-0.001, -7.2]], ...],        the answer with its tokens: text,
     "text": "...", "source": "...", "schema": {...}, "task": "...",         log-probability, best alternatives
     "tools": false}

Optional in both:

    group       the rows of one document, customer or day share a group, which is never split between fitting and
                certifying; by default every row is a group
    values      {pointer: true if right}, the labels of single fields
    prefixes    {"16": {scores}}; computed from the tokens where these are given
    self_check  {"p_true": 0.9} or {"stated": 0.8}: the engine's reply about its answer, as the request's record
                reports it. Give it only where the router asked; otherwise the certificate is for other traffic.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from spillway_router.core.confidence.calibration import field_of
from spillway_router.core.confidence.judge import AnswerContext, PrefixScore, judge, value_scores
from spillway_router.core.confidence.scores import Token
from spillway_router.core.confidence.self_check import QUESTIONS

PREFIXES = (1, 4, 16, 64)
BUCKETS = 2**32


class LabelError(Exception):
    """A labelled line can't be used; the message says which line and why."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One labelled answer: its scores, and whether it is right.

    `prefixes`: the scores of its first k tokens, by k. `values`: of each labelled value its field, its scores, and
    whether it is right. `alternatives`: the number per token that the scores were computed from; 0 if unknown.
    """

    scores: Mapping[str, float]
    right: bool
    group: str
    prefixes: Mapping[int, Mapping[str, float]]
    values: tuple[tuple[str, Mapping[str, float], bool], ...]
    alternatives: int = 0


def read(lines: Iterable[str]) -> Iterator[Labelled]:
    """Yield the labelled answers of these lines, except answers without a signal, which the router never keeps.

    Raises LabelError for a line that is not a labelled answer.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            answer = _row(json.loads(line), number)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise LabelError(
                f"line {number}: {type(error).__name__} {error}; see `spillway calibrate --help`"
            ) from error
        if answer is not None:
            yield answer


def _row(data: Mapping[str, Any], number: int) -> Labelled | None:
    right = data["right"]
    if not isinstance(right, bool):
        raise TypeError(f"`right` is {right!r}, not true or false")
    group = str(data.get("group", f"line {number}"))
    labels = data.get("values") or {}
    if "scores" in data:
        scores = _finite(data["scores"])
        prefixes = {int(k): _finite(part) for k, part in (data.get("prefixes") or {}).items()}
        alternatives = int(data.get("top_logprobs") or 0)
        if not scores:
            return None
        return Labelled(
            scores={**scores, **self_check_scores(data)},
            right=right,
            group=group,
            prefixes=prefixes,
            values=(),
            alternatives=alternatives,
        )
    tokens = [
        Token(str(t[0]), float(t[1]), tuple(float(x) for x in (t[2] if len(t) > 2 else ()))) for t in data["tokens"]
    ]
    context = AnswerContext(
        data.get("schema"), data.get("source", ""), data.get("task", ""), bool(data.get("tools", False))
    )
    answer = from_tokens(tokens, str(data["text"]), context, right, group, labels)
    return None if answer is None else replace(answer, scores={**answer.scores, **self_check_scores(data)})


def self_check_scores(data: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of a self-check (core/confidence/self_check.py).

    Raises ValueError for a score of another name, and for one outside [0, 1].
    """
    scores = _finite(data.get("self_check") or {})
    for name, score in scores.items():
        if name not in QUESTIONS or not 0.0 <= score <= 1.0:
            raise ValueError(f"self_check contains {name} {score:g}; it takes {' or '.join(QUESTIONS)} from 0 to 1")
    return scores


def from_tokens(
    tokens: list[Token], text: str, context: AnswerContext, right: bool, group: str, labels: Mapping[str, bool]
) -> Labelled | None:
    """Return the labelled answer with these tokens; None where they carry no signal."""
    verdict = judge(tokens, text, context, None)
    if not verdict.scores:
        return None
    by_pointer = value_scores(tokens, text, context) if labels else {}
    values = tuple(
        (field_of(pointer), by_pointer[pointer], good) for pointer, good in labels.items() if by_pointer.get(pointer)
    )
    alternatives = min(len(token.top) for token in tokens)
    return Labelled(
        scores=verdict.scores,
        right=right,
        group=group,
        prefixes=prefix_scores(tokens),
        values=values,
        alternatives=alternatives,
    )


def prefix_scores(tokens: Iterable[Token]) -> dict[int, dict[str, float]]:
    """Return the scores of the first k tokens for every k of PREFIXES.

    Where the answer has fewer than k tokens, the scores of the whole answer count, because the stream has ended by
    then.
    """
    scores_after: dict[int, dict[str, float]] = {}
    score = PrefixScore()
    for token in tokens:
        score.add(token)
        if score.tokens in PREFIXES:
            scores_after[score.tokens] = score.scores()
    for k in PREFIXES:
        scores_after.setdefault(k, score.scores())
    return {k: scores for k, scores in scores_after.items() if scores}


def _finite(scores: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(x) for name, x in scores.items() if math.isfinite(float(x))}


def in_share(group: str, share: float, salt: str) -> bool:
    """Return whether a group belongs to the first `share` of all groups.

    The result is the same on every machine and for every order of lines.
    """
    digest = hashlib.sha256(f"{salt}/{group}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * BUCKETS
