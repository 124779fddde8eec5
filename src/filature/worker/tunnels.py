"""Connections to one proxy, dialled and kept ready: on each, once it is turned round, the proxy sends requests."""

import asyncio
import logging
import ssl
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlsplit

from filature.relay.addresses import Addresses
from filature.relay.downstream import Downstream, DownstreamConnection
from filature.relay.http1 import HEAD_BYTES_MAX, ProtocolError, parse_response_head
from filature.relay.sockets import keep_alive
from filature.relay.tls import dial
from filature.wire import control
from filature.worker.lasting import backoff_s

READY_MAX: Final = 32
"""Connections that stand ready, at most; and those that are being dialled."""
CONNECT_S: Final = 10.0
"""For a connection, its TLS and the proxy's answer."""
BACKOFF_S: Final = 0.25
"""After a dial that failed; doubled with each further one, up to the next."""
BACKOFF_MAX_S: Final = 15.0

_NO_UPGRADE: Final = 400
"""What a proxy answers that was not asked to turn the connection round."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """Where a proxy listens. ``tls`` None: plain HTTP."""

    url: str
    host: str
    port: int
    authority: str
    tls: ssl.SSLContext | None

    @staticmethod
    def of(url: str, tls: ssl.SSLContext) -> "ProxyAddress":
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host = parts.hostname or ""
        return ProxyAddress(
            url, host, parts.port or (443 if secure else 80), parts.netloc, tls if secure else None
        )


class DialFailed(Exception):
    """No tunnel came of it; the message says why."""


class Tunnels:
    """The connections to one proxy. ``room`` is how many more requests the worker could take."""

    def __init__(
        self, address: ProxyAddress, token: str, instance: str, downstream: Downstream
    ) -> None:
        self.address = address
        self.downstream = downstream
        lines = (
            f"GET {control.TUNNEL_PATH} HTTP/1.1",
            f"host: {address.authority}",
            f"authorization: Bearer {token}",
            f"{control.INSTANCE_HEADER}: {instance}",
            "connection: upgrade",
            f"upgrade: {control.TUNNEL_PROTOCOL}",
        )
        self._request = "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")
        self._addresses = Addresses(address.host, address.port)
        self._dials: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._not_before = 0.0

    @property
    def ready(self) -> int:
        """Connections on which nothing is being answered."""
        return sum(1 for connection in self.downstream.connections if not connection.busy)

    @property
    def _taken(self) -> int:
        """Of those that are ready, on how many all was taken: the others the proxy still reads, or they are dead."""
        connections = self.downstream.connections
        return sum(1 for each in connections if not each.busy and not each.unsent_bytes())

    def keep_ready(self, room: int, seen: int | None) -> None:
        """Dial what is missing. ``seen``: how many the proxy has, where it just told: it may know of fewer."""
        now = asyncio.get_running_loop().time()
        if now < self._not_before:
            return
        ready = self.ready if seen is None else min(self.ready, seen)
        missing = min(room, READY_MAX) - ready
        if missing > 2 * READY_MAX - self.ready:  # the proxy may have counted too few
            missing = min(missing, 2 * READY_MAX - self._taken)
        for _ in range(missing - len(self._dials)):
            task = asyncio.get_running_loop().create_task(self._dial())
            self._dials.add(task)
            task.add_done_callback(self._dials.discard)

    def dial_now(self) -> None:
        """The proxy is there again: what failed before is not held against it."""
        self._failures = 0
        self._not_before = 0.0

    async def close(self) -> None:
        for task in tuple(self._dials):
            task.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        for connection in tuple(self.downstream.connections):
            connection.transport.abort()

    async def _dial(self) -> None:
        address = self.address
        handshake = _Handshake(self._request, self.downstream)
        turn = 0
        try:
            async with asyncio.timeout(CONNECT_S):
                host, turn = await self._addresses.pick()
                transport = await dial(handshake, host, address.port, address.tls, address.host)
                try:
                    await handshake.done
                except BaseException:
                    transport.abort()
                    raise
        except TimeoutError:
            self._addresses.silent(turn)
            self._failed("no answer in time")
        except OSError as error:
            self._addresses.failed(turn)
            self._failed(str(error))
        except DialFailed as error:
            self._failed(str(error))
        else:
            self._failures = 0
        finally:
            handshake.done.cancel()  # nobody asks any more how it went

    def _failed(self, reason: str) -> None:
        """Of dials that were made together the first counts."""
        now = asyncio.get_running_loop().time()
        if now < self._not_before:
            return
        if not self._failures:
            log.warning("no tunnel to %s: %s", self.address.url, reason)
        self._not_before = now + backoff_s(self._failures, BACKOFF_S, BACKOFF_MAX_S)
        self._failures += 1


class _Handshake(asyncio.Protocol):
    """Asks for the turning round, and gives the connection to the worker's side of the relay."""

    def __init__(self, request: bytes, downstream: Downstream) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._downstream = downstream
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(self._buffer) > HEAD_BYTES_MAX:
                self._fail("the answer's head is too long")
            return
        try:
            status = parse_response_head(self._buffer[:end]).status
        except ProtocolError as error:
            self._fail(f"malformed answer: {error}")
            return
        if status != 101:
            hint = "; does a gateway before it pass Upgrade on?" if status == _NO_UPGRADE else ""
            self._fail(f"the proxy answered {status}{hint}")
            return
        rest = self._buffer[end:]
        downstream = self._downstream
        keep_alive(self._transport)
        connection = DownstreamConnection(downstream)
        self._transport.set_protocol(cast(asyncio.Protocol, connection))
        connection.connection_made(self._transport)
        connection.deadline = downstream.clock.now + downstream.limits.idle_s
        if not self.done.done():
            self.done.set_result(None)
        if rest:
            connection.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the connection was closed")

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(DialFailed(reason))
        self._transport.abort()
