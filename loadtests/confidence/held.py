"""The experiment behind all figures on confidence: fit on one part of the documents, judge on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.confidence.dataset import FRESH, LabelledAnswer, answers, asked, labelled, legible
from loadtests.confidence.trials import AnswerPool, Floats
from spillway_router.calibration.build import Built, Promise, build
from spillway_router.calibration.fit import CANDIDATES
from spillway_router.calibration.labelled import Labelled
from spillway_router.core.confidence.calibration import Calibration, CalibrationKey
from spillway_router.core.confidence.judge import judge
from spillway_router.core.confidence.scores import Token

ALPHA, DELTA = 0.05, 0.1
SHARPENED = 0.4
"""A drift of the engine: log-probabilities times this factor, as from a sharper softmax, which is overconfident."""


@dataclass(frozen=True, slots=True)
class Held:
    """What was built on the fitting part, and the held-out answers.

    Of these it holds scores, labels, pool, whether a strong reader gets them right, which are fresh (dataset.py), and
    the same answers from an engine that has become overconfident.
    """

    built: Built
    calibration: Calibration
    rows: Sequence[Labelled]
    pool: AnswerPool
    strong: Floats
    fresh: NDArray[np.bool_]
    sharpened: AnswerPool

    def score(self, name: str) -> Floats:
        """Return one score of every held-out answer."""
        return np.array([row.scores[name] for row in self.rows])


def held(limit: int | None = None, candidates: Mapping[str, tuple[Any, ...]] = CANDIDATES) -> Held:
    """Run the experiment on the first `limit` answers (default: all), with these models to choose from."""
    given = list(islice(chain(answers(), answers(FRESH)), limit))
    fitting = [labelled(answer) for answer in given if not answer.held_out]
    kept = [answer for answer in given if answer.held_out]
    rows = [labelled(answer) for answer in kept]
    built = build(
        fitting,
        CalibrationKey(model="demo", quantisation="*", template="*", task="*"),
        Promise(ALPHA, DELTA),
        {},
        candidates,
    )
    calibration = built.calibration
    confidence = np.array([calibration.answer.probability(row.scores) for row in rows])
    right = np.array([float(row.right) for row in rows])
    pool = AnswerPool(confidence, right, tuple(row.group for row in rows), tuple(answer.noise for answer in kept))
    strong = np.array([float(legible(answer.document)) for answer in kept])
    fresh = np.array([answer.fresh for answer in kept])
    return Held(
        built=built,
        calibration=calibration,
        rows=rows,
        pool=pool,
        strong=strong,
        fresh=fresh,
        sharpened=_sharpened(kept, calibration, pool),
    )


def _sharpened(kept: Sequence[LabelledAnswer], calibration: Calibration, pool: AnswerPool) -> AnswerPool:
    """Return the held-out answers as an overconfident engine would report them."""
    sharpened = []
    for answer in kept:
        tokens = [_sharper(token) for token in answer.tokens]
        verdict = judge(tokens, answer.text, asked(answer.document), calibration)
        sharpened.append(verdict.confidence or 0.0)
    return replace(pool, confidence=np.array(sharpened))


def _sharper(token: Token) -> Token:
    top = tuple(value * (SHARPENED if place == 0 else 1.0 / SHARPENED) for place, value in enumerate(token.top))
    return Token(token.text, token.logprob * SHARPENED, top)
