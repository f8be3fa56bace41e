"""The search for secrets finds each spelling, and the measurement counts a leak and is void if nothing happened."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from evidence.measures_secrets import SECRETS, SEED, secret_canaries
from evidence.secrets.canaries import PIECE, Search, Written, canaries, spellings

CANARIES = canaries(SEED)
NAME = "provider key in the file"
KEY = CANARIES[NAME]


@pytest.mark.parametrize("name", CANARIES)
def test_every_spelling_is_found_and_taken_for_no_other(name: str) -> None:
    search = Search(CANARIES)
    for text in spellings(CANARIES[name]):
        assert search.names(f"a key {text} in a text".encode()) == {name}, text


@pytest.mark.parametrize(
    "text",
    [
        KEY.upper(),
        KEY[5 : 5 + PIECE],
        f"{KEY[:20]} │\n│ {KEY[20:]}",
        json.dumps(json.dumps({"key": KEY})),
        base64.b64encode(f"user:{KEY}@host".encode()).decode(),
    ],
)
def test_a_piece_is_found_wherever_it_stands(text: str) -> None:
    assert Search(CANARIES).names(text.encode()) == {NAME}


@pytest.mark.parametrize("text", ["", KEY[:4] + "…" + KEY[-4:], "The quick brown fox. " * 50])
def test_what_is_no_secret_is_none(text: str) -> None:
    assert Search(CANARIES).names(text.encode()) == set()


def _leak(written: Written, folder: Path) -> None:
    del folder
    written.add("log", f"refused: {KEY}")
    written.add("reply to its sender", KEY, {NAME})
    written.happened("call")


def test_a_leak_is_counted_and_named() -> None:
    measured = secret_canaries(lambda _line: None, (_leak,))[SECRETS]
    assert (measured.value, measured.n, measured.details["examples"]) == (1, 2, [f"{NAME}: log"])


def test_a_day_on_which_nothing_happened_proves_nothing() -> None:
    measured = secret_canaries(lambda _line: None, (lambda written, _: written.happened("call", 0),))[SECRETS]
    assert (measured.value, measured.details["reason"]) == (None, "did not happen: call")
