"""`spillway convert` as a user types it, as far as it goes without its environment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_server.planning.models import DEMO_WEIGHTS


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["convert", *words], env={"COLUMNS": "200", "NO_COLOR": "1"})
    return result.exit_code, result.stdout if "--json" in words else result.output


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (("./absent.gguf",), 1, "there is no file"),
        (("{gguf}", "--precision", "w2"), 2, "w4a16, w8a16, 16bit"),
        (("{gguf}", "--method", "magic"), 2, "rtn, gptq, awq"),
        (("{gguf}", "--dtype", "int8"), 2, "bfloat16"),
        (("{gguf}", "--gate", "/nowhere.jsonl"), 1, "one JSON object per line"),
        (("{gguf}", "--chat-template", "/nowhere.jinja"), 1, "Jinja file"),
        (("{gguf}", "--convert-python", "/nowhere/python"), 1, "requirements/convert.lock"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(
    tmp_path: Path, words: tuple[str, ...], status: int, part: str
) -> None:
    gguf = tmp_path / "x.gguf"
    gguf.write_bytes((DEMO_WEIGHTS / "gguf" / "spillway-demo-F16.gguf").read_bytes())
    code, text = run(*(word.replace("{gguf}", str(gguf)) for word in words))
    assert code == status, text
    assert part in text
    assert sorted(tmp_path.iterdir()) == [gguf]


def test_a_refusal_as_json(tmp_path: Path) -> None:
    code, text = run(str(tmp_path / "absent.gguf"), "--json")
    assert code == 1
    assert "there is no file" in json.loads(text)["refused"]["reason"]
