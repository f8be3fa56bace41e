"""The generated pairs of questions, and the interval that the promise is judged by."""

from __future__ import annotations

from collections import Counter

import pytest
from evidence.caching.questions import pairs
from evidence.measures_caching import upper_end


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
