"""The numbered SQL files that create the schema: NNNN_title.sql, each applied once, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Sequence, Set
from importlib.resources import files
from typing import NamedTuple

from spillway_router.ledger.errors import LedgerConfigError


class Migration(NamedTuple):
    """One step of the schema: its number, its title and its SQL."""

    number: int
    title: str
    sql: str


def load_migrations(package: str) -> tuple[Migration, ...]:
    """Return all migrations of one kind of database, whose SQL files are in `package`, lowest number first."""
    migrations = []
    for file in files(package).iterdir():
        if file.name.endswith(".sql"):
            number, _, title = file.name.removesuffix(".sql").partition("_")
            migrations.append(Migration(int(number), title.replace("_", " "), file.read_text("utf-8")))
    return tuple(sorted(migrations))


def begins_acts(new: Sequence[Migration]) -> bool:
    """Return whether these migrations make the table of acts, so that what exists already has to be noted there."""
    return any(migration.title == "acts" for migration in new)


def missing(migrations: Sequence[Migration], applied: Set[int], ledger: str, elsewhere: str) -> list[Migration]:
    """Return the migrations that `ledger` still lacks, in their order.

    Raises LedgerConfigError for a schema newer than this version. `elsewhere` names what ledger.url could point to
    instead: "file" or "database".
    """
    unknown = applied - {migration.number for migration in migrations}
    if unknown:
        raise LedgerConfigError(
            f"the ledger {ledger} was made by a newer Spillway (migration {max(unknown)}); "
            f"install that version or set ledger.url to another {elsewhere}"
        )
    return [migration for migration in migrations if migration.number not in applied]
