"""Delay of each event from the engine's send to the relay's, read off the kernel's receive timestamps.

The kernel stamps what arrives on a loopback connection while the sender still sends it, so that neither the generator's
turn on a busy core nor the engine's counts as the relay's delay.
"""

import asyncio
import socket
import struct
import time
from array import array
from collections.abc import Callable
from typing import Final

from benchmarks import payload

_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("@qq")
_READ_BYTES: Final = 65536
_ANCILLARY_BYTES: Final = 64


class StampedSocket:
    """A client's socket, read with timestamps; stands where uvloop's transport stands otherwise."""

    __slots__ = ("_loop", "_received", "_socket")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        received: Callable[[bytes, int], None],
    ) -> None:
        """``received`` takes what was read and when it arrived, in ns since the epoch; nothing means the end."""
        self._loop = loop
        self._socket = sock
        self._received = received
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(sock.fileno(), self._readable)

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def abort(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _readable(self) -> None:
        try:
            data, ancillary, _flags, _address = self._socket.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        arrived_ns = time.time_ns()
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(value[: _TIMESPEC.size])
                arrived_ns = seconds * 1_000_000_000 + nanoseconds
        if not data:
            self.abort()
        self._received(data, arrived_ns)


def take(data: bytes, arrived_ns: int, delays_ns: "array[int]") -> None:
    """Appends the delay of every stamped event in ``data``; a stamp split by two reads is left out."""
    end = data.find(payload.MARK)
    while end >= 0:
        stamp = data[max(0, end - payload.STAMP_DIGITS) : end]
        if len(stamp) == payload.STAMP_DIGITS and stamp.isdigit():
            delays_ns.append(arrived_ns - int(stamp))
        end = data.find(payload.MARK, end + 1)
