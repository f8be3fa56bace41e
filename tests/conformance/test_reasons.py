"""Every failure has a reason, and every reason a failure; the command's exit status says whether that is so."""

from __future__ import annotations

from pathlib import Path

import conformance.__main__ as command
import pytest
from conformance.model import Case, NotRunError, Say, Suite, SuiteRun
from conformance.page import render
from conformance.reasons import ReasonError, load_rules, stale
from conformance.registry import SUITES
from conformance.results import read_results, reexplain

PASSED = Case("a::one", "passed")
FAILED = Case("a::two", "failed", "Error code: 404 - not here")
SKIPPED = Case("a::three", "skipped", "needs a picture")
RULE = "- {tests: 'two', message: '404', blame: not offered, reason: There is no such route.}\n"


def suite(*routed: Case, direct: tuple[Case, ...] = ()) -> Suite:
    def run(folder: Path, say: Say) -> SuiteRun:
        return SuiteRun(routed, direct, {"suite": "1.0"})

    return Suite("mine", "a suite of this test", "scripted upstream", run)


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let the command read reasons from, and write results to, a folder of this test."""
    monkeypatch.setattr("conformance.reasons.load_rules.__defaults__", (tmp_path,))
    monkeypatch.setattr("conformance.results.write_result.__defaults__", (tmp_path,))
    return tmp_path


def run(chosen: Suite, folder: Path) -> tuple[int, list[str]]:
    said: list[str] = []
    return command.run_suite(chosen, folder, said.append), said


def test_a_failure_without_a_reason_fails_the_run(folders: Path) -> None:
    status, said = run(suite(PASSED, FAILED, direct=(PASSED, Case("a::two", "passed"))), folders)
    assert status == command.UNEXPLAINED
    assert any("no reason: a::two (directly passed): Error code: 404" in line for line in said)
    assert read_results(["mine"], folders)["mine"].unexplained()[0].test == "a::two"


def test_a_failure_with_its_reason_does_not(folders: Path) -> None:
    (folders / "mine.yaml").write_text(RULE, "utf-8")
    status, _ = run(suite(PASSED, FAILED, SKIPPED, direct=(PASSED, Case("a::two", "passed"), SKIPPED)), folders)
    assert status == command.EXPLAINED
    result = read_results(["mine"], folders)["mine"]
    assert (result.routed.passed, result.routed.failed, result.routed.skipped, result.new) == (1, 1, 1, 1)
    assert (result.failures[0].blame, result.failures[0].reason) == ("not offered", "There is no such route.")
    assert result.skips == {"needs a picture": 1}


def test_a_failure_in_both_ways_is_not_new(folders: Path) -> None:
    (folders / "mine.yaml").write_text(RULE, "utf-8")
    run(suite(FAILED, direct=(FAILED,)), folders)
    assert read_results(["mine"], folders)["mine"].new == 0


def test_a_reason_is_bound_to_its_message(folders: Path) -> None:
    (folders / "mine.yaml").write_text(RULE.replace("404", "405"), "utf-8")
    assert run(suite(FAILED), folders)[0] == command.UNEXPLAINED


def test_a_reason_can_be_bound_to_the_direct_verdict(folders: Path) -> None:
    (folders / "mine.yaml").write_text(RULE.replace("blame", "direct: failed, blame"), "utf-8")
    assert run(suite(FAILED, direct=(FAILED,)), folders)[0] == command.EXPLAINED
    assert run(suite(FAILED, direct=(Case("a::two", "passed"),)), folders)[0] == command.UNEXPLAINED


def test_a_reason_without_a_failure_fails_the_run(folders: Path) -> None:
    (folders / "mine.yaml").write_text(RULE, "utf-8")
    status, said = run(suite(PASSED), folders)
    assert status == command.UNEXPLAINED
    assert any("a reason without a failure" in line for line in said)
    (folders / "mine.yaml").write_text(RULE.replace("}", ", may_pass: true}"), "utf-8")
    assert run(suite(PASSED), folders)[0] == command.EXPLAINED


def test_a_suite_that_cannot_run_says_so_and_keeps_its_last_result(folders: Path) -> None:
    run(suite(PASSED), folders)
    before = (folders / "mine.json").read_text("utf-8")

    def cannot(folder: Path, say: Say) -> SuiteRun:
        raise NotRunError("its source can't be fetched here")

    status, said = run(Suite("mine", "a suite of this test", "scripted upstream", cannot), folders)
    assert status == command.NOT_RUN
    assert said[1:] == ["  not run: its source can't be fetched here"]
    assert (folders / "mine.json").read_text("utf-8") == before


@pytest.mark.parametrize(
    "entry", ["- {tests: a, reason: b}", "- {tests: a, blame: fate, reason: b}", "- {tests: a, blame: suite, why: b}"]
)
def test_a_malformed_reason_is_refused(entry: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(entry, "utf-8")
    with pytest.raises(ReasonError, match=r"mine\.yaml, entry 1"):
        load_rules("mine", tmp_path)


def test_the_published_results_are_explained_and_the_page_shows_them() -> None:
    results = read_results(suite.name for suite in SUITES)
    assert {name: result.unexplained() for name, result in results.items() if result.unexplained()} == {}
    for name, result in results.items():
        assert stale(load_rules(name), (failure.reason for failure in result.failures)) == [], name
    assert command.PAGE.read_text("utf-8") == render(SUITES, results)


def test_a_reason_of_today_explains_a_published_result(folders: Path) -> None:
    run(suite(FAILED), folders)
    published = read_results(["mine"], folders)["mine"]
    (folders / "mine.yaml").write_text(RULE, "utf-8")
    explained = reexplain(published, load_rules("mine", folders))
    assert [failure.blame for failure in explained.failures] == ["not offered"]
    assert reexplain(explained, ()).failures == published.failures


def test_every_suite_has_a_module_and_every_module_is_listed() -> None:
    modules = {path.stem for path in Path(command.__file__).parent.glob("suites/*.py")} - {"__init__"}
    assert {suite.run.__module__.rpartition(".")[2] for suite in SUITES} == modules
    assert len({suite.name for suite in SUITES}) == len(SUITES)


def test_an_unknown_suite_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "nothing"]) == command.WRONG_COMMAND
    assert "'nothing'" in capsys.readouterr().err
