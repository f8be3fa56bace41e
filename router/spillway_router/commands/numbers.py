"""Numbers on the command line are written in plain digits.

Python reads `1_0` as 10, `nan` and `1e400` as numbers, and the digits of every script, so that a slip of the hand
becomes a limit or a length that nobody meant. Amounts of money are texts here and are read by `tariff.amount_of`; this
is for the options that the parser of the command line turns into numbers itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import typer


def in_plain_digits(command: Any) -> Any:
    """Return a command, or a group with all its commands, whose numbers have to be written in plain digits."""
    for parameter in command.params:
        parameter.process_value = _Checked(parameter)
    for below in getattr(command, "commands", {}).values():
        in_plain_digits(below)
    return command


class _Checked:
    """What a parameter does with the text that was given, and a look at that text where a number came of it."""

    def __init__(self, parameter: Any) -> None:
        self._parameter, self._process = parameter, parameter.process_value

    def __call__(self, ctx: Any, given: Any) -> Any:
        value = self._process(ctx, given)
        several = isinstance(given, Sequence) and not isinstance(given, str)
        for text, number in zip(given, value or (), strict=False) if several else ((given, value),):
            if isinstance(text, str) and isinstance(number, int | float) and not isinstance(number, bool):
                self._check(ctx, text, number)
        return value

    def _check(self, ctx: Any, text: str, number: float) -> None:
        if not text.isascii() or "_" in text or not math.isfinite(number):
            example = 10 if isinstance(number, int) else 0.5
            raise typer.BadParameter(
                f"{text[:40]!r} is not a number; write it like {example}", ctx=ctx, param=self._parameter
            )
