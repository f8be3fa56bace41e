"""The newest request records, in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from spillway_router.core.routing.model import Attempt, RequestRecord


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

    def replace_attempt(self, request_id: str, attempt: Attempt) -> None:
        """Put an attempt that was settled after its request had ended in the place of what was known of it before."""
        record = self._records.get(request_id)
        if record is not None:
            attempts = tuple([attempt if one.no == attempt.no else one for one in record.attempts])
            cost_nano = sum([one.charge_nano for one in attempts])
            self._records[request_id] = replace(record, attempts=attempts, cost_nano=cost_nano)

    def get(self, request_id: str) -> RequestRecord | None:
        """Return the record of a request; None if it is unknown or too old."""
        return self._records.get(request_id)

    def recent(self, count: int) -> list[RequestRecord]:
        """Return the newest `count` records, newest first."""
        newest = list(self._records.values())[-count:]
        newest.reverse()
        return newest
