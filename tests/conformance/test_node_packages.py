"""The runner of Open Responses: how its packages are installed and how its report becomes cases."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from conformance.compliance import read_report
from conformance.model import Case, NotRunError
from conformance.node_packages import LOCKED, bun, install, locked_version
from conformance.upstream.responses import whole

REPORT = {
    "summary": {"passed": 1, "failed": 1, "skipped": 1, "total": 3},
    "results": [
        {"id": "basic-response", "status": "passed", "errors": []},
        {"id": "compact", "status": "failed", "errors": ["HTTP 405", "no\nbody"]},
        {"id": "picture", "status": "skipped"},
    ],
}


def ended(output: str, status: int = 1, errors: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(["runner"], status, output, errors)


def test_a_report_becomes_cases_whatever_the_runner_prints_before_it() -> None:
    cases = read_report(ended(f"Running tests\n{json.dumps(REPORT)}"), "responses::")
    assert cases == (
        Case("responses::basic-response", "passed"),
        Case("responses::compact", "failed", "HTTP 405 no body"),
        Case("responses::picture", "skipped"),
    )


@pytest.mark.parametrize("output", ["", "Fatal error", '{"summary": {}}'])
def test_a_runner_without_a_report_did_not_run(output: str) -> None:
    with pytest.raises(NotRunError, match="status 3: no such model"):
        read_report(ended(output, 3, "no such\nmodel"))


def test_packages_are_installed_once_for_each_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def npm(command: list[str], *, cwd: Path, **_options: object) -> None:
        assert command[:3] == ["npm", "ci", "--ignore-scripts"]
        calls.append(cwd)

    monkeypatch.setattr(subprocess, "run", npm)
    assert install(tmp_path) == install(tmp_path) == tmp_path / "node_modules"
    assert calls == [tmp_path]
    (tmp_path / "installed.json").write_text("an older lock", "utf-8")
    install(tmp_path)
    assert len(calls) == 2


def test_a_machine_without_npm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotRunError, match="npm"):
        install(tmp_path / "node")
    with pytest.raises(NotRunError, match="Bun"):
        bun(tmp_path)


def test_the_lock_pins_every_package_by_its_hash() -> None:
    packages = json.loads((LOCKED / "package-lock.json").read_text("utf-8"))["packages"]
    wanted = json.loads((LOCKED / "package.json").read_text("utf-8"))["dependencies"]
    assert {name: locked_version(name) for name in wanted} == wanted
    assert [name for name, entry in packages.items() if name and "integrity" not in entry] == []


def test_a_response_gets_the_id_that_its_metadata_asks_for() -> None:
    assert whole({"input": "Hello"})["id"] == "resp_scripted"
    assert whole({"input": "Hello", "metadata": {"scripted_id": "resp_named"}})["id"] == "resp_named"
