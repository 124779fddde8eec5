"""Engines that send without end: memory stays bounded, and the process serves on."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.integration.harness import Chain, EngineRequest, RawEngine, chain
from tests.integration.messages import (
    CHAT,
    DONE,
    LAST_CHUNK,
    STREAM,
    STREAM_HEAD,
    chunked,
    completion,
    delta,
    json_answer,
    post,
    stream_answer,
)

MIB = 1 << 20
GROWTH_BYTES_MAX = 100 * MIB


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


class Sink(asyncio.Protocol):
    """A client that counts what it gets and forgets it."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.received = 0
        self.tail = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self.tail = (self.tail + data[-64:])[-64:]
        if self.tail.endswith(b"\r\n" + LAST_CHUNK) and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def pour(c: Chain, request: bytes) -> tuple[Sink, int]:
    """Receive a whole answer; the client, and by how much the process grew at most."""
    before = resident_bytes()
    grown = 0
    loop = asyncio.get_running_loop()
    _, sink = await loop.create_connection(lambda: Sink(request), "127.0.0.1", c.proxy.port)
    async with asyncio.timeout(30):
        while not sink.ended.done():
            await asyncio.wait([sink.ended], timeout=0.02)
            grown = max(grown, resident_bytes() - before)
    sink.transport.abort()
    return sink, grown


class Pouring(RawEngine):
    """Sends ``count`` times the same piece between a start and an end."""

    def __init__(self, start: bytes, piece: bytes, count: int, end: bytes) -> None:
        super().__init__(self._pour)
        self.start_bytes, self.piece, self.count, self.end_bytes = start, piece, count, end

    async def _pour(self, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        if b"short" in request.body:
            writer.write(json_answer(completion("hi")))
            return
        writer.write(self.start_bytes)
        piece = chunked(self.piece)
        for _ in range(self.count):
            writer.write(piece)
            await writer.drain()
            if request.gone.is_set():
                return
        writer.write(self.end_bytes)
        await writer.drain()


SHORT = CHAT | {"messages": [{"role": "user", "content": "short"}]}


async def test_a_gigabyte_without_a_line_end(caplog: pytest.LogCaptureFixture) -> None:
    engine = Pouring(
        STREAM_HEAD + chunked(delta("a")) + chunked(b"data: "), b"x" * MIB, 1024, LAST_CHUNK
    )
    async with chain(engine) as c:
        pouring = asyncio.create_task(pour(c, post(STREAM)))
        waits = []
        loop = asyncio.get_running_loop()
        while not pouring.done():
            started = loop.time()
            assert (await c.ask(post(SHORT))).status == 200
            waits.append(loop.time() - started)
            await asyncio.sleep(0.05)
        sink, grown = await pouring
        record = next(r for r in c.proxy.usage._records.values() if r.streamed)
        counted = c.proxy.metrics.exposition(c.proxy.metrics.registry()).decode()
    assert grown < GROWTH_BYTES_MAX, f"grew by {grown / MIB:.0f} MiB"
    assert sink.received > 1024 * MIB, "what is too long for an event passes as it is"
    assert max(waits) < 1.0, "others do not notice"
    assert record.outcome == "engine_failed_midstream"
    assert record.estimated
    assert 'filature_limits_reached_total{limit="event_bytes_max"} 1.0' in counted
    (said,) = [line for line in caplog.messages if "unprocessed data in answer: bytes=" in line]
    assert f"bytes={record.unprocessed_bytes}, of engine {engine.url}, in {record.id}" in said
    assert "usage is estimated" in said


async def test_a_document_above_the_bound_passes_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    start, end = chunked(b'{"data":"'), chunked(b'"}') + LAST_CHUNK
    async with chain(Pouring(head + start, b"x" * MIB, 129, end)) as c:
        sink, _ = await pour(c, post({"model": "m", "input": "x"}, "/v1/embeddings"))
        record = await c.only_usage()
        counted = c.proxy.metrics.exposition(c.proxy.metrics.registry()).decode()
    assert sink.received > 129 * MIB
    assert record["outcome"] == "completed"
    assert record["usage"]["estimated"]
    assert record["usage"]["total_cost"] > 0
    assert 'filature_limits_reached_total{limit="document_bytes_max"} 1.0' in counted
    assert "document_bytes_max, and usage is estimated" in caplog.text


async def test_an_endless_stream_of_events_is_bounded_too() -> None:
    events = b"".join(delta("some words, " * 10) for _ in range(1000))
    count = 200_000_000 // len(events)
    end = chunked(delta("", finish="stop")) + chunked(DONE) + LAST_CHUNK
    async with chain(Pouring(STREAM_HEAD, events, count, end)) as c:
        # as many tokens as there are events: fewer would be too many, wherever the clock looks in time
        sink, grown = await pour(c, post(STREAM | {"max_tokens": 1000 * count}))
        record = await c.only_usage()
    assert grown < GROWTH_BYTES_MAX
    assert sink.received > 190_000_000
    assert record["outcome"] == "completed"


@pytest.mark.parametrize(
    ("piece", "times"), [(b": ping\n\n", 10_000), (b"\n", 10_000), (b"data: null\n\n", 40)]
)
async def test_endless_chatter_before_the_content_is_bounded(piece: bytes, times: int) -> None:
    """Held back it must not pile up; and comments are no progress."""
    engine = Pouring(STREAM_HEAD, piece * (100_000 // len(piece)), times, LAST_CHUNK)
    async with chain(engine, first_byte_s=0.5, hold_s=5) as c:
        _, grown = await pour(c, post(STREAM, headers="Connection: close\r\n"))
        record = await c.only_usage()
    assert grown < GROWTH_BYTES_MAX
    assert record["outcome"] in ("engine_stalled", "engine_failed", "engine_failed_midstream")


async def test_a_large_batch_of_embeddings_passes() -> None:
    numbers = [[0.123456789] * 1000] * 800  # about 10 MB
    data = {
        "object": "list",
        "data": [{"embedding": n} for n in numbers],
        "usage": {"prompt_tokens": 9},
    }

    async def handler(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(json_answer(data))

    async with chain(handler) as c:
        answer = await c.ask(post({"model": "m", "input": ["x"]}, "/v1/embeddings"))
        record = await c.usage(answer.request_id)
    assert answer.json["data"] == data["data"]
    assert record["outcome"] == "completed"
    assert record["usage"]["total_cost"] == 1800


async def test_a_wrong_length_is_no_way_into_the_next_answer() -> None:
    """An engine that says less than it sends: the rest is dropped with its connection."""
    events = b"".join([delta("a"), delta("b", finish="stop"), DONE])
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"

    async def handler(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        if b"short" in request.body:
            writer.write(stream_answer([delta("c", finish="stop"), DONE]))
        else:
            writer.write(head % (len(events) - 7) + events)

    async with chain(handler) as c:
        first = await c.ask(post(STREAM))
        second = await c.ask(post(SHORT | {"stream": True}))
    assert first.body.startswith(delta("a"))
    assert second.body.startswith(delta("c", finish="stop"))
