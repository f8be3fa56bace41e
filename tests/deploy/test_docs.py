"""The commands in docs/deploy work as they are written: every dry run, and every option of the others."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from evidence.deploy_commands import ROOT
from tests.deploy.in_process import spillway

DOCS = ROOT / "docs" / "deploy"


def commands() -> list[tuple[str, tuple[str, ...]]]:
    """(page, words after `spillway`) of every dry run in a code block; continued lines joined."""
    dry_runs = []
    for page in [*sorted(DOCS.glob("*.md")), ROOT / "runpod" / "README.md"]:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"```bash\n(.*?)```", text, re.S):
            for line in block.splitlines():
                if line.startswith("spillway deploy") and "--dry-run" in line:
                    dry_runs.append((page.name, tuple(shlex.split(line, comments=True)[1:])))
    return dry_runs


@pytest.mark.parametrize(("page", "words"), commands(), ids=lambda part: part if isinstance(part, str) else part[1])
def test_dry_runs_of_the_docs_work(tmp_path: Path, page: str, words: tuple[str, ...]) -> None:
    done = spillway(tmp_path, *words)
    assert done.status == 0, f"{page}: {done.err}"
    assert done.out.startswith("price ")


def test_every_target_has_a_page_with_what_was_run() -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")}
    assert {"runpod", "vast", "aws", "kubernetes", "containers", "systemd", "in-front-of"} <= set(pages)
    for name, text in pages.items():
        assert "## What was run" in text, name
        assert "Not run" in text, name
        for link in re.findall(r"\]\((?!https?://)([^)#]+)", text):
            assert (DOCS / link).exists(), f"{name}: {link}"


def test_a_key_known_by_its_hash_is_accepted_once(tmp_path: Path) -> None:
    entry = f"{'a1' * 6}:{'0f' * 32}"
    for _ in range(2):
        assert spillway(tmp_path, "keys", "accept", entry).status == 0
    assert spillway(tmp_path, "keys", "list").out.count("a1a1a1a1a1a1") == 1
    for bad in ("a1:00", "zz" * 6 + ":" + "0f" * 32, "nothing"):
        refused = spillway(tmp_path, "keys", "accept", bad)
        assert refused.status == 1
        assert "hexadecimal" in refused.err
