"""The generated pairs of questions, and the interval that the promise is judged by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from evidence.caching.questions import pairs
from evidence.caching.similar import SEED
from evidence.measures_caching import WRONG_HITS, upper_end, wrong_hits

from spillway_router.core.caching.key import KeyContext, answer_key
from spillway_router.core.caching.question import Question
from spillway_router.core.routing.model import RequestFacts
from spillway_router.proxy.exchange import similar_answers

BOUND = 0.01
"""The promise of policy.semantic_cache_wrong_hits."""


def test_pairs_are_balanced_and_no_question_is_in_two_of_them() -> None:
    generated = pairs(400, 7)
    assert generated == pairs(400, 7)
    assert Counter((pair.same, pair.language) for pair in generated) == dict.fromkeys(
        [(True, "en"), (True, "de"), (False, "en"), (False, "de")], 100
    )
    assert all(pair.a != pair.b and bool(pair.differs) != pair.same for pair in generated)
    texts = [frozenset(text.lower().rstrip("?.") for text in (pair.a, pair.b)) for pair in generated]
    assert len(frozenset[str]().union(*texts)) == sum(map(len, texts))


@pytest.mark.parametrize(("errors", "n", "upper"), [(0, 300, 0.01222), (1, 1217, 0.00457), (3, 100, 0.08518)])
def test_the_interval_is_that_of_clopper_and_pearson(errors: int, n: int, upper: float) -> None:
    assert upper_end(errors, n) == pytest.approx(upper, abs=2e-5)


def oracle(texts: Sequence[str]) -> dict[str, list[float]]:
    """Return vectors that know the labels: those of the same question are equal, others have a cosine of 0.5."""
    generated = pairs(FITTED + SENT, SEED)
    vectors: dict[str, list[float]] = {}
    for number, pair in enumerate(generated):
        for place, text in enumerate((pair.a, pair.b)):
            vectors[text] = [1.0, *[0.0] * 64]
            vectors[text][1 + (number + (0 if pair.same else 31 * place)) % 64] = 1.0
    return {text: vectors[text] for text in texts}


FITTED, SENT = 4_000, 300


def test_the_measure_of_wrong_hits_finds_none_where_the_vectors_know_the_labels() -> None:
    measured = wrong_hits(lambda _: None, FITTED, SENT, oracle)[WRONG_HITS]
    assert measured.details["wrong"] == 0
    assert measured.n > SENT / 4


def test_a_threshold_that_every_pair_reaches_is_found() -> None:
    measured = wrong_hits(lambda _: None, FITTED, SENT, oracle, fault=True)[WRONG_HITS]
    assert measured.details["wrong"] > 10
    assert measured.value is not None
    assert measured.value > BOUND


def test_a_cache_that_forgets_the_marks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions that differ in a number or a name all have the same vector here: only their marks tell them apart."""

    def without_marks(facts: RequestFacts, question: Question, context: KeyContext) -> bytes:
        return answer_key(facts, question.frame, context)

    monkeypatch.setattr(similar_answers, "neighbourhood_key", without_marks)
    measured = wrong_hits(lambda _: None, FITTED, SENT, oracle)[WRONG_HITS]
    assert measured.details["wrong"] > 10
    assert measured.value is not None
    assert measured.value > BOUND
