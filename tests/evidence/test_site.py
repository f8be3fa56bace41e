"""The documentation: its examples run, its pages are copied with what they link to, and the judges notice faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from evidence.site.build import MKDOCS, ROOT, SETTINGS, build_site, copy_sources
from evidence.site.examples import Example, examples, examples_of, fault_of, missing_for
from evidence.site.links import count_links, dead_links

ALL = {example.place: example for example in examples()}


@pytest.mark.parametrize("place", ALL)
def test_an_example_of_the_documentation_runs(place: str) -> None:
    missing = missing_for(ALL[place])
    if missing:
        pytest.skip(missing)
    assert fault_of(ALL[place]) == ""


def test_every_kind_of_example_is_there() -> None:
    assert {example.kind for example in ALL.values()} == {"yaml", "json", "bash", "python", "js"}
    assert len(ALL) > 50


@pytest.mark.parametrize(
    ("kind", "text", "fault"),
    [
        ("yaml", "slo: {ttft: 5}\n", "did you mean ttft_ms?"),
        ("yaml", "aliases: {auto: {chain: [a, b}}\n", "no YAML"),
        ("json", "{'a': 1}\n", "no JSON"),
        ("bash", "spillway report --dya today\n", "No such option"),
        ("bash", "cat x | spillway frobnicate\n", "No such command"),
        ("python", "import httpx\nhttpx.get('http://127.0.0.1:8080/v1/nowhere').raise_for_status()\n", "404"),
        (
            "python",
            "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/')\ndef summary(): return 1\n",
            "Not Allowed",
        ),
    ],
)
def test_a_wrong_example_is_noticed(kind: str, text: str, fault: str) -> None:
    if kind == "js" and missing_for(Example("page.md", 1, kind, text)):
        pytest.skip(missing_for(Example("page.md", 1, kind, text)))
    assert fault in fault_of(Example("page.md", 1, kind, text))


def test_examples_are_found_with_their_lines(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n\n```yaml\nslo: {}\n```\n\n```\nplain\n```\n\n```json\n1\n```\n")
    assert [(one.kind, one.line) for one in examples_of(page)] == [("yaml", 3), ("json", 11)]


def test_the_sources_have_every_page_and_every_file_that_they_link_to(tmp_path: Path) -> None:
    copy_sources(tmp_path)
    pages = {path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")}
    assert all((tmp_path / page).exists() for page in pages)
    assert (tmp_path / "deploy" / "spillway.example.yaml").exists()
    settings = (tmp_path / "docs/reference/settings.md").read_text()
    assert "| `ttft_ms` | number above 0 | `2000` |" in settings
    commands = (tmp_path / "docs/reference/commands.md").read_text()
    assert "## spillway keys create" in commands
    assert "`--strict`" in commands
    assert "`GET /v1/requests`" in (tmp_path / "docs/reference/http.md").read_text()


def test_a_dead_link_a_dead_anchor_and_a_foreign_script_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#x">ok</a><a href="/b.html">ok</a><a href="#top">ok</a>'
        '<a href="https://example.com/">ok</a><a href="gone.html">no</a><a href="b.html#y">no</a>'
        '<script src="https://cdn.example.com/x.js"></script><img src="gone.png">'
    )
    (tmp_path / "b.html").write_text('<h2 id="x">B</h2>')
    assert dead_links(tmp_path) == [
        "a.html: gone.html",
        "a.html: b.html#y",
        "a.html: loads https://cdn.example.com/x.js",
        "a.html: loads gone.png",
    ]
    assert count_links(tmp_path) == 8


def test_the_navigation_names_pages_that_exist() -> None:
    named = [line.rpartition(": ")[2] for line in SETTINGS.read_text().splitlines() if line.endswith(".md")]
    generated = {"index.md", "docs/reference/settings.md", "docs/reference/commands.md", "docs/reference/http.md"}
    assert len(named) > 30
    assert [name for name in named if name not in generated and not (ROOT / name).exists()] == []


@pytest.mark.skipif(not MKDOCS.exists(), reason="the tools of the documentation are not installed: make install-docs")
def test_the_built_site_has_no_dead_link_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    assert build_site(tmp_path / "site") > 80
    assert dead_links(tmp_path / "site") == []
