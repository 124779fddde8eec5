"""Connections that a worker dialled, used from the other end: as its pool of upstream connections."""

import asyncio
from dataclasses import replace
from typing import Final, cast

from filature.relay.clock import CoarseClock
from filature.relay.limits import RelayLimits
from filature.relay.sockets import keep_alive
from filature.relay.upstream import Caller, UpstreamConnection, UpstreamPool

SIGN_S: Final = 2.0
"""In which a worker answers a request with 102; a connection without that is dead."""
TUNNEL_WAIT_S: Final = 2.0
"""For a worker all of whose connections are in use to dial another. While some come, others may follow: it counts
from the last one, and all in all up to the next."""
TUNNEL_WAIT_MAX_S: Final = 10.0
TUNNEL_IDLE_S: Final = 3600.0
"""Longer than a worker leaves one unused."""
_USER_TIMEOUT_MS: Final = 20_000
"""At the proxy's end only: at a worker's, the kernel would close a connection whose proxy waits for a slow client."""


class TunnelPool(UpstreamPool):
    """The ready connections of one worker. It opens none: what finds none waits for one to come."""

    def __init__(self, clock: CoarseClock, limits: RelayLimits) -> None:
        limits = replace(limits, sign_s=SIGN_S, upstream_idle_s=TUNNEL_IDLE_S)
        super().__init__(clock, limits)
        self._waiting: dict[Caller, tuple[float, bytes]] = {}  # since when, for what
        self._came_at = 0.0  # the last connection for one of them

    @property
    def idle_connections(self) -> int:
        return len(self._idle)

    def attach(self, transport: asyncio.Transport) -> None:
        """Take a connection on which the roles were just exchanged."""
        if self._closed:
            transport.abort()
            return
        keep_alive(transport, user_timeout_ms=_USER_TIMEOUT_MS)
        connection = UpstreamConnection(self)
        transport.set_protocol(cast(asyncio.Protocol, connection))
        connection.connection_made(transport)
        self.keep(connection)

    def send(self, caller: Caller, request: bytes, *, fresh: bool = False) -> None:
        """As the base; ``fresh``: one connection was found dead by this request, another is its last try."""
        connection = self._take_idle()
        if connection is not None:
            connection.send(caller, request, reused=not fresh)
        elif self._closed:
            caller.on_lost("the worker left")
        else:
            self._waiting[caller] = (self._clock.now, request)

    def cancel(self, caller: Caller) -> None:
        self._waiting.pop(caller, None)

    def keep(self, connection: UpstreamConnection) -> None:
        if self._waiting:
            caller = next(iter(self._waiting))
            _, request = self._waiting.pop(caller)
            self._came_at = self._clock.now
            connection.send(caller, request, reused=False)
        else:
            super().keep(connection)

    def close(self) -> None:
        """The worker is gone: what waits for it is told, what runs goes on."""
        super().close()
        for caller in tuple(self._waiting):
            self._lose(caller, "the worker left")

    def _tick(self, now: float) -> None:
        super()._tick(now)
        if self._closed and not self.open_connections:
            self._clock.forget(self._tick)  # workers come and go
            return
        while self._waiting:
            caller, (since, _) = next(iter(self._waiting.items()))
            until = max(since, self._came_at) + TUNNEL_WAIT_S
            if min(until, since + TUNNEL_WAIT_MAX_S) > now:
                return
            self._lose(caller, f"the worker opened no connection within {now - since:.0f} s")

    def _lose(self, caller: Caller, reason: str) -> None:
        if self._waiting.pop(caller, None) is not None:
            caller.on_lost(reason)
