"""NO_COLOR turns colours off at a terminal, and every option with a fixed set of values shows them in its help."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.testing.harness import LIMIT_S

COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-7]|38|4[0-7]|48|9[0-7])(?:;\d+)*m")
RUN = "from spillway_router.cli import app; app()"


def shown(folder: Path, *words: str, **environment: str) -> bytes:
    """Return what a command prints at a terminal."""
    master, slave = pty.openpty()
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env={**variables, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    )
    os.close(slave)
    parts = []
    try:
        while part := os.read(master, 65536):
            parts.append(part)
    except OSError:  # the process has closed the terminal
        pass
    finally:
        os.close(master)
    process.wait(LIMIT_S)
    return b"".join(parts)


@pytest.mark.parametrize("words", [("--help",), ("report", "--dya", "yesterday")], ids=["help", "mistake"])
def test_colours_are_on_at_a_terminal_and_off_by_no_color(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert COLOUR.search(shown(tmp_path, *words)) is not None
    plain = shown(tmp_path, *words, NO_COLOR="1")
    assert len(plain) > 200
    assert COLOUR.findall(plain) == []


def options(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, tuple[str, ...]]]:
    """Yield the command, the name and the values of every option that has a fixed set of them."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, (*path, name))
    for part in command.params:
        choices = _values(part.type_descriptor.annotation)
        if choices and path:
            yield path, part.opts[0], choices


def _values(annotation: Any) -> tuple[str, ...]:
    """Return the values of a Literal, also of one that may be None."""
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    return next((values for each in get_args(annotation) if (values := _values(each))), ())


def test_every_option_shows_its_choices_in_the_help_and_after_a_mistake() -> None:
    every = list(options(typer.main.get_command(app)))
    assert {path for path, _, _ in every} >= {("logs",), ("report", "experiments")}
    for path, option, choices in every:
        help_text = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "400", "NO_COLOR": "1"}).output
        assert all(choice in help_text for choice in choices), (path, option)
        if not option.startswith("-"):
            continue
        wrong = CliRunner().invoke(app, [*path, option, "wrong"], env={"COLUMNS": "400", "NO_COLOR": "1"})
        assert wrong.exit_code == 2, (path, option)
        assert all(choice in wrong.output for choice in choices), (path, option, wrong.output)
