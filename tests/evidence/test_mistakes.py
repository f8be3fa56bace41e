"""Mistakes in configurations are told with place and fix, and the judge of that notices when they aren't."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from evidence.mistakes.cases import Case, cases, faults_of
from typer.testing import CliRunner

from spillway_router.cli import app

ALL = {case.name: case for case in cases()}


def answer(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SPILLWAY_CONFIG", raising=False)
    Path(folder, "spillway.yaml").write_bytes(case.content)
    result = CliRunner().invoke(app, ["check", "--offline"])
    return result.output, result.exit_code


def test_there_are_45_cases_and_a_file_for_each() -> None:
    folder = Path(__file__).parents[2] / "evidence" / "mistakes" / "configurations"
    assert len(ALL) == 45
    assert {path.stem for path in folder.iterdir()} == ALL.keys()


@pytest.mark.parametrize("name", ALL)
def test_a_mistake_is_told_with_its_place_and_its_fix(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert faults_of(ALL[name], *answer(ALL[name], tmp_path, monkeypatch)) == []


def test_the_judge_sees_a_wrong_line_a_missing_fix_noise_a_secret_and_a_wrong_status() -> None:
    case = ALL["42_secret_inline_typo"]
    good = "  - spillway.yaml:5: backends.1.api_ky: unknown setting; did you mean api_key?\n"
    assert faults_of(case, good, 1) == []
    assert faults_of(case, good.replace(":5:", ":6:"), 1)[0].startswith("not told: line 5")
    assert faults_of(case, good.replace("api_key?", "?"), 1)[0].startswith("not told")
    noise = faults_of(case, f"{good}  - spillway.yaml:9: listen: odd\n", 1)
    assert noise == ["told besides: spillway.yaml:9: listen: odd"]
    assert faults_of(case, good + "very-secret-123", 1) == ["contains 'very-secret'"]
    assert faults_of(case, good, 0) == ["exit status 0 instead of 1"]
    assert faults_of(replace(case, mistakes=()), "", 1) == []
