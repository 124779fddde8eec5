"""A recording pass-through between filature and an engine: what the engine was asked, and what it said, when.

It changes no byte, and can cut an answer. It knows just enough HTTP to tell one exchange from the next.
"""

import asyncio
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import h11

_READ_BYTES = 65536


@dataclass
class Exchange:
    """One request to the engine and its answer, as bytes."""

    request: bytearray = field(default_factory=bytearray)
    answer: list[tuple[float, bytes]] = field(default_factory=list)
    """What was read, and when (``time.monotonic``)."""
    closed_by: str = ""
    """"filature", "engine" or "tap", once the connection is closed."""

    @property
    def received(self) -> bytes:
        return b"".join(data for _, data in self.answer)

    def body_of_request(self) -> bytes:
        return bytes(self.request).partition(b"\r\n\r\n")[2]

    def decoded(self) -> tuple[int, bytes, bool]:
        """Status (0: none yet), body without framing, and whether that is the whole of it."""
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        connection.send(h11.Request(method="POST", target="/", headers=[("host", "engine")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(self.received)
        if self.closed_by == "engine":
            connection.receive_data(b"")
        status, body = 0, bytearray()
        try:
            while (event := connection.next_event()) is not h11.NEED_DATA:
                match event:
                    case h11.Response():
                        status = event.status_code
                    case h11.Data():
                        body += event.data
                    case h11.EndOfMessage():
                        return status, bytes(body), True
                    case h11.ConnectionClosed():
                        break
        except h11.RemoteProtocolError:
            pass
        return status, bytes(body), False


class Tap:
    """Listens at ``url`` while the context lasts, and connects to ``engine_url`` for whoever connects."""

    def __init__(self, engine_url: str) -> None:
        parts = urlsplit(engine_url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""
        self.exchanges: list[Exchange] = []
        self.cut_after_events: int | None = None
        """Cut the next answer that has so many ``data:`` lines."""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def asked(self, since: int = 0) -> list[Exchange]:
        """The POST requests after the first ``since`` exchanges: probes are left out."""
        return [one for one in self.exchanges[since:] if one.request.startswith(b"POST ")]

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}{self._path}"

    async def _stop(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: list[Exchange] = []
        try:
            engine_reader, engine_writer = await asyncio.open_connection(
                self._host, self._port, ssl=self._tls
            )
        except OSError:
            writer.transport.abort()
            return

        def requested(data: bytes) -> bool:
            if not connection or connection[-1].answer:
                connection.append(Exchange())
                self.exchanges.append(connection[-1])
            connection[-1].request += data
            return True

        def answered(data: bytes) -> bool:
            if not connection:
                return True
            exchange = connection[-1]
            exchange.answer.append((time.monotonic(), data))
            cut = self.cut_after_events
            if cut is None or not exchange.request.startswith(b"POST "):
                return True
            return exchange.received.count(b"data:") < cut

        up = asyncio.create_task(_pump(reader, engine_writer, requested))
        down = asyncio.create_task(_pump(engine_reader, writer, answered))
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        ended_by_tap = any(task.done() and task.result() for task in (up, down))
        if connection:
            side = "filature" if up.done() else "engine"
            connection[-1].closed_by = "tap" if ended_by_tap else side
        if ended_by_tap:
            self.cut_after_events = None
            writer.transport.abort()
        for task in (up, down):
            task.cancel()
        for each in (writer, engine_writer):
            each.close()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Callable[[bytes], bool]
) -> bool:
    """Pass on until the end of the data (False), or until ``seen`` says to stop (True)."""
    try:
        while data := await reader.read(_READ_BYTES):
            if not seen(data):
                return True
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    return False
