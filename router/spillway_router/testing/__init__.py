"""Shipped fakes, for tests of the router and of what is built on it. Each makes one behaviour exact.

FaultUpstream   a real socket server that answers with given bytes and breaks off where it is told to
FakeEngine      an ASGI application that looks like vLLM: health, metrics, chat with usage and logprobs
MemoryLedger    the Ledger without a disk
ManualClock     time that stands still until it is moved
"""

from __future__ import annotations

from spillway_router.testing.clock import ManualClock
from spillway_router.testing.engine import FakeEngine
from spillway_router.testing.ledger import MemoryLedger
from spillway_router.testing.upstream import Answer, Arrival, FaultUpstream

__all__ = ["Answer", "Arrival", "FakeEngine", "FaultUpstream", "ManualClock", "MemoryLedger"]
