"""The price of the GPU is asked for once, at a terminal only, and otherwise its lack is told."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path

import pytest
import typer

from spillway_router.commands.first_price import with_price
from spillway_router.config import load as config
from spillway_router.config.load import Loaded


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "spillway.yaml"


def loaded(file: Path) -> Loaded:
    return config.read(str(file) if file.exists() else None, {})


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    questions: list[str] = []
    left = iter(answers)

    def prompt(question: str, **_: object) -> str:
        questions.append(question)
        return next(left)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(typer, "prompt", prompt)
    return questions


def test_without_a_terminal_it_is_told_and_not_asked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not with_price(loaded(file)).settings.gpu.price_known
    assert "The price of the GPU is unknown" in capsys.readouterr().out
    assert not file.exists()


def test_the_answer_is_kept_in_the_configuration_and_not_asked_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = at_a_terminal(monkeypatch, "cheap", "$1.39")
    assert with_price(loaded(file)).settings.gpu.price_per_hour == Decimal("1.39")
    assert file.read_text() == 'gpu: {price_per_hour: "1.39"}\n'
    assert len(questions) == 2
    assert with_price(loaded(file)).settings.gpu.price_per_hour == Decimal("1.39")
    assert len(questions) == 2


def test_a_file_keeps_its_text_and_one_with_a_gpu_is_not_changed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("# mine\nlisten: 127.0.0.1:8080")
    at_a_terminal(monkeypatch, "0")
    assert with_price(loaded(file)).settings.gpu.price_per_hour == 0
    assert file.read_text() == '# mine\nlisten: 127.0.0.1:8080\ngpu: {price_per_hour: "0"}\n'
    file.write_text("gpu: {count: 2}\n")
    at_a_terminal(monkeypatch, "2.50")
    settings = with_price(loaded(file)).settings
    assert (settings.gpu.price_per_hour, settings.gpu.count) == (Decimal("2.50"), 2)
    assert file.read_text() == "gpu: {count: 2}\n"


def test_no_answer_leaves_it_unknown(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_a_terminal(monkeypatch, "")
    assert not with_price(loaded(file)).settings.gpu.price_known
    assert "The price of the GPU is unknown" in capsys.readouterr().out
