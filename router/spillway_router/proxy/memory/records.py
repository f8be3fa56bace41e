"""The newest request records, in memory."""

from __future__ import annotations

from collections import OrderedDict

from spillway_router.core.routing.model import RequestRecord


class Records:
    """The last `max_records` request records; the oldest are forgotten first, and the ledger knows the older ones.

    The number is small on purpose: the memory of a forgotten record is reused for the next request, and should still
    be in the processor's cache by then. A thousand records cost 5% of the router's time.
    """

    def __init__(self, max_records: int = 256) -> None:
        self._max_records = max_records
        self._records: OrderedDict[str, RequestRecord] = OrderedDict()

    def add(self, record: RequestRecord) -> None:
        """Add a record."""
        self._records[record.facts.request_id] = record
        if len(self._records) > self._max_records:
            self._records.popitem(last=False)

    def get(self, request_id: str) -> RequestRecord | None:
        """Return the record of a request; None if it is unknown or too old."""
        return self._records.get(request_id)

    def recent(self, count: int) -> list[RequestRecord]:
        """Return the newest `count` records, newest first."""
        newest = list(self._records.values())[-count:]
        newest.reverse()
        return newest
