"""When each hop had a request: as header lines and as the member ``debug``."""

import json

import pytest

from filature.relay.timings import HopTimings
from filature.telemetry.record import UsageRecord
from filature.units import RequestId


class Clock:
    """Times that a test sets."""

    def __init__(self) -> None:
        self.timer_s = 100.0
        self.wall_s = 1_700_000_000.25

    def timer(self) -> float:
        return self.timer_s

    def wall(self) -> float:
        return self.wall_s


def timings(hop: bytes = b"proxy") -> tuple[HopTimings, Clock, UsageRecord]:
    clock = Clock()
    record = UsageRecord(RequestId("r"), None, "chat", "m", "", "", 0, started_at=clock.wall_s)
    return HopTimings(hop, record, timer=clock.timer, wall=clock.wall), clock, record


def lines(told: bytes) -> dict[str, str]:
    return dict(line.split(": ") for line in told.decode().split("\r\n") if line)


@pytest.mark.parametrize("hop", [b"proxy", b"worker"])
def test_start_of_a_stream_and_both_of_a_whole_answer(hop: bytes) -> None:
    hops, clock, _ = timings(hop)
    name = hop.decode()
    assert lines(hops.header_lines(ended=False)) == {
        f"x-filature-{name}-start": "1700000000.250000"
    }
    clock.wall_s += 1.5
    assert lines(hops.header_lines(ended=True)) == {
        f"x-filature-{name}-start": "1700000000.250000",
        f"x-filature-{name}-end": "1700000001.750000",
    }


def test_what_a_worker_said_is_told_until_another_is_asked() -> None:
    hops, _, _ = timings()
    hops.worker_said(
        {b"x-filature-worker-start": b"1700000000.5", b"x-filature-worker-end": b"1700000001"}
    )
    told = lines(hops.header_lines(ended=False))
    assert told["x-filature-worker-start"] == "1700000000.5"
    assert told["x-filature-worker-end"] == "1700000001"
    assert json.loads(b"{%b}" % hops.debug_member(100.0, None))["debug"]["worker"] == {
        "start": 1_700_000_000.5,
        "end": 1_700_000_001,
    }
    hops.forget_worker()
    assert list(lines(hops.header_lines(ended=False))) == ["x-filature-proxy-start"]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"soon",
        b"1e9",
        b"-1",
        b"01",
        b"1,2",
        b"1.1234567",
        b"1" * 13,
        b'1,"x":2',
        b"1 ",
        b"NaN",
    ],
)
def test_what_is_no_time_is_not_told(said: bytes) -> None:
    hops, _, _ = timings()
    hops.worker_said({b"x-filature-worker-start": said, b"x-filature-worker-end": said})
    assert b"worker" not in hops.header_lines(ended=True)
    assert b"worker" not in hops.debug_member(100.0, None)


def test_debug_says_how_long_each_part_took() -> None:
    hops, clock, record = timings()
    record.queue_s = 0.125
    clock.timer_s = 104.0
    assert json.loads(b"{%b}" % hops.debug_member(100.0, 101.5)) == {
        "debug": {
            "proxy": {
                "start": 1_700_000_000.25,
                "queue_s": 0.125,
                "first_content_s": 1.5,
                "total_s": 4,
            }
        }
    }
    told = json.loads(b"{%b}" % hops.debug_member(100.0, None))["debug"]["proxy"]
    assert told["first_content_s"] == 4
