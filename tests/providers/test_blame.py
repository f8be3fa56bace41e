"""Every row of the table of errors through the adapter of its provider, and the rules of the table."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from spillway_router.http_client.types import Reply
from spillway_router.providers.blame import (
    KINDS,
    MAX_TEXT,
    BlameRow,
    BlameTableError,
    ErrorText,
    check_patterns,
    load_blame,
)
from spillway_router.providers.catalogue import load_catalogue, provider_for
from spillway_router.providers.interface import Provider

CATALOGUE = load_catalogue()
TABLE = load_blame()


def adapters(row: BlameRow) -> list[Provider]:
    """Return the adapters for which a row holds: its provider's, and that of any other server if the error tells."""
    names = [row.provider] if row.provider in CATALOGUE else []
    if row.tells or row.provider == "*":
        names.append("generic")
    return [provider_for(CATALOGUE[name]) for name in names]


def test_the_table_is_large_and_every_row_has_a_source() -> None:
    assert len(TABLE.rows) >= 150
    for row in TABLE.rows:
        assert urlsplit(row.source).scheme == "https", row
        assert adapters(row), row
    assert len({row.provider for row in TABLE.rows}) >= 17


@pytest.mark.parametrize("number", range(len(TABLE.rows)))
def test_a_row_blames_whom_it_names(number: int) -> None:
    row = TABLE.rows[number]
    for adapter in adapters(row):
        outcome = adapter.outcome(Reply(row.status, dict([row.header]), row.example.encode()), 0.0)
        assert outcome.fault == row.fault, (row, outcome)
        assert outcome.status == row.status
        if row.fault != "everybody":
            assert outcome.kind == KINDS[row.fault]
        else:
            assert outcome.kind in ("failed", "timeout", "rate_limited")


def test_an_error_that_no_row_knows_is_judged_by_its_status() -> None:
    adapter = provider_for(CATALOGUE["generic"])
    body = b'{"error": {"message": "temperature must be at most 2", "type": "invalid_request_error"}}'
    outcome = adapter.outcome(Reply(400, {}, body), 0.0)
    assert (outcome.kind, outcome.fault) == ("rejected", "")


def test_a_bare_status_of_one_provider_says_nothing_of_another() -> None:
    together, groq = (provider_for(CATALOGUE[name]) for name in ("together", "groq"))
    assert together.outcome(Reply(403, {}, b""), 0.0).fault == "context"
    assert groq.outcome(Reply(403, {}, b""), 0.0).fault == "credentials"


@pytest.mark.parametrize("status", [201, 202, 204, 206])
def test_a_success_that_is_not_200_is_no_answer(status: int) -> None:
    assert provider_for(CATALOGUE["openai"]).outcome(Reply(status, {}, b""), 0.0).kind == "failed"


@pytest.mark.parametrize("body", [{"choices": [{}]}, {"choices": [{"message": None, "finish_reason": "stop"}]}])
def test_a_choice_without_a_message_is_no_answer(body: dict[str, object]) -> None:
    assert provider_for(CATALOGUE["openai"]).flaw("chat", body)


def test_only_the_beginning_of_a_text_is_searched() -> None:
    error = ErrorText(message="x" * MAX_TEXT + " does not support tools")
    assert TABLE.fault("ollama", 400, error) is None


@pytest.mark.parametrize(
    "row",
    [
        "{provider: x, status: 400, fault: nobody, source: y}",
        "{provider: x, status: 400, fault: client}",
        "{provider: x, status: 400, fault: client, source: y, txt: z}",
        "{provider: x, status: 400, fault: client, source: y, header: x-dropped}",
    ],
)
def test_a_bad_row_is_named(row: str, tmp_path: Path) -> None:
    file = tmp_path / "blame.yaml"
    file.write_text(f"- {row}\n")
    with pytest.raises(BlameTableError, match="row 1"):
        load_blame(file)


def test_a_bad_pattern_is_named_and_the_table_has_none(tmp_path: Path) -> None:
    file = tmp_path / "blame.yaml"
    file.write_text("- {provider: x, status: 400, fault: client, source: y, text: '('}\n")
    with pytest.raises(BlameTableError, match="row 1"):
        check_patterns(load_blame(file))
    check_patterns(TABLE)
