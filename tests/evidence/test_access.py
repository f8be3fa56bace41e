"""The matrix of routes and callers finds a deviation, and the table of findings names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from evidence.access.embedding_spaces import SPACES, try_spaces
from evidence.access.findings import findings
from evidence.access.key_rules import try_keys
from evidence.access.matrix import PERMITTED, access_matrix

ROOT = Path(__file__).parents[2]


async def test_every_caller_gets_in_where_it_should_and_a_wrong_row_shows(tmp_path: Path) -> None:
    wrong = {**PERMITTED, ("GET", "/v1/usage"): frozenset({"inference"})}
    count, unexpected = await access_matrix(tmp_path, wrong, methods=("GET", "POST"))
    assert count > 1000
    assert {(cell.method, cell.path) for cell in unexpected} == {("GET", "/v1/usage")}
    assert {cell.caller for cell in unexpected} == {"inference", "viewer", "admin"}


@pytest.mark.parametrize("fault", [False, True])
async def test_a_rule_of_a_key_that_is_bypassed_is_counted(fault: bool) -> None:
    seen = await try_keys(64, fault=fault)
    assert (seen.requests, bool(seen.bypassed)) == (64, fault), seen.bypassed
    assert {"local", "cloud", "second"} <= seen.at_backends.keys()


@pytest.mark.parametrize("fault", [False, True])
async def test_an_embedding_of_another_space_is_counted(fault: bool) -> None:
    seen = await try_spaces(400, fault=fault)
    assert bool(seen.mixed) == fault, seen.mixed
    assert set(SPACES.values()) == seen.served.keys()


def test_every_finding_has_a_row_whose_tests_exist() -> None:
    table = findings()
    assert [finding.name for finding in table] == [f"F{number}" for number in range(1, 10)]
    for finding in table:
        for test in finding.tests:
            path, _, name = test.partition("::")
            text = (ROOT / path).read_text(encoding="utf-8")
            assert not name or re.search(rf"def {name}\(", text), test
