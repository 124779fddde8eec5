"""A small HTTP/1.1 server: requests in, bytes out. Written for this engine alone, so that what tests
the relay shares no code with it; what is answered is ``server.py``'s business."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

import httptools

from filature.demo.faults import head_bytes
from filature.demo.player import abort_with_reset

HEAD_BYTES_MAX: Final = 256 * 1024
BODY_BYTES_MAX: Final = 256 * 1024 * 1024
PIPELINED_MAX: Final = 32
"""Requests of one connection that wait for the running one; then its bytes are read no more."""


@dataclass(slots=True)
class Request:
    """One whole request."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    """Names in lower case, in order."""
    body: bytes
    keep_alive: bool


class Exchange(Protocol):
    """What answers a request over time."""

    def resume(self) -> None:
        """The peer reads again."""
        ...

    def cancel(self) -> None:
        """The peer is gone."""
        ...


Handler = Callable[["Connection", Request], None]


class Observer(Protocol):
    """Is told what becomes of connections and answers."""

    def connected(self, connection: "Connection") -> None: ...
    def disconnected(self, connection: "Connection") -> None: ...
    def ended(self, *, completed: bool, cancelled: bool) -> None: ...


class Connection(asyncio.Protocol):
    """One connection; answers its requests one at a time, in order."""

    def __init__(self, handle: Handler, observer: Observer) -> None:
        self._handle = handle
        self._observer = observer
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Request] = deque()
        self._is_busy = False
        self._exchange: Exchange | None = None
        self._keep_alive = True
        self._head_bytes = 0
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self.is_paused = False

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._observer.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()
            self._observer.ended(completed=False, cancelled=True)
        self._waiting.clear()
        self._observer.disconnected(self)

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        if self._exchange is not None:
            self._exchange.resume()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "Upgrade is not offered.")
        except httptools.HttpParserError:
            self._refuse(400, "Invalid HTTP request received.")

    def _refuse(self, status: int, message: str) -> None:
        if self._transport is None or self._is_busy:
            self.close()
            return
        body = message.encode()
        self.write(head_bytes(status, b"text/plain; charset=utf-8", len(body), close=True) + body)
        self.close()

    # The parser's side

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", [], []
        self._head_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._grow_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow_head(len(name) + len(value))
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def _grow_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431, "The head is too large.")

    def on_headers_complete(self) -> None:
        if ("expect", "100-continue") in self._headers and not self._is_busy:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > BODY_BYTES_MAX:
            self._refuse(413, "The body is too large.")
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode("latin-1")
        keep_alive = self._parser.should_keep_alive()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(method, path, query, self._headers, body, keep_alive)
        if self._is_busy:
            self._waiting.append(request)
            if len(self._waiting) >= PIPELINED_MAX:
                self._transport.pause_reading()
        else:
            self._begin(request)

    def _begin(self, request: Request) -> None:
        self._is_busy = True
        self._keep_alive = request.keep_alive
        self._handle(self, request)

    # The answer's side

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def run(self, exchange: Exchange) -> None:
        """``exchange`` answers the request from now on; it calls ``finish`` at its end."""
        self._exchange = exchange

    def finish(self, *, completed: bool = True, keep: bool = True) -> None:
        """The answer is out; the next request's turn."""
        if self._exchange is not None:
            self._exchange = None
            self._observer.ended(completed=completed, cancelled=False)
        self._is_busy = False
        if self._transport is None or self._transport.is_closing():
            return
        if not keep or not self._keep_alive:
            self._transport.close()
        elif self._waiting:
            self._transport.resume_reading()
            self._begin(self._waiting.popleft())

    def reset(self) -> None:
        if self._exchange is not None:
            self._exchange = None
            self._observer.ended(completed=False, cancelled=False)
        if self._transport is not None:
            abort_with_reset(self._transport)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
