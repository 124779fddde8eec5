"""The usage records of the latest requests, in memory and bounded. Gone when the process ends."""

from collections import OrderedDict
from typing import Final

from filature.telemetry.record import UsageRecord

ENTRIES_MAX: Final = 20_000
"""About 11 MB when full."""


class RecentUsage:
    """Finds a record by the request's id; above ``entries_max`` the oldest goes."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        if entries_max < 1:
            raise ValueError("entries_max is at least 1")
        self._entries_max = entries_max
        # ordered: a dict's first key is found by passing over all that were deleted before it
        self._records: OrderedDict[str, UsageRecord] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: UsageRecord) -> None:
        """Keep a record; one with the same id is replaced and counts as new."""
        records = self._records
        records[record.id] = record
        records.move_to_end(record.id)
        if len(records) > self._entries_max:
            records.popitem(last=False)

    def get(self, request_id: str) -> UsageRecord | None:
        return self._records.get(request_id)
