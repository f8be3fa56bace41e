"""The documentation agrees with the code: links, references, commands, settings, routes, headers and error codes."""

from __future__ import annotations

import ast
import json
import re
import types
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import click
import pytest
import typer
from evidence.page import FAILING, status
from evidence.promises import FOLDER, load_promises
from evidence.registry import groups_for
from evidence.results import read_results
from pydantic import BaseModel

from spillway_router.cli import app
from spillway_router.config.settings import Settings
from spillway_server.demo_model import documents

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ROUTER, SERVER = ROOT / "router" / "spillway_router", ROOT / "server" / "spillway_server"
SOURCE_ROOTS = (ROOT, ROUTER, SERVER)
PAGES = sorted(
    (
        *ROOT.glob("*.md"),
        *DOCS.rglob("*.md"),
        ROOT / "loadtests" / "README.md",
        ROOT / "runpod" / "README.md",
        SERVER / "demo_model" / "README.md",
    )
)
# These pages tell what the code was like when they were written; the files that they name may be gone.
HISTORY = ("CHANGELOG.md",)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def outside_code(markdown: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```", "", markdown, flags=re.S | re.M)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# Links and references


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", outside_code(markdown), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> Iterator[str]:
    for link in re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)\)", outside_code(text(page))):
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        if not target.exists() or (anchor and anchor not in anchors(text(target))):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_resolve(page: Path) -> None:
    assert list(dead_links(page)) == []


def source(path: str) -> Path | None:
    """The file that a page names, by its path in the repository or in one of the two packages."""
    return next((root / path for root in SOURCE_ROOTS if (root / path).exists()), None)


@cache
def definitions(file: Path) -> frozenset[str]:
    """The names that a module defines: functions, classes, `Class.method` and module-level constants."""
    names: set[str] = set()
    for node in ast.parse(text(file)).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            members = (m.name for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {f"{node.name}.{member}" for member in members}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return frozenset(names)


def broken_references(markdown: str) -> Iterator[str]:
    """Code spans such as `path/file.py` and `path/file.py:function` that nothing in the tree answers to."""
    for span in re.findall(r"`([^`\n]+)`", outside_code(markdown)):
        match = re.fullmatch(r"([\w./-]+/[\w.-]+\.py)(?::([A-Za-z_][\w.]*))?", span)
        if match is None:
            continue
        file = source(match[1])
        if file is None or (match[2] and match[2] not in definitions(file)):
            yield span


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in HISTORY], ids=name)
def test_named_files_and_functions_exist(page: Path) -> None:
    assert list(broken_references(text(page))) == []


def test_a_broken_reference_or_link_is_noticed(tmp_path: Path) -> None:
    """Seeded faults: the tests above can fail."""
    page = tmp_path / "page.md"
    page.write_text("# A b\n[a](#a-b) [c](gone.md) [d](#d)\n`core/gone.py` `core/routing/policy.py:gone`\n", "utf-8")
    assert list(dead_links(page)) == ["gone.md", "#d"]
    assert list(broken_references(text(page))) == ["core/gone.py", "core/routing/policy.py:gone"]
    assert list(broken_references("`core/routing/policy.py:decide` `core/routing/model.py:Decision`")) == []


def test_architecture_names_functions() -> None:
    assert len(re.findall(r"`[\w./-]+\.py:[A-Za-z_][\w.]*`", text(DOCS / "architecture.md"))) >= 15


# Commands


def commands() -> dict[str, click.Command]:
    """Every command of the app by its words, such as `keys create`."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
        inner: Mapping[str, Any] = getattr(command, "commands", {})
        if words and (not inner or command.invoke_without_command):
            yield " ".join(words), command
        for word, sub in inner.items():
            yield from walk(sub, (*words, word))

    return dict(walk(typer.main.get_command(app), ()))


def rows(page: Path) -> Iterator[tuple[str, str]]:
    """(first cell, whole row) of every table row of a page, without the heads."""
    for line in outside_code(text(page)).splitlines():
        if line.startswith("| `"):
            yield line.split(" | ")[0].removeprefix("| "), line


def documented_commands() -> Iterator[tuple[str, str]]:
    """(words, row) for every command of docs/cli.md."""
    existing = commands()
    for cell, row in rows(DOCS / "cli.md"):
        words = cell.strip("`").removeprefix("spillway ").split()
        names = [" ".join(words[:n]) for n in range(len(words), 0, -1) if " ".join(words[:n]) in existing]
        yield (names[0] if names else cell, row)


def test_every_command_is_documented_and_every_documented_command_exists() -> None:
    assert sorted({words for words, _ in documented_commands()}) == sorted(commands())


def test_documented_options_exist() -> None:
    existing = commands()
    for words, row in documented_commands():
        options = {
            option for parameter in existing[words].params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", row))
        assert named <= options | {"--config", "--json"}, words


# Settings


def _parts(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """The models inside a field's type, each with how its settings are reached: `[]` or `.NAME`."""
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    elif origin is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for choice in get_args(annotation):
            yield from _parts(choice)
    elif origin is tuple:
        for element in get_args(annotation):
            yield from ((model, f"[]{suffix}") for model, suffix in _parts(element))
    elif origin is Mapping:
        yield from ((model, f".NAME{suffix}") for model, suffix in _parts(get_args(annotation)[1]))


def _takes_names(annotation: Any) -> bool:
    """Whether the items of a list may be plain names instead of models."""
    choices = get_args(annotation)
    if get_origin(annotation) is tuple:
        return any(str in map(_bare, get_args(_bare(element))) for element in choices)
    return any(_takes_names(choice) for choice in choices)


def _bare(annotation: Any) -> Any:
    """The type itself, without what is annotated beside it."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def settings(model: type[BaseModel] = Settings, prefix: str = "") -> dict[str, str]:
    """Every setting with its default, written as docs/configuration.md writes both."""
    defaults: dict[str, str] = {}
    for field_name, field in model.model_fields.items():
        path = prefix + (field.alias or field_name)
        inner = list(_parts(field.annotation))
        for part, suffix in inner:
            defaults |= settings(part, f"{path}{suffix}.")
        if not inner or _takes_names(field.annotation):
            value = json.dumps(field.default, default=str) if not field.is_required() else ""
            defaults[path] = "required" if field.is_required() else f"`{value}`"
    return defaults


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {cell.strip("`"): row.split(" | ")[1] for cell, row in rows(DOCS / "configuration.md")}
    assert documented == settings()


def test_every_setting_is_in_the_example() -> None:
    example = text(ROOT / "deploy" / "spillway.example.yaml")
    missing = [path for path in settings() if not re.search(rf"\b{path.rpartition('.')[2]}: ", example)]
    assert [path for path in missing if ".fingerprint." not in path] == []


# The HTTP API


def router_sources() -> str:
    return "\n".join(text(file) for file in sorted(ROUTER.rglob("*.py")) if "testing" not in file.parts)


def test_every_route_is_documented_and_every_documented_route_exists() -> None:
    source_text = router_sources()
    routes = {
        f"{method.upper()} {path.replace(':path}', '}')}"
        for method, path in re.findall(r'@\w+\.(get|post|put|patch|delete)\(\s*"(/[^"]*)"', source_text)
    }
    routes |= {f"POST {path}" for path in re.findall(r'b"(/v1/[a-z/]+)": "', source_text)}
    documented = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`\s?]*)`", text(DOCS / "api.md")))
    assert documented == routes
    assert len(routes) > 15


def test_every_header_is_documented_and_every_documented_header_exists() -> None:
    pattern = r"x-(?:spillway-[a-z][a-z-]*[a-z]|session-id|request-id|should-retry|api-key)"
    webhook = {"x-spillway-delivery", "x-spillway-signature"}
    used = set(re.findall(pattern, router_sources())) - webhook
    assert set(re.findall(pattern, text(DOCS / "api.md"))) == used


def test_every_error_code_is_documented() -> None:
    codes = set(re.findall(r'Refusal\(\s*(?:status=)?\d{3},\s*(?:code=)?"([a-z_]+)"', router_sources()))
    documented = text(DOCS / "api.md")
    assert [code for code in sorted(codes) if f"`{code}`" not in documented] == []
    assert len(codes) > 10


# The README and the glossary


def test_the_readme_stays_short_and_installs_from_the_checkout() -> None:
    assert len(text(ROOT / "README.md").splitlines()) <= 150
    for page in PAGES:
        assert not re.search(r"pip install '?spillway", text(page)), f"{name(page)}: that name belongs to somebody else"


def test_the_example_is_a_held_out_report_of_the_demo_model() -> None:
    document = documents.generate(10_000_001)
    assert 10_000_001 in documents.HELD_OUT_SEEDS
    assert text(DOCS / "examples" / "report.txt") == document.text + "\n"
    for field, value in document.truth.items():
        assert re.search(rf"^  /{field} +{re.escape(json.dumps(value))} ", text(ROOT / "README.md"), re.M), field


def test_the_overhead_page_quotes_the_published_results() -> None:
    page = text(DOCS / "overhead.md")
    promises = load_promises()
    results = read_results(FOLDER, promises)
    quoted = {
        "bench.ns32_vs_vllm_router": "{:.2f} times the Rust router and",
        "bench.paced200_vs_vllm_router": "on streams {:.2f} times",
        "bench.confidence_stream_overhead": "cost {:.2f} times",
        "bench.idle_rss": "takes {:.1f} MiB",
        "relay.slow_reader_growth": "costs {:.2f} MiB",
    }
    for promise, words in quoted.items():
        assert words.format(results[promise].value) in " ".join(page.split()), promise
    failing = [
        name
        for name in ("bench.ns32_vs_vllm_router", "bench.ns32_vs_litellm", "bench.paced200_vs_vllm_router")
        if status(promises[name], results[name]) == FAILING
    ]
    assert ("all three are failing today" in page) is (len(failing) == 3)


def test_documented_measurements_exist() -> None:
    for page in PAGES:
        for prefix in re.findall(r"make evidence ONLY=([\w.]*\w)", text(page)):
            assert groups_for(prefix), f"{name(page)}: {prefix}"


def test_every_make_target_in_the_documentation_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), re.M))
    for page in PAGES:
        named = set(re.findall(r"`make ([a-z-]+)[^`]*`|^make ([a-z-]+)", text(page), re.M))
        assert {first or second for first, second in named} <= targets, name(page)


def test_the_glossary_defines_each_word_once_and_in_order() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\*", text(DOCS / "glossary.md"), re.M)
    assert words == sorted(words, key=str.casefold)
    assert len(set(words)) == len(words)


def test_every_decision_has_a_date_and_a_status() -> None:
    numbers = []
    for page in sorted((DOCS / "decisions").glob("0*.md")):
        head = text(page)[:400]
        numbers.append(int(page.name[:4]))
        assert re.match(rf"# {page.name[:4]} \S", head), page.name
        assert re.search(
            r"^Date: \d{4}-\d{2}-\d{2}\. Status: (accepted|superseded by \[\d{4}\]).*\.( |$)", head, re.M
        ), page.name
    assert numbers == list(range(1, len(numbers) + 1))
