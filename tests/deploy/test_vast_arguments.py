"""What is asked of `vastai`: commands, options and fields that its own parser knows (deploy/vast/schema.json)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evidence.deploy_commands import ROOT
from tests.deploy.in_process import dry_run

from spillway_hardware.gpus import GPUS

TAKEN = json.loads((ROOT / "deploy" / "vast" / "schema.json").read_text(encoding="utf-8"))
PART = re.compile(r"([a-z_]+)( in |<=|>=|=|<|>)(\[[^\]]+\]|\S+)")
"""One condition of a search: field, operator, value. `vastai` takes a list after `in` alone."""


def refused(argv: list[str]) -> Iterator[str]:
    """What `vastai` would refuse of its arguments."""
    command = TAKEN["commands"].get(" ".join(argv[1:3]))
    if command is None:
        yield f"no command {argv[1:3]}"
        return
    words, positional = iter(argv[3:]), 0
    for word in words:
        much = command["options"].get(word)
        if much is None and word.startswith("-"):
            yield f"no option {word}"
        elif much is None:
            positional += 1
        elif much == "one" and next(words, None) is None:
            yield f"{word} lacks its value"
        elif much == "rest":
            return
    if positional > len(command["positional"]):
        yield f"{positional} arguments in place of {len(command['positional'])}"


def unknown_conditions(query: str) -> Iterator[str]:
    """What the search would not read as it is meant."""
    if rest := PART.sub("", query).strip():
        yield rest
    for field, operator, value in PART.findall(query):
        if field not in TAKEN["fields"] and field != "gpu_ram":
            yield f"no field {field}"
        if (operator == " in ") != value.startswith("["):
            yield f"{field}{operator}{value}"


def steps_of(folder: Path, *more: str) -> list[dict[str, Any]]:
    done = dry_run(folder, "vast", *more, "--json")
    assert done.status == 0, done.err
    steps: list[dict[str, Any]] = json.loads(done.out)["steps"]
    return steps


@pytest.mark.parametrize(
    "more",
    [(), ("--interruptible",), ("--set", "ssh=1"), ("--place", "DE"), ("--place", "[US,DE]"), ("--set", "cuda=12.9")],
    ids=" ".join,
)
def test_vastai_takes_what_it_is_given(more: tuple[str, ...], tmp_path: Path) -> None:
    for step in steps_of(tmp_path, *more):
        assert list(refused(step["argv"])) == []
        if step["argv"][1] == "search":
            assert list(unknown_conditions(step["argv"][3])) == []


@pytest.mark.parametrize("gpu", [name for name, gpu in GPUS.items() if gpu.targets.vast])
def test_every_gpu_is_searched_by_fields_that_vastai_knows(gpu: str) -> None:
    assert list(unknown_conditions(str(GPUS[gpu].targets.vast))) == []


def test_several_countries_are_a_list_and_not_a_name(tmp_path: Path) -> None:
    query = steps_of(tmp_path, "--place", "[US,DE]")[0]["argv"][3]
    assert "geolocation in [US,DE]" in query


def test_the_copy_would_find_a_mistake() -> None:
    assert list(refused(["vastai", "search", "offers", "q", "--storages"])) == ["no option --storages"]
    assert list(refused(["vastai", "create", "instance", "1", "--image"])) == ["--image lacks its value"]
    assert list(unknown_conditions("geolocation=[US,DE] colour=red")) == ["geolocation=[US,DE]", "no field colour"]
