"""Sends a ready response at its pace, through one coarse clock for all; what it says is not its own."""

import asyncio
import heapq
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from filature.demo.faults import PING, Ending, Output, chunk, flood
from filature.demo.options import Script

TICK_S: Final = 0.001
"""Beats that are due within it go out in one go."""
BURST_BYTES: Final = 64 * 1024
"""Written at once where no pace is asked for."""
_LINGER_OFF: Final = struct.pack("ii", 1, 0)


class Sink(Protocol):
    """The connection that is played on."""

    @property
    def is_paused(self) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def finish(self, *, completed: bool, keep: bool) -> None: ...
    def reset(self) -> None: ...


class Pacer:
    """Calls back at given times, with one timer for all. Call ``close`` at the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0

    def time(self) -> float:
        return self._loop.time()

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Cannot be taken back: ``call`` checks for itself whether it is still wanted."""
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, call))
        if self._timer is None or when < self._armed_for - TICK_S:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = max(self._heap[0][0], self._loop.time() + TICK_S / 2)
        self._timer = self._loop.call_at(self._armed_for, self._run)

    def _run(self) -> None:
        heap = self._heap
        self._timer = None
        due = self._loop.time() + TICK_S / 2
        while heap and heap[0][0] <= due:
            heapq.heappop(heap)[2]()
        if heap and self._timer is None:
            self._arm()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._heap.clear()


class Player:
    """One response on its way out."""

    __slots__ = (
        "_beats",
        "_due",
        "_flood",
        "_interval_s",
        "_is_waiting",
        "_output",
        "_pacer",
        "_position",
        "_script",
        "_sink",
        "is_over",
    )

    def __init__(self, output: Output, script: Script, sink: Sink, pacer: Pacer) -> None:
        self._output = output
        self._script = script
        self._sink = sink
        self._pacer = pacer
        self._beats = output.beats
        self._position = 0
        self._interval_s = 0.0
        if script.tokens_per_second > 0:
            self._interval_s = script.tokens_per_event / script.tokens_per_second
        self._due = 0.0
        self._flood: Iterator[bytes] | None = None
        self._is_waiting = False
        self.is_over = False

    def start(self) -> None:
        """Send the head and what is due at once."""
        output = self._output
        self._due = self._pacer.time() + self._script.prefill_s
        if output.head_delay_s > 0:
            half = len(output.head) // 2
            self._sink.write(output.head[:half])
            self._due += output.head_delay_s
            self._pacer.call_at(self._pacer.time() + output.head_delay_s, self._send_head_rest)
            return
        if self._script.prefill_s > 0:
            self._sink.write(output.head)
            self._wait()
        elif self._interval_s > 0 or not self._beats:
            self._sink.write(output.head)
            self._play()
        else:
            self._beats = [output.head + self._beats[0], *self._beats[1:]]
            self._play()

    def resume(self) -> None:
        """The peer reads again."""
        if not self._is_waiting and not self.is_over:
            self._play()

    def cancel(self) -> None:
        """The peer is gone."""
        self.is_over = True

    def _send_head_rest(self) -> None:
        if self.is_over:
            return
        half = len(self._output.head) // 2
        self._sink.write(self._output.head[half:])
        if self._script.prefill_s > 0:
            self._wait()
        else:
            self._play()

    def _wait(self) -> None:
        self._is_waiting = True
        self._pacer.call_at(self._due, self._woken)

    def _woken(self) -> None:
        self._is_waiting = False
        if not self.is_over:
            self._play()

    def _play(self) -> None:
        beats, sink = self._beats, self._sink
        while self._position < len(beats):
            if sink.is_paused:
                return
            if self._interval_s == 0.0:
                self._burst()
                continue
            sink.write(beats[self._position])
            self._position += 1
            if self._position < len(beats):
                # A peer that was slow gets no burst afterwards: an engine would not make one.
                now = self._pacer.time()
                self._due += self._interval_s
                if self._due <= now:
                    self._due = now + self._interval_s
                self._wait()
                return
        if not self.is_over:
            self._end()

    def _burst(self) -> None:
        beats = self._beats
        end, size = self._position, 0
        while end < len(beats) and size < BURST_BYTES:
            size += len(beats[end])
            end += 1
        self._sink.write(b"".join(beats[self._position : end]))
        self._position = end

    def _end(self) -> None:
        ending = self._output.ending
        if ending is Ending.STALL:
            return
        if ending is Ending.PINGS:
            self._due = self._pacer.time() + self._script.ping_s
            self._pacer.call_at(self._due, self._ping)
            return
        if ending is Ending.FLOOD and not self._pour():
            return
        self.is_over = True
        if ending is Ending.RESET:
            self._sink.reset()
        else:
            keep = ending in (Ending.KEEP, Ending.FLOOD)
            self._sink.finish(completed=not self._output.failed, keep=keep)

    def _pour(self) -> bool:
        """Whether the long line is out."""
        if self._flood is None:
            self._flood = flood(self._script.size)
        for piece in self._flood:
            self._sink.write(piece)
            if self._sink.is_paused:
                return False
        return True

    def _ping(self) -> None:
        if not self.is_over:
            if not self._sink.is_paused:
                self._sink.write(chunk(PING))
            self._end()


def abort_with_reset(transport: asyncio.Transport) -> None:
    """Close so that the peer sees a reset, not an end."""
    # uvloop's stand-in for a socket sets no options; a duplicate is the same socket.
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
    transport.abort()
