"""One coarse clock for all deadlines: a tick, not a timer for each request."""

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

TICK_S: Final = 0.1
STOOD_STILL_S: Final = 1.0
"""Between two ticks: the process was stopped or starved, and what came for it meanwhile is not read yet."""


class CoarseClock:
    """``now`` is the loop's time at the last tick, in seconds; ``date`` the Date header's value.

    Callbacks run at each tick with ``now``, but for one after the process stood still: what came meanwhile is read
    before anybody is held to a deadline. ``wall`` gives Unix time in seconds and is injected.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self.now = 0.0
        self.date = b""
        self._wall = wall
        self._second = -1
        self._passed_over = False
        self._callbacks: list[Callable[[float], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = loop.time()
        self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def each_tick(self, callback: Callable[[float], None]) -> None:
        self._callbacks.append(callback)

    def forget(self, callback: Callable[[float], None]) -> None:
        """Call it no more; also from within it."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        before, self.now = self.now, self._loop.time()
        second = int(self._wall())
        if second != self._second:
            self._second = second
            self.date = formatdate(second, usegmt=True).encode("ascii")
        # one tick and no more: a loop that is always as slow would never look at a deadline
        self._passed_over = self.now - before > STOOD_STILL_S and not self._passed_over
        if self._passed_over:
            return
        for callback in tuple(self._callbacks):
            callback(self.now)
