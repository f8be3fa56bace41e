"""What the tests of `--json` share: the commands, the keys that docs/cli.md names, and the check of an output."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.testing import Result

from spillway_router.testing import Answer

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
LINES = {"logs", "pod logs", "serve"}
"""Commands that print one JSON object per line; the others print one value, however often they say something."""
ANSWER = Answer.json(
    {
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every command with its name."""
    if hasattr(command, "commands"):
        for name in command.commands:
            yield from commands(command.commands[name], (*path, name))
    if path and (not hasattr(command, "commands") or command.invoke_without_command):
        yield " ".join(path), command


def documented() -> dict[str, set[str]]:
    """Return the keys of each command as the table of docs/cli.md has them."""
    table = DOCS.read_text().partition("## JSON output")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `spillway ([^`]+)` \| (.*) \|$", table, re.MULTILINE)
    return {name: set(re.findall(r"`([^`]+)`", keys)) for name, keys in rows}


def keys_of(text: str, lines: bool = False) -> set[str]:
    """Return the keys of an object, of the objects of a list, or of those of JSON lines."""
    values = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    rows = values if isinstance(values, list) else [values]
    return {key for row in rows for key in row}


def check(name: str, result: Result, codes: tuple[int, ...] = (0,)) -> None:
    assert result.exit_code in codes, (name, result.output)
    if name != "config show":  # its keys are the settings, which a test of the documentation compares
        assert keys_of(result.stdout, name in LINES) <= documented()[name], name
