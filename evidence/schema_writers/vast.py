"""Print the commands, options and fields of offers that Vast.ai's program takes, as JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from typing import Any

USED = ("search offers", "create instance", "show instance", "show instances", "destroy instance")
"""The commands that Spillway calls."""
GLOBAL = {"--raw": "nothing"}
"""What every command takes as well, as far as Spillway uses it."""


def options(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return how much each option of a command takes (nothing, one, rest), and its positional arguments."""
    taken: dict[str, str] = {}
    positional: dict[str, str] = {}
    for action in parser._actions:
        much = "nothing" if action.nargs == 0 else "rest" if action.nargs == argparse.REMAINDER else "one"
        if not action.option_strings:
            positional[action.dest] = "any" if action.nargs in ("*", "+", argparse.REMAINDER) else "one"
        for name in action.option_strings:
            if name not in ("-h", "--help"):
                taken[name] = much
    return {"options": dict(sorted({**taken, **GLOBAL}.items())), "positional": positional}


def main() -> int:
    """Print it."""
    for module in ("offers", "instances"):
        importlib.import_module(f"vastai.cli.commands.{module}")
    commands = importlib.import_module("vastai.cli.main").parser.subparsers_.choices
    query = importlib.import_module("vastai.api.query")
    print(
        json.dumps(
            {
                "commands": {name: options(commands[name]) for name in USED},
                "fields": sorted({*query.offers_fields, *query.offers_alias}),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
