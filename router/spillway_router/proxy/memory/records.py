"""The newest request records, in memory."""

from __future__ import annotations

from collections import OrderedDict

from spillway_router.core.routing.model import RequestRecord


class Records:
    """The last `bound` request records, oldest forgotten first; the ledger knows the older ones.

    Few on purpose: what is forgotten is used again for the next request, and should still be in the processor's cache
    by then. A thousand cost 5% of the router's time.
    """

    def __init__(self, bound: int = 256) -> None:
        self._bound = bound
        self._records: OrderedDict[str, RequestRecord] = OrderedDict()

    def add(self, record: RequestRecord) -> None:
        """Keep a record."""
        self._records[record.facts.request_id] = record
        if len(self._records) > self._bound:
            self._records.popitem(last=False)

    def get(self, request_id: str) -> RequestRecord | None:
        """The record of a request, None if it is unknown or too old."""
        return self._records.get(request_id)

    def recent(self, count: int) -> list[RequestRecord]:
        """The newest `count` records, newest first."""
        found = list(self._records.values())[-count:]
        found.reverse()
        return found
