"""A bare byte pump on uvloop, two protocols wired to each other and no HTTP: the floor of what Python can do.

Run as ``python -m benchmarks.pump --engine-port N``; prints one JSON line with its port, serves until its input ends.
"""

import asyncio
from typing import cast

from benchmarks.serving import main


class _Side(asyncio.Protocol):
    """Writes what it reads to its peer; the downstream one dials the upstream one for itself."""

    __slots__ = ("_early", "_engine_port", "_peer", "_transport")

    def __init__(self, engine_port: int | None, peer: "_Side | None" = None) -> None:
        self._engine_port = engine_port
        self._peer = peer
        self._early: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._engine_port is not None:
            asyncio.get_running_loop().create_task(self._dial(self._engine_port))

    async def _dial(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        _transport, peer = await loop.create_connection(
            lambda: _Side(None, self), "127.0.0.1", port
        )
        for data in self._early:
            peer.write(data)
        self._peer = peer

    def data_received(self, data: bytes) -> None:
        peer = self._peer
        if peer is None:
            self._early.append(data)
        else:
            peer.write(data)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._peer is not None:
            self._peer.close()


if __name__ == "__main__":
    main(__doc__, lambda engine_port: lambda: _Side(engine_port))
