"""The share of the table of errors that the adapters attribute as the table says."""

from __future__ import annotations

from collections.abc import Callable

from evidence.results import Measurement
from spillway_router.http_client.types import Reply
from spillway_router.providers.blame import KINDS, BlameRow, load_blame
from spillway_router.providers.catalogue import load_catalogue, provider_for
from spillway_router.providers.interface import CatalogueEntry

BLAME_TABLE = "wire.blame_table_right"


def blame_table(_say: Callable[[str], None]) -> dict[str, Measurement]:
    """Send each row's example through its provider's adapter, and count the rows that come out as they say."""
    catalogue = load_catalogue()
    rows = load_blame().rows
    wrong = [row for row in rows if not _is_right(row, catalogue.get(row.provider, catalogue["generic"]))]
    details = {
        "providers": len({row.provider for row in rows}),
        "wrong": [f"{row.provider} {row.status} {row.fault}" for row in wrong],
    }
    return {BLAME_TABLE: Measurement(1 - len(wrong) / len(rows), len(rows), details)}


def _is_right(row: BlameRow, entry: CatalogueEntry) -> bool:
    outcome = provider_for(entry).outcome(Reply(row.status, dict([row.header]), row.example.encode()), 0.0)
    return outcome.fault == row.fault and outcome.kind == KINDS.get(row.fault, outcome.kind)
