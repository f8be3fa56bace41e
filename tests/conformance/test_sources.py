"""Where the sources of the suites come from, and how pytest's report becomes cases."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conformance.model import NotRunError
from conformance.pytest_runs import read_report, suite_environ
from conformance.sources import VARIABLE, Repository, prepare

from conformance import sources

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="fine"/>
<testcase classname="tests.a" name="bad"><failure message="assert 1 == 2">long</failure></testcase>
<testcase classname="tests.a" name="twice"/>
<testcase classname="tests.a" name="twice"><error message="failed on teardown"/></testcase>
<testcase classname="tests.a" name="left"><skipped message="needs
 a picture"/></testcase>
</testsuite></testsuites>"""


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    command = ["git", *identity, "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository of one file, which the cache does not have yet."""
    monkeypatch.setattr(sources, "CACHE", tmp_path / "cache")
    folder = tmp_path / "origin"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "suite.py").write_text("a suite", "utf-8")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "Add a suite")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    return Repository("suite", str(folder), git(folder, "rev-parse", "HEAD"))


def test_a_repository_is_fetched_once(repository: Repository, tmp_path: Path) -> None:
    first = prepare(repository, {})
    assert (first / "suite.py").read_text("utf-8") == "a suite"
    gone = Repository(repository.name, str(tmp_path / "gone"), repository.commit)
    assert prepare(gone, {}) == first


def test_a_source_that_cannot_be_fetched_names_the_variable(repository: Repository, tmp_path: Path) -> None:
    gone = Repository(repository.name, str(tmp_path / "gone"), repository.commit)
    with pytest.raises(NotRunError, match=VARIABLE):
        prepare(gone, {})
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".unfinished")] == []


def test_the_variable_names_a_folder_of_checkouts_and_bare_clones(repository: Repository, tmp_path: Path) -> None:
    local = tmp_path / "local"
    (local / "suite").mkdir(parents=True)
    gone = Repository(repository.name, str(tmp_path / "gone"), repository.commit)
    assert prepare(gone, {VARIABLE: str(local)}) == local / "suite"
    (local / "suite").rmdir()
    git(tmp_path, "clone", "--quiet", "--bare", repository.url, str(local / "suite"))
    assert (prepare(gone, {VARIABLE: str(local)}) / "suite.py").read_text("utf-8") == "a suite"


def test_pytest_s_report_becomes_cases(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT, "utf-8")
    assert [(case.name, case.verdict, case.message) for case in read_report(report)] == [
        ("tests.a::fine", "passed", ""),
        ("tests.a::bad", "failed", "assert 1 == 2"),
        ("tests.a::twice", "failed", "failed on teardown"),
        ("tests.a::left", "skipped", "needs a picture"),
    ]


def test_a_suite_sees_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert "HTTPS_PROXY" not in suite_environ({})
