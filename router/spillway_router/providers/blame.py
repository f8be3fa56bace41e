"""Reads blame.yaml, the table of whose fault an upstream's error is. Pure after the table is loaded.

The patterns are RE2, so that no error text can make a search slow; texts are cut before they are searched. Each pattern
is compiled when it is first needed: an idle router needs none of a hundred, and does without the library then.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from spillway_router.core.routing.model import OutcomeKind
from spillway_router.providers.interface import ProviderError
from spillway_router.providers.table_files import read_table

BLAME_FILE = Path(__file__).with_name("blame.yaml")
MAX_TEXT = 2000
"""Characters of an error's message that are searched."""
Fault = Literal[
    "client",
    "credentials",
    "no_credit",
    "model_unavailable",
    "capability",
    "context",
    "parameter",
    "tool_parser",
    "endpoint",
    "capacity",
    "everybody",
]
KINDS: Mapping[Fault, OutcomeKind] = MappingProxyType(
    {
        "client": "rejected",
        "credentials": "unauthorized",
        "no_credit": "unauthorized",
        "model_unavailable": "withdrawn",
        "capability": "unserved",
        "context": "unserved",
        "parameter": "unserved",
        "tool_parser": "unserved",
        "endpoint": "unserved",
        "capacity": "overloaded",
    }
)
"""The outcome that each fault means; for `everybody` the status says it."""
_FIELDS = frozenset({"provider", "status", "code", "type", "text", "header", "fault", "source", "example"})
_ANY = "*"
_GENERIC = "generic"


class BlameTableError(ProviderError):
    """The table can't be used; the message names the row."""


@dataclass(frozen=True, slots=True)
class ErrorText:
    """What an upstream's error says: its code, its type and its message, each empty if it is missing, and the headers
    of the reply, their names in lower case."""

    code: str = ""
    type: str = ""
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BlameRow:
    """One row of the table. `text` is a pattern, `header` the name of a header and the beginning of its value; each is
    empty where the row has none."""

    provider: str
    status: int
    code: str
    type: str
    text: str
    header: tuple[str, str]
    fault: Fault
    source: str
    example: str

    @property
    def tells(self) -> bool:
        """Whether the row says more than a status."""
        return bool(self.code or self.type or self.text or self.header[0])

    def matches(self, provider: str, error: ErrorText) -> bool:
        """Return whether the row holds for an error of this provider. The status was compared already."""
        if self.provider not in (_ANY, provider) and not (self.tells and provider == _GENERIC):
            return False
        if (self.code and self.code != error.code) or (self.type and self.type != error.type):
            return False
        name, beginning = self.header
        if name and not error.headers.get(name, "").startswith(beginning):
            return False
        return not self.text or _compiled(self.text).search(error.message[:MAX_TEXT]) is not None


class BlameTable:
    """The rows, by status. Rows that say more than a status are asked first."""

    def __init__(self, rows: Sequence[BlameRow]) -> None:
        self.rows = tuple(rows)
        self._by_status: dict[int, list[BlameRow]] = {}
        for row in sorted(self.rows, key=lambda row: not row.tells):
            self._by_status.setdefault(row.status, []).append(row)

    def fault(self, provider: str, status: int, error: ErrorText) -> Fault | None:
        """Return whose fault an error is; None if no row knows it."""
        for row in self._by_status.get(status, ()):
            if row.matches(provider, error):
                return row.fault
        return None


@functools.cache
def load_blame(path: Path = BLAME_FILE) -> BlameTable:
    """Return the table in a file. Raises BlameTableError, which names the row at fault, or ProviderError."""
    return BlameTable([_row(i, row) for i, row in enumerate(read_table(path), 1)])


def check_patterns(table: BlameTable) -> None:
    """Raise BlameTableError for the first pattern that can't be compiled."""
    for number, row in enumerate(table.rows, 1):
        try:
            _compiled(row.text)
        except ValueError as error:
            raise BlameTableError(f"row {number} of the table of errors has a bad pattern: {error}") from None


@functools.cache
def _compiled(text: str) -> Any:
    """Return a compiled pattern. Raises ValueError."""
    import re2  # not before an error comes

    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        raise ValueError(str(error)) from None


def _row(number: int, row: Mapping[str, Any]) -> BlameRow:
    unknown = row.keys() - _FIELDS
    missing = {"provider", "status", "fault", "source"} - row.keys()
    name, _, beginning = row.get("header", "").partition(": ")
    incomplete = "header" in row and not (name and beginning)
    if unknown or missing or incomplete or row["fault"] not in get_args(Fault):
        raise BlameTableError(f"row {number} of the table of errors is malformed: {dict(row)}")
    return BlameRow(
        provider=row["provider"],
        status=row["status"],
        code=row.get("code", ""),
        type=row.get("type", ""),
        text=row.get("text", ""),
        header=(name, beginning),
        fault=row["fault"],
        source=row["source"],
        example=row.get("example", ""),
    )
