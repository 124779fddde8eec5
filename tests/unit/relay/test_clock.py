"""When those who wait for the clock are called, also after the process stood still."""

import asyncio
from collections.abc import Callable
from typing import cast

from filature.relay.clock import STOOD_STILL_S, TICK_S, CoarseClock


class Loop:
    """A loop whose time is a test's."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._tick: Callable[[], None] | None = None

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        assert delay_s == TICK_S
        self._tick = callback

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        assert self._tick is not None
        self._tick()


def ticking() -> tuple[Loop, CoarseClock, list[float]]:
    loop, clock = Loop(), CoarseClock(lambda: 0.0)
    called: list[float] = []
    clock.each_tick(called.append)
    clock.start(cast(asyncio.AbstractEventLoop, loop))
    return loop, clock, called


def test_each_tick_is_told() -> None:
    loop, clock, called = ticking()
    loop.pass_time(TICK_S)
    loop.pass_time(STOOD_STILL_S)
    assert called == [1000.0, 1000.0 + TICK_S, 1000.0 + TICK_S + STOOD_STILL_S]
    assert clock.now == loop.now


def test_after_a_standstill_what_came_is_read_before_deadlines_are_looked_at() -> None:
    loop, clock, called = ticking()
    loop.pass_time(60.0)
    assert called == [1000.0]
    assert clock.now == loop.now, "and what is read then is read now"
    loop.pass_time(TICK_S)
    assert called == [1000.0, loop.now]


def test_a_loop_that_is_always_slow_looks_at_deadlines_nevertheless() -> None:
    loop, _, called = ticking()
    for _ in range(10):
        loop.pass_time(2 * STOOD_STILL_S)
    assert len(called) == 1 + 5
