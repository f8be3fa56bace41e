"""The conversion's evidence can fail, and a short version of it runs where the environment is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from evidence.measures_convert import AGREEMENT, DROP, answers, converted, documents, right
from evidence.promises import load_promises
from evidence.results import Measurement
from evidence.served import serving
from tests.conftest import ROOT, RunningEngine

from evidence import measures_convert
from spillway_server.demo_model.documents import canonical_json

CLEAN, LIGHT = 300, 20
VERDICTS: dict[str, dict[str, object]] = {
    name: {"figures": {}, "recipe": {}, "verified": True} for name in ("unpacked", "w4a16")
}


def measured(spoilt: str | None, count: int) -> dict[str, Measurement]:
    """Return the measurement when the first `count` answers of one engine have a wrong digit."""
    asked = documents(CLEAN, LIGHT)
    good = tuple(canonical_json(document.truth) for document in asked)
    answers_of = dict.fromkeys(("original", "unpacked", "w4a16"), good)
    if spoilt is not None:
        answers_of[spoilt] = (*(answer.replace('"eye":"O', '"eye":"X') for answer in good[:count]), *good[count:])
    return measures_convert._measurements(answers_of, VERDICTS, asked, CLEAN)


@pytest.mark.parametrize(
    ("spoilt", "count", "agreement", "drop"),
    [
        (None, 0, True, True),
        ("unpacked", 3, True, True),
        ("unpacked", 4, False, True),
        ("w4a16", 6, True, True),
        ("w4a16", 7, True, False),
    ],
)
def test_seeded_faults_are_told(spoilt: str | None, count: int, agreement: bool, drop: bool) -> None:
    promises = load_promises()
    measurements = measured(spoilt, count)
    for name, holds in ((AGREEMENT, agreement), (DROP, drop)):
        assert promises[name].holds(measurements[name].value, measurements[name].n) is holds


@pytest.mark.engine
def test_w4a16_of_the_gguf_answers_like_the_original_in_the_real_engine(tmp_path: Path, engine: RunningEngine) -> None:
    """A short version: 24 clean documents through both engines; the evidence takes 500."""
    if not (ROOT / ".venv-convert" / "bin" / "python").exists():
        pytest.skip("the environment .venv-convert is missing: run `make install-convert`")
    verdict = converted(tmp_path / "model", samples=20)
    assert verdict["verified"], verdict["reasons"]
    asked = documents(24, 0)
    before = right(answers(engine.base_url, engine.model, asked), asked)
    with serving(tmp_path, "--model", str(tmp_path / "model"), "--device", "cpu") as (base, served):
        after = right(answers(base, served, asked), asked)
    assert before >= 20
    # One document in 24 is the smallest drop that can be seen here.
    assert before - after <= 1
