import pytest

from filature.store.usage_records import RecentUsage
from filature.telemetry.record import UsageRecord
from filature.units import RequestId


def record(request_id: str) -> UsageRecord:
    return UsageRecord(
        id=RequestId(request_id),
        client_request_id=None,
        dialect="chat",
        model="m",
        engine="e",
        outcome="completed",
        status=200,
        streamed=False,
    )


def test_a_record_is_found_by_its_id() -> None:
    recent = RecentUsage()
    kept = record("a")
    recent.add(kept)
    assert recent.get("a") is kept
    assert recent.get("b") is None


def test_the_oldest_goes_when_it_is_full() -> None:
    recent = RecentUsage(entries_max=2)
    for name in "abc":
        recent.add(record(name))
    assert len(recent) == 2
    assert recent.get("a") is None
    assert recent.get("b") is not None
    assert recent.get("c") is not None


def test_a_replaced_record_counts_as_new() -> None:
    recent = RecentUsage(entries_max=2)
    for name in "abac":
        recent.add(record(name))
    assert recent.get("b") is None
    assert recent.get("a") is not None


def test_room_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RecentUsage(entries_max=0)
