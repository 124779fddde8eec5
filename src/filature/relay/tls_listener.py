"""Listens for TLS. What a server of asyncio hides is counted here: connections whose handshake has not ended."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, Self

from filature.errors import InvalidRequest
from filature.relay.downstream import Downstream
from filature.relay.open_files import NO_MORE
from filature.relay.responses import error_response
from filature.relay.tls import accept

ACCEPTED_AT_ONCE: Final = 64
"""Connections, before others have their turn of the loop."""
PAUSE_S: Final = 1.0
"""Without accepting, where the system lets this process open no more files."""
HANDSHAKES_PART: Final = 8
"""So many-th of ``limits.connections_max`` may be in their handshake beside those that are connections already."""
HANDSHAKES_LEAST: Final = 64
"""Or so many, where that is more: a worker dials 32 connections at once."""

_TO_PLAIN_HTTP: Final = error_response(
    InvalidRequest("This port speaks TLS: ask by https://"), None, headers=b"", keep_alive=False
)


class TlsListener:
    """Hands connections to ``downstream`` when their handshake is done, in ``handshake_s``.

    Above ``handshakes_max`` the oldest one is broken off, and ``on_full`` called.
    """

    def __init__(
        self,
        downstream: Downstream,
        context: ssl.SSLContext,
        handshake_s: float,
        on_full: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._downstream = downstream
        self.context = context
        self._handshake_s = handshake_s
        self._on_full = on_full
        part = downstream.limits.connections_max // HANDSHAKES_PART
        self.handshakes_max = max(part, HANDSHAKES_LEAST)
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}  # the oldest first
        self.sockets: Sequence[socket.socket] = ()

    @classmethod
    async def open(
        cls,
        downstream: Downstream,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext,
        handshake_s: float,
        backlog: int,
        on_full: Callable[[], None],
    ) -> Self:
        """On all addresses of ``host``. Raises OSError when the port cannot be had."""
        listener = cls(downstream, context, handshake_s, on_full)
        listener.sockets = await _bound(host, port)
        for listening in listener.sockets:
            listening.listen(backlog)
        listener._resume()
        return listener

    def close(self) -> None:
        """Take no more connections. Handshakes go on."""
        self._pause()
        for listening in self.sockets:
            listening.close()
        self.sockets = ()

    async def wait_closed(self) -> None:
        """Break off what is left of handshakes."""
        ended = list(self._handshakes)
        while self._handshakes:
            self._break_off()
        await asyncio.gather(*ended)

    def _resume(self) -> None:
        for listening in self.sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _pause(self) -> None:
        for listening in self.sockets:
            self._loop.remove_reader(listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, _ = listening.accept()
            except OSError as error:
                if error.errno in NO_MORE:
                    self._pause()
                    self._loop.call_later(PAUSE_S, self._resume)
                return  # there are no more, or it is gone already
            accepted.setblocking(False)
            self._begin(accepted)

    def _begin(self, accepted: socket.socket) -> None:
        if len(self._handshakes) >= self.handshakes_max:
            self._on_full()
            self._break_off()
        task = self._loop.create_task(self._shake_hands(accepted))
        self._handshakes[task] = accepted
        task.add_done_callback(self._end)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it left, took too long, or speaks something else
            async with asyncio.timeout(self._handshake_s):
                await accept(self._downstream(), accepted, self.context, _TO_PLAIN_HTTP)

    def _break_off(self) -> None:
        """The oldest: it reads the end of its connection, and ends."""
        accepted = self._handshakes.pop(next(iter(self._handshakes)))
        with contextlib.suppress(OSError):  # it is gone already
            accepted.shutdown(socket.SHUT_RDWR)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)


async def _bound(host: str, port: int) -> list[socket.socket]:
    """A socket for each address. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            each = socket.socket(family, kind, protocol)
            sockets.append(each)
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind(address)
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets
