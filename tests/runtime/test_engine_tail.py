"""The last lines of the engine's log: bounded, with those before a rotation, and without secrets."""

from __future__ import annotations

from pathlib import Path

from spillway_router.core.redaction import Redactor
from spillway_router.runtime.engine_tail import MOST_LINES, engine_tail


def same(text: str) -> str:
    return text


def test_the_last_lines_come_oldest_first_and_long_ones_are_cut(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("".join(f"line {number}\n" for number in range(50_000)) + "x" * 2000 + "\n")
    lines = engine_tail(log, same)
    assert len(lines) == MOST_LINES
    assert lines[-2] == "line 49999"
    assert lines[-1] == "x" * 500 + "…"


def test_after_a_rotation_the_lines_before_it_are_there_too(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.with_name("engine.log.1").write_text("before\n")
    assert engine_tail(log, same) == ("before",)
    log.write_text("after\n")
    assert engine_tail(log, same) == ("before", "after")


def test_secrets_and_control_characters_are_taken_out(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"--api-key a-long-secret\x1b[31m red \xff\n")
    (line,) = engine_tail(log, Redactor(["a-long-secret"]).cut)
    assert "a-long-secret" not in line
    assert "\x1b" not in line


def test_without_a_file_there_is_no_line_and_an_unreadable_one_says_so(tmp_path: Path) -> None:
    assert engine_tail(tmp_path / "engine.log", same) == ()
    (tmp_path / "engine.log").mkdir()
    assert "can't be read" in engine_tail(tmp_path / "engine.log", same)[0]
