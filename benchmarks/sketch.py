"""A relay of a hundred lines on uvloop and httptools: the design's first sketch, beside what the product became.

It meters usage and puts a cost in, and no more: it trusts both sides, validates nothing, holds and records nothing.

Run as ``python -m benchmarks.sketch --engine-port N``; prints one JSON line with its port, serves until its input ends.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import httptools
import orjson

from benchmarks.serving import main

_NANO_PER_TOKEN: Final = 3
_EVENT_END: Final = b"\n\n"


def _priced(document: bytes) -> bytes:
    answer = orjson.loads(document)
    usage: dict[str, int] = answer["usage"]
    usage["total_cost"] = _NANO_PER_TOKEN * (usage["prompt_tokens"] + usage["completion_tokens"])
    return orjson.dumps(answer)


class _Engine(asyncio.Protocol):
    """A kept connection to the engine; answers one client's request at a time."""

    def __init__(self, idle: "list[_Engine]") -> None:
        self._idle = idle
        self._client: _Client | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, client: "_Client", request: bytes) -> None:
        self._client = client
        self._parser: Any = httptools.HttpResponseParser(self)
        self._streams = False
        self._is_between_chunks = False
        self._body = b""
        if self._transport is not None:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._is_whole_chunk(data) and self._client is not None:
            self._client.write(data)
        else:
            self._parser.feed_data(data)

    def _is_whole_chunk(self, data: bytes) -> bool:
        """Whether it can go on as it came: one chunk of whole events, and nothing in it is to be read."""
        if not (self._is_between_chunks and data.endswith(b"\n\n\r\n")) or b'"usage"' in data:
            return False
        size_end = data.find(b"\r\n", 0, 10)
        size = data[:size_end]
        return size.isalnum() and int(size, 16) == len(data) - size_end - 4

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type" and value.startswith(b"text/event-stream"):
            self._streams = True

    def on_headers_complete(self) -> None:
        if self._streams and self._client is not None:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            self._client.write(head)

    def on_chunk_header(self) -> None:
        self._is_between_chunks = False

    def on_chunk_complete(self) -> None:
        self._is_between_chunks = True

    def on_body(self, body: bytes) -> None:
        if not self._streams:
            self._body += body
            return
        if b'"usage":{' in body:
            events = body.split(_EVENT_END)
            body = _EVENT_END.join(
                b"data: " + _priced(event[6:]) if b'"usage":{' in event else event
                for event in events
            )
        if self._client is not None:
            self._client.write(b"%x\r\n%b\r\n" % (len(body), body))

    def on_message_complete(self) -> None:
        client, self._client = self._client, None
        self._idle.append(self)
        if client is None:
            return
        if self._streams:
            client.write(b"0\r\n\r\n")
            return
        body = _priced(self._body)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        client.write(head % len(body) + body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self in self._idle:
            self._idle.remove(self)
        if self._client is not None:
            self._client.close()


class _Client(asyncio.Protocol):
    """A client's connection; each request goes to the engine connection that was used last."""

    def __init__(self, engine_port: int, idle: list[_Engine]) -> None:
        self._engine_port = engine_port
        self._idle = idle
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = self._body = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body, self._body = self._body, b""
        asked = orjson.loads(body)
        if asked.get("stream"):
            asked["stream_options"] = {"include_usage": True}
            body = orjson.dumps(asked)
        head = b"POST %b HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        request = head % (self._url, len(body)) + body
        if self._idle:
            self._idle.pop().send(self, request)
        else:
            asyncio.get_running_loop().create_task(self._dial(request))

    async def _dial(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, engine = await loop.create_connection(
            lambda: _Engine(self._idle), "127.0.0.1", self._engine_port
        )
        engine.send(self, request)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None


def _relay(engine_port: int) -> Callable[[], asyncio.Protocol]:
    idle: list[_Engine] = []
    return lambda: _Client(engine_port, idle)


if __name__ == "__main__":
    main(__doc__, _relay)
