"""A log line can't be forged, steers no terminal and repeats no prompt."""

from __future__ import annotations

import io
import logging

import pytest

from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.runtime.logs import LogFormatter


def logged(message: str, *arguments: object, error: BaseException | None = None) -> str:
    """Return what a record writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter())
    handler.handle(logging.LogRecord("spillway", logging.ERROR, __file__, 1, message, arguments, _exc_info(error)))
    return stream.getvalue()


def _exc_info(error: BaseException | None) -> tuple[type[BaseException], BaseException, None] | None:
    return None if error is None else (type(error), error, None)


@pytest.mark.parametrize(
    "hostile", ["x\n2026-11-29 00:00:00,000 INFO spillway FAKE", "\r\x1b[31m\x1b]0;owned\x07", "\u2028"]
)
def test_a_record_is_one_line_without_control_characters(hostile: str) -> None:
    for text in (logged("backend %s failed", hostile), logged(f"backend {hostile} failed")):
        assert text.count("\n") == 1
        assert text[:-1].isprintable()


def test_an_exception_from_elsewhere_does_not_repeat_what_it_was_given() -> None:
    def fail() -> None:
        try:
            int("PATIENT Jane Doe")
        except ValueError as error:
            raise KeyError("PATIENT Jane Doe") from error

    with pytest.raises(KeyError) as raised:
        fail()
    text = logged("unexpected", error=raised.value)
    assert "Jane" not in text.replace('int("PATIENT Jane Doe")', "").replace('KeyError("PATIENT Jane Doe")', "")
    assert "builtins.ValueError" in text
    assert "builtins.KeyError" in text
    assert "in fail" in text


def test_the_routers_own_errors_and_those_of_the_system_are_told() -> None:
    assert "the disk is full" in logged("ledger", error=LedgerUnavailableError("the disk is full"))
    assert "No such file" in logged("ledger", error=FileNotFoundError(2, "No such file"))
