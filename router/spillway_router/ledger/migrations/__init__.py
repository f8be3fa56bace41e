"""Numbered SQL files, NNNN_title.sql, applied once each in the order of their numbers."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple


class Migration(NamedTuple):
    """One step of the schema: its number, its title and the SQL that makes it."""

    number: int
    title: str
    sql: str


def load_migrations(package: str = __name__) -> tuple[Migration, ...]:
    """All migrations of this kind of database (its package of SQL files), lowest number first."""
    found = []
    for file in files(package).iterdir():
        if file.name.endswith(".sql"):
            number, _, title = file.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(number), title.replace("_", " "), file.read_text("utf-8")))
    return tuple(sorted(found))
