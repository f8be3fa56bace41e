"""The ledger in memory keeps the same contract as the one on disk."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.ledger.contract import LedgerContract

from spillway_router.ledger.interface import Ledger
from spillway_router.testing import MemoryLedger


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger()


@pytest.fixture
def reopen(ledger: MemoryLedger) -> Callable[[], Ledger]:
    return lambda: ledger


class TestMemory(LedgerContract):
    """The contract on memory."""
