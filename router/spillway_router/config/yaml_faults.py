"""What PyYAML raises for a text that it can't read, and what is said about it.

Nothing that stands in the text is repeated: a key without its quotes or without the blank before it may be what can't
be read, and messages end in logs and terminals.
"""

from __future__ import annotations

import re
from typing import Final

import yaml

YAML_ERRORS: Final = (yaml.YAMLError, ValueError, RecursionError, AttributeError, LookupError)
"""What PyYAML raises: errors of its own, ValueError for a date or a number that can't be, RecursionError for depth, and
AttributeError or LookupError for a text after `!!timestamp`, `!!bool` or `!!int` that is none."""
_REPEATED: Final = re.compile(r"\b(tag|alias|anchor|handle) (['\"]).*\2", re.DOTALL)
"""The words of PyYAML that a piece of the text follows. Elsewhere it repeats a single character."""
_NAME: Final = re.compile(r"[A-Za-z_]+")
_WHOLE_NAME: Final = re.compile(r"[A-Za-z_]+[0-9]?")


def yaml_problem(error: BaseException) -> str:
    """Return what is wrong with a text, without a word of it."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not isinstance(error, yaml.YAMLError):
        return "a date, a number or a value after !! can't be read"
    problem = getattr(error, "problem", None)
    if problem is None:  # the reader's own errors name one character, and ours nothing of the text
        problem = str(error).partition("\n")[0]
    return _REPEATED.sub(r"\1", problem) or type(error).__name__


def yaml_line(error: BaseException) -> int:
    """Return the line of the problem, counted from 1; 0 if it is unknown."""
    return int(getattr(getattr(error, "problem_mark", None), "line", -1)) + 1


def shown_name(name: str) -> str:
    """Return the name of an unknown setting as messages show it. Only its first word is shown if it has more than
    letters, for `api_key:VALUE` without a blank is a name to YAML."""
    if _WHOLE_NAME.fullmatch(name):
        return name
    word = _NAME.match(name)
    return f"{word.group() if word else ''}…"
