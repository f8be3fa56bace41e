"""Amounts and numbers on the command line are plain digits: every command refuses the same slips in the same words."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.core.money.tariff import TariffError, amount_of

SLIPS = ("1_0", "\u0661\u0660", "nan", "1e400", "inf", "")
AMOUNTS = (
    ("deploy", "aws", "--gpu", "t4", "--dry-run", "--price"),
    ("deploy", "sky", "--gpu", "t4", "--price", "1", "--dry-run", "--budget"),
    ("requests", "--dear"),
    ("report", "what-if", "--gpu", "l4", "--price"),
    ("rentals", "start", "--price"),
    ("rentals", "start", "--price-per-month"),
    ("rentals", "correct", "rent_1", "--price"),
    ("init", "--output", "new.yaml", "--gpu-price"),
    ("init", "--output", "new.yaml", "--gpu-price", "1", "--budget"),
)
NUMBERS = (
    ("requests", "--limit"),
    ("report", "what-if", "--price", "1", "--load"),
    ("report", "what-if", "--price", "1", "--count"),
    ("report", "what-if", "--price", "1", "--tokens-per-s"),
    ("keys", "create", "name", "--rpm"),
    ("replay", "--trace", "none.csv", "--speed"),
    ("plan", "--gpus"),
    ("fleet", "explain", "--rented"),
    ("top", "--every"),
    ("report", "experiments", "--seed"),
)
TEXTS = (
    ("report", "what-if", "--price", "1", "--volume", "{}/day"),
    ("report", "what-if", "--gpu", "l4={}"),
    ("keys", "create", "name", "--budget", "{}/day"),
    ("keys", "create", "name", "--user-budget", "{}/day"),
    ("replay", "--sweep", "slo.ttft_ms={}:20:5"),
)


def refused(*words: str) -> str:
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, words)
    assert result.exit_code in (1, 2), (words, result.output)
    assert isinstance(result.exception, SystemExit), (words, result.exception)
    return result.output


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("words", AMOUNTS, ids=" ".join)
def test_an_amount_in_anything_but_plain_digits_is_refused_in_the_same_words(words: tuple[str, ...]) -> None:
    for slip in SLIPS:
        said = refused(*words, slip)
        if words[0] == "init" and not slip:
            assert "an amount is empty" in said
            continue
        with pytest.raises(TariffError) as error:
            amount_of(slip)
        assert str(error.value) in said, (slip, said)


@pytest.mark.parametrize("words", NUMBERS, ids=" ".join)
def test_a_number_in_anything_but_plain_digits_is_refused(words: tuple[str, ...]) -> None:
    for slip in SLIPS:
        assert f"Invalid value for '{words[-1]}'" in refused(*words, slip)


@pytest.mark.parametrize("words", TEXTS, ids=" ".join)
def test_numbers_within_texts_are_plain_digits_too(words: tuple[str, ...]) -> None:
    for slip in SLIPS:
        refused(*words[:-1], words[-1].format(slip))


def test_an_amount_is_read_as_it_is_written() -> None:
    assert [str(amount_of(text)) for text in ("1.39", "0", "-2", "1e3", " 5")] == ["1.39", "0", "-2", "1E+3", "5"]
