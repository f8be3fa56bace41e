"""Labelled pairs of questions, one JSON object a line, and the certificate that they give: `spillway calibrate-cache`.

    {"a": "How do I reset my password?", "b": "What is the way to reset my password?", "same": true}

`same` says whether one answer serves both. The certificate holds for requests like the pairs, so take them from real
traffic: a request and the most similar earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from spillway_router.calibration.certify import STARTS, certify, labels_needed
from spillway_router.core.caching.certificate import SemanticCertificate
from spillway_router.core.caching.marks import marks_of, scripts_of
from spillway_router.core.caching.vectors import Vector


class PairError(Exception):
    """A line is no labelled pair; the message says which line and why."""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two questions, and whether one answer serves both."""

    a: str
    b: str
    same: bool

    @property
    def agrees(self) -> bool:
        """Whether both have the same marks, without which they never share an answer."""
        return marks_of(self.a) == marks_of(self.b)


def read_pairs(lines: Iterable[str]) -> Iterator[LabelledPair]:
    """Yield the pairs of these lines. Raises PairError."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PairError(f"line {number}: it is not JSON ({error})") from error
        texts = isinstance(data, dict) and isinstance(data.get("a"), str) and isinstance(data.get("b"), str)
        if not texts or not isinstance(data.get("same"), bool):
            raise PairError(f'line {number}: write {{"a": "...", "b": "...", "same": true}}, with same true or false')
        yield LabelledPair(data["a"], data["b"], data["same"])


def agreeing_texts(pairs: Sequence[LabelledPair]) -> list[str]:
    """Return the texts whose vectors `certificate_of` needs, each once."""
    return list(dict.fromkeys(text for pair in pairs if pair.agrees for text in (pair.a, pair.b)))


def certificate_of(
    pairs: Sequence[LabelledPair], vectors: Mapping[str, Vector], model: str, *, alpha: float, delta: float
) -> SemanticCertificate:
    """Return the certificate of the loosest threshold with P(wrong | hit) <= alpha with probability >= 1 - delta.

    Only pairs with the same marks can hit. Raises ValueError for an alpha or a delta that is not in (0, 1).
    """
    agreeing = [pair for pair in pairs if pair.agrees]
    similarities = [max(0.0, vectors[pair.a].cosine(vectors[pair.b])) for pair in agreeing]
    certified = certify(similarities, [pair.same for pair in agreeing], alpha, delta)
    texts = [text for pair in agreeing for text in (pair.a, pair.b)]
    return SemanticCertificate(
        model=model,
        threshold=certified.threshold or None,  # 0 would take all pairs for the same
        alpha=alpha,
        delta=delta,
        pairs=len(pairs),
        agreeing=len(agreeing),
        hits=certified.kept,
        errors=certified.errors,
        scripts=frozenset[str]().union(*map(scripts_of, texts)),
    )


def pairs_needed(alpha: float, delta: float) -> int:
    """Return the smallest number of hits, all right, that certifies a threshold."""
    return labels_needed(alpha, delta / len(STARTS))
