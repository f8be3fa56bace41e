"""The measurements of the detectors, in short; characters alone find too little."""

from __future__ import annotations

from evidence.measures_privacy import FALSE_ALARMS, LEAKED, false_alarms, leaked, names_address
from evidence.privacy.canaries import NUMBERS, WORD_SPELLINGS
from evidence.privacy.requests import FIELDS
from evidence.promises import load_promises


def _quiet(_line: str) -> None:
    """Print nothing."""


def test_no_canary_leaves_in_any_field_and_spelling() -> None:
    measurement = leaked(_quiet, 6_000, seed=31)[LEAKED]
    assert measurement.value == 0, measurement.details["leaks"]
    assert len(measurement.details["fields"]) == len(FIELDS)
    assert len(measurement.details["spellings"]) == len(WORD_SPELLINGS)
    assert len(measurement.details["kinds"]) == len(NUMBERS) + 1
    assert measurement.details["controls_at_cloud"] == measurement.details["controls"]


def test_detectors_of_keywords_anywhere_but_no_patterns_fall_short() -> None:
    measurement = leaked(_quiet, 2_000, fault=True)[LEAKED]
    assert measurement.value is not None
    assert measurement.value > 1_000


def test_ordinary_lines_raise_few_alarms() -> None:
    measurement = false_alarms(_quiet, 5_000)[FALSE_ALARMS]
    assert measurement.value is not None
    assert measurement.value <= load_promises()[FALSE_ALARMS].bound
    assert measurement.n == 10_000


def test_an_address_is_told_from_what_looks_like_one() -> None:
    for line in ("Ben <ben@example.org>", "mail to a.b+c@mail.example.co.uk, please", "(x@y.ch)"):
        assert names_address(line), line
    for line in ("logo@2x.png", "left-pad@1.3.0", "@app.route('/a')", "git@host", "a @ b.com"):
        assert not names_address(line), line
