"""The committed bundle is what the sources make: nobody edits one without the other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "router" / "spillway_router" / "dashboard" / "static"
BUNDLE = json.loads((STATIC / "bundle.json").read_text(encoding="utf-8"))


def hashed(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_sources_and_results_have_the_hashes_of_the_last_build() -> None:
    changed = [name for name, digest in BUNDLE["sources"].items() if hashed(ROOT / "web" / name) != digest]
    assert changed == [], "run `make dashboard`"
    assert [name for name, digest in BUNDLE["results"].items() if hashed(STATIC / name) != digest] == []


def test_every_source_is_part_of_the_build() -> None:
    names = {f"src/{file.name}" for file in (ROOT / "web" / "src").iterdir()}
    assert names <= BUNDLE["sources"].keys()


def test_what_is_bundled_has_its_licence() -> None:
    text = (STATIC / "LICENSES.txt").read_text(encoding="utf-8")
    for words in ("echarts 6.", "Apache License", "zrender", "htmx.org 4.", "Zero-Clause BSD"):
        assert words in text


def test_no_page_has_a_script_or_a_style_of_its_own() -> None:
    for file in (STATIC.parent / "templates").glob("*.html"):
        if file.name == "report.html":
            continue  # no page of the router: a file that holds all it needs
        text = file.read_text(encoding="utf-8")
        assert "<style" not in text, file
        assert " style=" not in text, file
        assert "onclick" not in text, file
        assert "<script>" not in text, file
