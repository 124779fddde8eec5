"""TLS on a transport of the loop: the standard library's, by memory; ours is who carries bytes to it and from it.

A loop has a TLS of its own, which takes several times the CPU per record: docs/decisions/0013-tls.md.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

RECORD_BYTES_MAX: Final = 16_384
"""Of what one record carries (RFC 8446, 5.1)."""
FED_BYTES: Final = 32_768
"""At once to TLS, which keeps for as long as it lives as much memory as it once held."""
OWN_BYTES_MAX: Final = 65_536
"""Of TLS's own answers on one connection, to 2,000 wishes for new keys: a side that wants more, and reads none of them,
would have all of them kept here."""

_NOBODY: Final = asyncio.Protocol()
"""Above a connection that is over."""
_PLAIN_HTTP: Final = "HTTP_REQUEST"
"""OpenSSL's name for the beginning of an HTTP request where a handshake's should be."""


class TlsTransport:
    """One connection: to the loop a protocol, to the ``protocol`` above it a transport.

    ``protocol`` hears of the connection when the handshake is done, for which whoever makes the connection waits.
    """

    __slots__ = (
        "_closing",
        "_decrypt",
        "_encrypt",
        "_ended",
        "_has_begun",
        "_incoming",
        "_is_up",
        "_loop",
        "_outgoing",
        "_own_bytes",
        "_paused",
        "_protocol",
        "_send",
        "_session",
        "_shaken",
        "_to_plain_http",
        "_transport",
    )

    def __init__(
        self,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        to_plain_http: bytes = b"",
    ) -> None:
        """``server_hostname``: whom the other side has to be; None: this is the server, and ``to_plain_http`` what a
        client is told that asks without TLS."""
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self._encrypt: Callable[[bytes | memoryview], int] = self._session.write
        self._decrypt: Callable[[int], bytes] = self._session.read
        self._has_begun = True  # a record whose beginning is no longer in ``_incoming``
        self._is_up = False
        self._to_plain_http = to_plain_http
        self._closing = False
        self._paused = False
        self._ended = False  # the other side sends no more
        self._own_bytes = 0  # that TLS sent by itself since the handshake
        self._shaken: asyncio.Future[None] = self._loop.create_future()
        self._shaken.add_done_callback(_seen)

    async def ready(self) -> asyncio.Transport:
        """When the handshake is done. Raises OSError where it failed; without it the connection is closed."""
        try:
            await self._shaken
        except BaseException:
            if not self._closing:
                self.abort()
            raise
        return cast(asyncio.Transport, self)

    # asyncio.Protocol, for the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio hands a stream protocol a stream transport
        self._transport = cast(asyncio.Transport, transport)
        self._send = self._transport.write
        if not self._session.server_side:
            self._shake_hands()

    def data_received(self, data: bytes) -> None:
        if not self._is_up:
            self._incoming.write(data)
            self._shake_hands()
        elif len(data) <= FED_BYTES:
            self._incoming.write(data)
            self._deliver()
        else:
            for start in range(0, len(data), FED_BYTES):
                self._incoming.write(data[start : start + FED_BYTES])
                self._deliver()

    def eof_received(self) -> bool | None:
        """An end without TLS's own is one, too: the messages within say themselves where they end."""
        if not self._is_up:
            return None
        self._ended = True
        self._deliver()
        return self._paused  # what is left is delivered later

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        protocol, self._protocol = self._protocol, _NOBODY  # no cycle: TLS's memory goes at once
        if self._is_up:
            protocol.connection_lost(exc)
        elif not self._shaken.done():
            self._shaken.set_exception(exc or ConnectionResetError("closed in the TLS handshake"))

    def pause_writing(self) -> None:
        if self._is_up:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._is_up:
            self._protocol.resume_writing()

    # asyncio.Transport, for the protocol above

    def write(self, data: bytes) -> None:
        if self._closing or not data:
            return
        try:
            if len(data) <= RECORD_BYTES_MAX:
                self._encrypt(data)
                self._send(self._outgoing.read())
                return
            view, written = memoryview(data), 0
            while written < len(data):
                written += self._encrypt(view[written : written + FED_BYTES])
                self._send(self._outgoing.read())
        except ssl.SSLError:
            self.abort()

    def close(self) -> None:
        """What was written is sent, and TLS's end after it. The other side's is not waited for."""
        if self._closing:
            return
        self._closing = True
        with contextlib.suppress(ssl.SSLError):  # the other side's end has not come yet
            self._session.unwrap()
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self._closing:
            self._paused = False
            self._loop.call_soon(self._read_on)

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def can_write_eof(self) -> bool:
        return False

    # between the two

    def _shake_hands(self) -> None:
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._closing = True
            if error.reason == _PLAIN_HTTP:
                self._send(self._to_plain_http)
            else:
                self._flush()  # it is told why
            self._transport.close()
            if not self._shaken.done():
                self._shaken.set_exception(error)
            return
        self._flush()
        if self._shaken.done():  # nobody waits any more
            self.abort()
            return
        self._is_up = True
        self._shaken.set_result(None)
        self._protocol.connection_made(cast(asyncio.BaseTransport, self))
        self._deliver()

    def _deliver(self) -> None:
        """Hand up all that has come, record by record."""
        incoming = self._incoming
        while not (self._paused or self._closing):
            size = incoming.pending
            if not size:
                break
            if self._has_begun or size > RECORD_BYTES_MAX:
                size = RECORD_BYTES_MAX
            try:
                data = self._decrypt(size)  # all of a record, so that nothing is left of it
            except ssl.SSLWantReadError:
                self._has_begun = True
                break
            except ssl.SSLError:
                self.abort()
                return
            if not data:  # TLS's own end
                self._end()
                return
            self._has_begun = False
            self._protocol.data_received(data)
        if self._closing:
            return
        if self._outgoing.pending:  # TLS has answered something itself
            self._own_bytes += self._outgoing.pending
            self._flush()
            if self._own_bytes > OWN_BYTES_MAX:
                self.abort()
                return
        if self._ended and not self._paused:
            self._end()

    def _read_on(self) -> None:
        """What had come before a pause is first: else each pause would leave more of it here."""
        self._deliver()
        if not (self._paused or self._closing):
            self._transport.resume_reading()

    def _end(self) -> None:
        """The other side sends no more."""
        self._protocol.eof_received()
        self.close()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._send(self._outgoing.read())


async def dial(
    protocol: asyncio.Protocol,
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    server_hostname: str,
) -> asyncio.Transport:
    """Connect ``protocol``, by TLS where there is a ``context``. Raises OSError; how long it takes is the caller's."""
    loop = asyncio.get_running_loop()
    if context is None:
        transport, _ = await loop.create_connection(lambda: protocol, host, port)
        return transport
    tls = TlsTransport(protocol, context, server_hostname=server_hostname)
    await loop.create_connection(lambda: cast(asyncio.Protocol, tls), host, port)
    return await tls.ready()


async def accept(
    protocol: asyncio.Protocol,
    accepted: socket.socket,
    context: ssl.SSLContext,
    to_plain_http: bytes = b"",
) -> None:
    """As ``dial``, from the other end."""
    tls = TlsTransport(protocol, context, to_plain_http=to_plain_http)
    loop = asyncio.get_running_loop()
    await loop.connect_accepted_socket(lambda: cast(asyncio.Protocol, tls), accepted)
    await tls.ready()


def _seen(shaken: "asyncio.Future[None]") -> None:
    """Who gave it up while it failed asks no more how; that is no error to be logged."""
    if not shaken.cancelled():
        shaken.exception()
