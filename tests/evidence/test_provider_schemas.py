"""The comparison of providers' schemas with newer ones: what changed or is gone is told, what came to it is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evidence.deploy_commands import ROOT
from evidence.provider_schemas import COPIES, Copy, Newest, UnknownError, compare, main

KEPT: dict[str, Any] = {"command": {"options": {"--disk": "one"}, "required": ["image"]}}


def copy_in(folder: Path) -> Copy:
    file = folder / "schema.json"
    file.write_text(json.dumps({"title": "What toy 1 takes", **KEPT}))
    return Copy("toy", file, "toy", "What toy {version} takes, written on {day}")


@pytest.mark.parametrize(
    ("newest", "changed", "added"),
    [
        (KEPT, 0, 0),
        ({"command": {"options": {"--disk": "one", "--raw": "nothing"}, "required": ["image"]}}, 0, 1),
        ({"command": {"options": {}, "required": ["image"]}}, 1, 0),
        ({"command": {"options": {"--disk": "nothing"}, "required": ["image"]}}, 1, 0),
        ({"command": {"options": {"--disk": "one"}, "required": ["image", "disk"]}}, 1, 0),
    ],
    ids=["same", "more", "gone", "changed", "required"],
)
def test_what_differs_is_told(
    newest: dict[str, Any], changed: int, added: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    difference = compare(KEPT, newest)
    assert (len(difference.changed), difference.added) == (changed, added)
    copy = copy_in(tmp_path)
    assert main(["--only", "toy"], lambda _: Newest("2", newest), [copy]) == (1 if changed else 0)
    assert ("toy: nothing differs" in capsys.readouterr().out) is (not changed and not added)
    assert json.loads(copy.file.read_text())["title"] == "What toy 1 takes"


def test_a_copy_is_written_again_with_its_version(tmp_path: Path) -> None:
    copy = copy_in(tmp_path)
    newer = {"command": {"options": {}}}
    assert main(["--only", "toy", "--write"], lambda _: Newest("2", newer), [copy]) == 1
    written = json.loads(copy.file.read_text())
    assert written["title"].startswith("What toy 2 takes, written on ")
    assert written["command"] == newer["command"]


def test_a_provider_that_cannot_be_asked_is_said_and_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(_: Copy) -> Newest:
        raise UnknownError("no index answers")

    assert main(["--only", "toy"], away, [copy_in(tmp_path)]) == 1
    assert "toy: not compared: no index answers" in capsys.readouterr().out


def test_a_document_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "runpod", "--runpod", str(tmp_path / "none.json")]) == 1
    assert "runpod: not compared" in capsys.readouterr().out


def test_every_copy_says_its_version_and_its_day() -> None:
    for copy in COPIES:
        title = json.loads(copy.file.read_text(encoding="utf-8"))["title"]
        beginning = copy.title.partition("{version}")[0]
        assert title.startswith(beginning), copy.name
        assert "2026-" in title
        assert (ROOT / "evidence" / "schema_writers" / f"{copy.name}.py").exists()


def test_every_input_has_its_lock_and_is_resolved_by_make_lock() -> None:
    recipe = (
        (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlock: ")[2].partition("\n\n")[0].replace(";", " ")
    )
    for file in (ROOT / "requirements").glob("*.in"):
        assert file.with_suffix(".lock").exists(), file.name
        assert f" {file.stem} " in recipe or f"{file.name}" in recipe, f"make lock does not resolve {file.name}"
