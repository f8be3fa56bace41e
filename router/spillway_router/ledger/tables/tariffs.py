"""The prices that rows name: each of them once, so that a charge can be computed again from the ledger alone.

A price is kept before the first row that names it is written, and never changed. Its name ends in a digest of its text
(core/money/tariff.py), so a text that was changed shows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from spillway_router.core.money.tariff import Tariff, price_text
from spillway_router.ledger.records import Execute


class TariffTable(ABC):
    """Prices by their names. Safe to call from any thread; raises LedgerUnavailableError."""

    @abstractmethod
    def keep(self, texts: Mapping[str, str], now_ms: int) -> None:
        """Keep the texts (`price_text`) of prices by their names, durably. A name that is kept already stays."""

    @abstractmethod
    def texts(self) -> Mapping[str, str]:
        """Return the text of every kept price by its name."""


def texts_of(tariffs: Iterable[Tariff | None]) -> dict[str, str]:
    """Return the texts of prices by their names."""
    return {tariff.ref: price_text(tariff) for tariff in tariffs if tariff is not None}


_MOST_AT_ONCE = 500
_KEEP = "INSERT INTO tariffs (ref, price, kept_ms) VALUES {rows} ON CONFLICT DO NOTHING RETURNING ref"


class SqlTariffs(TariffTable):
    """A `TariffTable` in SQL that both SQLite and PostgreSQL understand."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def keep(self, texts: Mapping[str, str], now_ms: int) -> None:
        kept = self.texts()
        rows = [(ref, text, now_ms) for ref, text in texts.items() if ref not in kept]
        for at in range(0, len(rows), _MOST_AT_ONCE):
            part = rows[at : at + _MOST_AT_ONCE]
            sql = _KEEP.format(rows=", ".join(["(?, ?, ?)"] * len(part)))
            self._execute(sql, [value for row in part for value in row], True)

    def texts(self) -> Mapping[str, str]:
        return dict(self._execute("SELECT ref, price FROM tariffs", (), False))
