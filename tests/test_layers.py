"""The import contracts name every folder: a new one cannot stay outside the rules, and a deleted one cannot linger."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    "spillway_router": ROOT / "router" / "spillway_router",
    "spillway_server": ROOT / "server" / "spillway_server",
}
LAYERED = ("spillway_router", *(f"spillway_router.{name}" for name in ("proxy", "ledger", "core")), "spillway_server")


def contracts(text: str) -> dict[str, configparser.SectionProxy]:
    """The layers contracts of an import-linter configuration, by container."""
    parser = configparser.ConfigParser()
    parser.read_string(text)
    sections = [parser[name] for name in parser.sections() if parser[name].get("type") == "layers"]
    return {container: section for section in sections for container in section["containers"].split()}


def modules_in(container: str) -> set[str]:
    """The names of the packages and modules directly inside a package."""
    root, *parts = container.split(".")
    folder = SOURCES[root].joinpath(*parts)
    files = {file.stem for file in folder.glob("*.py") if file.stem not in ("__init__", "__main__")}
    return files | {file.parent.name for file in folder.glob("*/__init__.py")}


def names(section: configparser.SectionProxy, option: str) -> set[str]:
    """The module names of a multi-line option, in which `|` and `:` separate siblings."""
    return set(re.split(r"[\s|:]+", section.get(option, ""))) - {""}


def faults(text: str) -> Iterator[str]:
    """What the contracts of `text` get wrong about the source tree, one sentence each."""
    sections = contracts(text)
    for container in LAYERED:
        if container not in sections:
            yield f"{container} has no layers contract"
            continue
        section = sections[container]
        if not section.getboolean("exhaustive", fallback=False):
            yield f"the contract of {container} lacks `exhaustive = true`"
        present = modules_in(container)
        layers, ignored = names(section, "layers"), names(section, "exhaustive_ignores")
        yield from (f"{container}.{name} is in no layer" for name in sorted(present - layers - ignored))
        yield from (f"{container}.{name} is listed but does not exist" for name in sorted((layers | ignored) - present))
        yield from (f"{container}.{name} is a layer and ignored" for name in sorted(layers & ignored))


def root_packages(text: str) -> set[str]:
    """The packages that the contracts look at."""
    parser = configparser.ConfigParser()
    parser.read_string(text)
    return set(parser["importlinter"]["root_packages"].split())


CONFIGURATION = (ROOT / ".importlinter").read_text(encoding="utf-8")


def test_every_folder_is_in_a_layer_and_every_layer_is_a_folder() -> None:
    assert list(faults(CONFIGURATION)) == []


def test_every_package_is_a_root_package() -> None:
    inits = [*ROOT.glob("router/*/__init__.py"), *ROOT.glob("server/*/__init__.py")]
    assert root_packages(CONFIGURATION) == {init.parent.name for init in inits}


@pytest.mark.parametrize(
    ("pattern", "replacement", "fault"),
    [
        (r"\bmetrics\b", "", "spillway_router.metrics is in no layer"),
        (r"\baudits\b", "", "spillway_router.proxy.audits is in no layer"),
        (r"layers =\n", "layers =\n    nowhere\n", "spillway_router.nowhere is listed but does not exist"),
        (r"exhaustive = true", "", "the contract of spillway_router lacks `exhaustive = true`"),
        (r"    spillway_router\.core\nexhaustive", "exhaustive", "spillway_router.core has no layers contract"),
    ],
)
def test_a_fault_in_the_contracts_is_noticed(pattern: str, replacement: str, fault: str) -> None:
    """Seeded faults: the test above can fail."""
    broken, count = re.subn(pattern, replacement, CONFIGURATION, count=1)
    assert count == 1
    assert fault in list(faults(broken))
