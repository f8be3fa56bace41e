"""Fakes for tests of the router and of what is built on it, part of the package. Each makes one behaviour exact.

    FaultUpstream   a real socket server that answers with given bytes and breaks off where a test wants
    FakeEngine      an ASGI application that looks like vLLM: health, metrics, chat with usage and logprobs
    MemoryLedger    the Ledger without a disk
    ManualClock     a clock that moves only when a test moves it

Further modules, which need what developers install: `harness` runs a whole router in the test's process, `processes`
runs real `spillway` processes, `postgres_server` a real PostgreSQL server, `books` fills a ledger with random books,
`streams` has short streams of each protocol, `openai_wire` the wire format that all fake upstreams share.
"""

from __future__ import annotations

from spillway_router.testing.clock import ManualClock
from spillway_router.testing.engine import FakeEngine
from spillway_router.testing.ledger import MemoryLedger
from spillway_router.testing.upstream import Answer, Arrival, FaultUpstream

__all__ = ["Answer", "Arrival", "FakeEngine", "FaultUpstream", "ManualClock", "MemoryLedger"]
