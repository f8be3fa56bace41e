"""The choice of model and curve, short: it reads the fitting part only, and judges no row by a fold that saw it."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from loadtests.confidence.choose import CURVES, folds, losses, probabilities, standard_error
from loadtests.confidence.dataset import answers, labelled

from spillway_router.calibration.fit import AVERAGE, CANDIDATES, Table, table

FIRST = {name: options[:1] for name, options in CANDIDATES.items()}
"""Every model with its first setting: the search for the best one has its own tests."""


def answered(count: int) -> Table:
    rows = [labelled(answer) for answer in islice((a for a in answers() if not a.held_out), count)]
    return table([(row.scores, row.right, row.group) for row in rows])


def test_no_document_is_judged_by_a_fold_that_saw_it() -> None:
    data, judged = answered(120), []
    for fold in folds(data, 0, FIRST):
        assert not set(data.groups[fold.judged]) & set(data.groups[fold.curve])
        assert set(fold.outputs) == {*FIRST, AVERAGE}
        judged.extend(fold.judged)
    assert sorted(judged) == list(range(len(data.y)))


def test_every_model_under_every_curve_beats_the_share_of_right_answers() -> None:
    data = answered(400)
    by_model = probabilities(data, 0, FIRST)
    assert len(by_model) == (len(FIRST) + 1) * len(CURVES)
    alone = losses(np.full(len(data.y), data.y.mean()), data.y).mean()
    for key, p in by_model.items():
        assert 0.0 <= p.min() <= p.max() <= 1.0, key
        assert losses(p, data.y).mean() < 0.75 * alone, key


def test_rows_of_one_document_count_together() -> None:
    rng = np.random.default_rng(0)
    once, groups = rng.normal(0, 1, 400), np.arange(400)
    alone = standard_error(once, groups)
    assert alone == pytest.approx(0.05, rel=0.1)
    assert standard_error(np.repeat(once, 5), np.repeat(groups, 5)) == pytest.approx(alone)
