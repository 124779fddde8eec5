"""Pace, back pressure and endings, on a clock that the test moves."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from filature.demo.faults import PING, Ending, Output, chunk
from filature.demo.options import Script
from filature.demo.player import BURST_BYTES, Pacer, Player


class Handle:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """As much of an event loop as a pacer uses."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, int, Callable[[], None], Handle]] = []
        self.armed = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Handle:
        self.armed += 1
        handle = Handle()
        heapq.heappush(self.timers, (when, self.armed, call, handle))
        return handle

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and self.timers[0][0] <= end + 1e-9:
            when, _, call, handle = heapq.heappop(self.timers)
            self.now = max(self.now, when)
            if not handle.cancelled:
                call()
        self.now = end


@dataclass
class Sink:
    written: list[bytes] = field(default_factory=list)
    ends: list[tuple[bool, bool] | str] = field(default_factory=list)
    is_paused: bool = False
    pause_after: int | None = None

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self.pause_after is not None and len(self.written) >= self.pause_after:
            self.is_paused = True

    def finish(self, *, completed: bool, keep: bool) -> None:
        self.ends.append((completed, keep))

    def reset(self) -> None:
        self.ends.append("reset")


BEATS = [b"a", b"b", b"c", b"d"]


def start(output: Output, sink: Sink, **script: Any) -> tuple[Player, Clock, Pacer]:
    clock = Clock()
    pacer = Pacer(cast("Any", clock))
    player = Player(output, Script(**script), sink, pacer)
    player.start()
    return player, clock, pacer


def test_without_a_pace_all_goes_out_at_once() -> None:
    sink = Sink()
    _, clock, _ = start(Output(b"H", list(BEATS)), sink)
    assert b"".join(sink.written) == b"Habcd"
    assert len(sink.written) == 1
    assert sink.ends == [(True, True)]
    assert not clock.timers


def test_beats_go_out_at_their_pace() -> None:
    sink = Sink()
    script = {"tokens_per_second": 100.0, "tokens_per_event": 2, "prefill_s": 0.5}
    _, clock, _ = start(Output(b"H", list(BEATS)), sink, **script)
    assert sink.written == [b"H"]
    clock.advance(0.499)
    assert sink.written == [b"H"]
    clock.advance(0.002)
    assert sink.written == [b"H", b"a"]
    clock.advance(0.021)
    assert sink.written == [b"H", b"a", b"b"]
    clock.advance(0.1)
    assert sink.written == [b"H", *BEATS]
    assert sink.ends == [(True, True)]


def test_one_timer_serves_many_streams() -> None:
    clock = Clock()
    pacer = Pacer(cast("Any", clock))
    sinks = [Sink() for _ in range(50)]
    for sink in sinks:
        Player(Output(b"", list(BEATS)), Script(tokens_per_second=50), sink, pacer).start()
    clock.advance(1.0)
    assert all(sink.written == [b"", *BEATS] for sink in sinks)
    assert clock.armed < 10


def test_a_peer_that_does_not_read_is_waited_for() -> None:
    sink = Sink(pause_after=2)
    player, clock, _ = start(Output(b"H", list(BEATS)), sink, tokens_per_second=100)
    clock.advance(10.0)
    assert sink.written == [b"H", b"a"]
    sink.is_paused, sink.pause_after = False, None
    player.resume()
    assert sink.written == [b"H", b"a", b"b"], "a slow peer got a burst"
    clock.advance(0.011)
    assert sink.written == [b"H", b"a", b"b", b"c"]


def test_a_long_burst_stops_where_the_peer_does() -> None:
    sink = Sink(pause_after=1)
    beats = [b"x" * 1000] * 1000
    player, _, _ = start(Output(b"", beats), sink)
    assert len(sink.written[0]) <= BURST_BYTES + 1000
    sink.is_paused, sink.pause_after = False, None
    player.resume()
    assert sum(map(len, sink.written)) == 1_000_000
    assert sink.ends == [(True, True)]


def test_nothing_comes_after_the_peer_has_gone() -> None:
    sink = Sink()
    player, clock, _ = start(Output(b"H", list(BEATS)), sink, tokens_per_second=100)
    player.cancel()
    clock.advance(10.0)
    assert sink.written == [b"H", b"a"]
    assert not sink.ends
    assert not clock.timers


@pytest.mark.parametrize(
    ("ending", "end"),
    [
        (Ending.KEEP, (False, True)),
        (Ending.CLOSE, (False, False)),
        (Ending.RESET, "reset"),
    ],
)
def test_endings(ending: Ending, end: object) -> None:
    sink = Sink()
    start(Output(b"H", [b"a"], ending, failed=True), sink)
    assert sink.ends == [end]


def test_a_stall_never_ends_and_pings_go_on() -> None:
    for ending, pings in ((Ending.STALL, 0), (Ending.PINGS, 3)):
        sink = Sink()
        _, clock, _ = start(Output(b"H", [b"a"], ending, failed=True), sink, ping_s=10.0)
        clock.advance(35.0)
        assert sink.written[1:] == [chunk(PING)] * pings
        assert not sink.ends


def test_a_slow_head_comes_in_halves() -> None:
    sink = Sink()
    output = Output(b"HEAD", [b"a"], head_delay_s=3.0)
    _, clock, _ = start(output, sink)
    clock.advance(2.9)
    assert sink.written == [b"HE"]
    clock.advance(0.2)
    assert b"".join(sink.written) == b"HEADa"


def test_the_long_line_is_poured_as_the_peer_reads() -> None:
    sink = Sink(pause_after=3)
    player, _, _ = start(Output(b"", [], Ending.FLOOD, failed=True), sink, size=1 << 20)
    assert len(sink.written) == 3
    sink.is_paused, sink.pause_after = False, None
    player.resume()
    assert b"".join(sink.written).count(b"x") == 1 << 20
    assert sink.ends == [(False, True)]


def test_a_closed_pacer_keeps_nothing() -> None:
    _, clock, pacer = start(Output(b"H", list(BEATS)), sink := Sink(), tokens_per_second=1)
    pacer.close()
    clock.advance(10.0)
    assert sink.written == [b"H", b"a"]
