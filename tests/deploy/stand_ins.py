"""Stand-ins for programs on the PATH, which write down what they were given."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

_STANDIN = """#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    key = os.environ.get("VAST_API_KEY", "")
    log.write(json.dumps([sys.argv, "" if sys.stdin.isatty() else sys.stdin.read(), key]) + "\\n")
answers = json.loads({answers!r})
print(json.dumps(answers.get(sys.argv[1] if len(sys.argv) < 3 else " ".join(sys.argv[1:3]), {{}})))
sys.exit({status})
"""


def program(folder: Path, name: str, answers: dict[str, object], status: int = 0) -> None:
    """A stand-in for `name` that answers by its first two words."""
    (folder / "bin").mkdir(exist_ok=True)
    file = folder / "bin" / name
    log = str(folder / "asked.jsonl")
    file.write_text(_STANDIN.format(python=sys.executable, log=log, answers=json.dumps(answers), status=status))
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def asked(folder: Path) -> list[tuple[list[str], str, str]]:
    """What the stand-ins were given: words, standard input, key."""
    lines = (folder / "asked.jsonl").read_text().splitlines()
    return [(row[0][1:], row[1], row[2]) for row in map(json.loads, lines)]
