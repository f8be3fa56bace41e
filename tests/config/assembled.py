"""What follows from the text of a configuration, or what is wrong with it."""

from __future__ import annotations

from datetime import date

from spillway_router.config.assemble import Assembly, ConfigRejected, assemble
from spillway_router.config.load import ConfigError, parse

TODAY = date(2026, 11, 29)


def assembled(text: str) -> Assembly:
    """Return what follows from a configuration."""
    outcome = assemble(parse(text, {}), {}, TODAY)
    assert isinstance(outcome, Assembly), outcome
    return outcome


def only_problem(text: str, line: int) -> str:
    """Return the only problem of a configuration. If the text itself has it, it names this line."""
    try:
        outcome = assemble(parse(text, {}), {}, TODAY)
    except ConfigError as error:
        (only,) = error.problems
        assert only.line == line
        return str(only)
    assert isinstance(outcome, ConfigRejected)
    (only,) = outcome.problems
    return str(only)
