"""One coarse clock for all deadlines: a tick, not a timer for each request."""

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

TICK_S: Final = 0.1


class CoarseClock:
    """``now`` is the loop's time at the last tick, in seconds; ``date`` the Date header's value.

    Callbacks run at each tick with ``now``. ``wall`` gives Unix time in seconds and is injected.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self.now = 0.0
        self.date = b""
        self._wall = wall
        self._second = -1
        self._callbacks: list[Callable[[float], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
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
        self.now = self._loop.time()
        second = int(self._wall())
        if second != self._second:
            self._second = second
            self.date = formatdate(second, usegmt=True).encode("ascii")
        for callback in tuple(self._callbacks):
            callback(self.now)
