"""Clients that are slow, that stop reading, that leave: bounded, noticed, and never the engine's fault."""

import asyncio
import re
import socket
from typing import Any

import pytest
from tests.integration.harness import (
    WAIT_S,
    Call,
    Chain,
    Client,
    EngineRequest,
    Puppet,
    RawEngine,
    chain,
)
from tests.integration.messages import (
    CHAT,
    DONE,
    LAST_CHUNK,
    SHORT_STREAM,
    STREAM,
    STREAM_HEAD,
    chunked,
    completion,
    cost,
    delta,
    json_answer,
    post,
    stream_answer,
    tokens,
)


def stop_reading(client: Client) -> None:
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's


def read_again(client: Client) -> None:
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]


def narrow_socket() -> socket.socket:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    raw.setblocking(False)
    return raw


async def narrow(c: Chain) -> Client:
    """A client whose socket takes little, so that what it does not read waits at the proxy."""
    raw = narrow_socket()
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", c.proxy.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=8192)
    client = Client(reader, writer)
    c._clients.append(client)
    return client


class Flood(RawEngine):
    """Sends events as fast as they are taken, and tells how many were."""

    def __init__(self, events: int, text: str) -> None:
        super().__init__(self._flood)
        self.events = events
        self.text = text
        self.sent = 0

    async def _flood(self, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        if b"short" in request.body:
            writer.write(stream_answer(SHORT_STREAM))
            return
        writer.write(STREAM_HEAD)
        for number in range(self.events):
            writer.write(chunked(delta(f"{number} {self.text}")))
            await writer.drain()
            self.sent += 1
            if request.gone.is_set():
                return
        writer.write(chunked(delta("", finish="stop")) + chunked(DONE) + LAST_CHUNK)
        await writer.drain()


SHORT = STREAM | {"messages": [{"role": "user", "content": "short"}]}


async def test_a_slow_client_slows_its_own_stream_and_nothing_else() -> None:
    flood = Flood(1000, "x" * 40_000)  # 40 MB
    async with chain(flood) as c:
        slow = await narrow(c)
        stop_reading(slow)
        slow.send(post(STREAM))
        (connection,) = c.proxy.downstream.connections
        last = -1
        async with asyncio.timeout(10):
            while flood.sent != last or not flood.sent:  # until the engine is held up, too
                last = flood.sent
                await asyncio.sleep(0.1)
                assert connection.transport.get_write_buffer_size() < 1_000_000
        assert flood.sent < 500, "what is not taken is not read from the engine"
        for _ in range(3):
            assert (await c.ask(post(SHORT))).body.endswith(DONE)
        read_again(slow)
        head = await slow.head()
        request_id = re.findall(rb"x-request-id: (\S+)", head)[0].decode()
        body = bytearray()
        async with asyncio.timeout(30):
            while not body.endswith(LAST_CHUNK):
                body += await slow.reader.read(1 << 20)
                assert connection.transport.get_write_buffer_size() < 1_000_000
        assert body.count(b'"content":"') == 1001
        assert len(body) > 40_000_000
        record = await c.usage(request_id)
        assert record["outcome"] == "completed"


async def test_a_client_that_stops_reading_is_at_fault_not_the_engine() -> None:
    flood = Flood(1000, "x" * 40_000)
    async with chain(flood, client_stall_s=0.3, progress_s=0.2, ping_s=0.1) as c:
        client = await narrow(c)
        stop_reading(client)
        client.send(post(STREAM))
        record = await c.only_usage()
        assert record["outcome"] == "client_stalled"
        assert record["usage"]["total_cost"] > 0
        async with asyncio.timeout(WAIT_S):
            await flood.requests[0].gone.wait()
        assert c.proxy.engines.engines[0].failures == 0


async def test_a_client_that_stops_reading_and_half_closes_left() -> None:
    """What it was written is not waited for: it may never take it."""
    flood = Flood(1000, "x" * 40_000)
    async with chain(flood) as c:
        client = await narrow(c)
        stop_reading(client)
        client.send(post(STREAM))
        async with asyncio.timeout(WAIT_S):
            while not any(each.writing_paused for each in c.proxy.downstream.connections):
                await asyncio.sleep(0.01)
            leave(client, "half-close")
            await flood.requests[0].gone.wait()
        assert (await c.only_usage())["outcome"] == "client_gone"


async def test_a_client_that_reads_a_little_now_and_then_is_not_stalled() -> None:
    flood = Flood(200, "x" * 40_000)
    async with chain(flood, client_stall_s=0.4, progress_s=0.2) as c:
        raw = narrow_socket()
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", c.proxy.port))
        await loop.sock_sendall(raw, post(STREAM))
        sipped = 0
        for _ in range(20):  # longer than the deadline; the kernel's buffer hardly empties
            await asyncio.sleep(0.05)
            sipped += len(await loop.sock_recv(raw, 8192))
        (connection,) = c.proxy.downstream.connections
        assert connection.writing_paused
        assert sipped < 200_000
        assert not len(c.proxy.usage)
        while not len(c.proxy.usage):
            await loop.sock_recv(raw, 1 << 20)
        assert (await c.only_usage())["outcome"] == "completed"
        raw.close()


async def test_the_end_of_an_answer_that_nobody_takes_does_not_stay() -> None:
    """The answer is complete and paid for; what is left of it waits in bounds and in time."""
    engine = RawEngine(lambda _, writer: answer_whole(writer))
    async with chain(engine, client_stall_s=0.3) as c:
        for version in ("1.1", "1.0"):
            client = await narrow(c)
            stop_reading(client)
            client.send(post(CHAT, version=version))
        async with asyncio.timeout(5):
            while c.proxy.downstream.connections or len(c.proxy.usage) < 2:
                await asyncio.sleep(0.01)
        for record in c.proxy.usage._records.values():
            assert record.outcome == "completed"


async def test_the_end_of_an_answer_that_is_taken_slowly_is_not_cut() -> None:
    """The engine is done with it; the client takes longer than the deadline, but it takes."""
    engine = RawEngine(lambda _, writer: answer_whole(writer))
    async with chain(engine, client_stall_s=0.2) as c:
        raw = narrow_socket()
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", c.proxy.port))
        await loop.sock_sendall(raw, post(CHAT, headers="Connection: close\r\n"))
        taken = 0
        for _ in range(16):
            await asyncio.sleep(0.05)
            taken += len(await loop.sock_recv(raw, 8192))
        while piece := await loop.sock_recv(raw, 1 << 20):
            taken += len(piece)
        raw.close()
        assert taken > 9_000_000


async def answer_whole(writer: asyncio.StreamWriter) -> None:
    writer.write(json_answer(completion("x" * 9_000_000)))


@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
async def test_a_client_that_leaves_cancels_its_engine_and_pays_for_what_it_had(how: str) -> None:
    puppet = Puppet()
    puppet.continuous = True
    async with chain(puppet) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(STREAM_HEAD, *[chunked(delta("x", usage=tokens(10, n + 1))) for n in range(5)])
        await client.head()
        seen = b""
        while seen != delta("x") * 5:
            seen += await client.chunk()
        leave(client, how)
        await call.gone()
        record = await c.only_usage()
        assert record["outcome"] == "client_gone"
        assert record["usage"]["completion_tokens"] == 5
        assert record["usage"]["total_cost"] == cost(10, 5)
        assert record["status"] == 499
        call.over.set()


def leave(client: Client, how: str) -> None:
    if how == "reset":
        client.leave()
    elif how == "close":
        client.writer.close()
    else:
        client.writer.write_eof()


async def test_a_client_that_leaves_at_the_end_mark_had_all() -> None:
    """Many stop there, before the last chunk of the body."""
    puppet = Puppet()
    async with chain(puppet) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(STREAM_HEAD, *map(chunked, SHORT_STREAM))
        body = b""
        await client.head()
        while not body.endswith(DONE):
            body += await client.chunk()
        client.leave()
        record = await c.only_usage()
        assert record["outcome"] == "completed"
        assert record["usage"]["total_cost"] == cost(10, 2)
        call.over.set()


@pytest.mark.parametrize("when", ["before the head", "before the first event", "at a whole answer"])
async def test_a_client_that_leaves_before_the_first_event_owes_nothing(when: str) -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        client = await c.connect()
        client.send(post(CHAT if "whole" in when else STREAM))
        call = await puppet.call()
        if when == "before the first event":
            call.send(STREAM_HEAD, chunked(b": ping\n\n"))
            await asyncio.sleep(0.02)
        client.leave()
        await call.gone()
        record = await c.only_usage()
        assert record["outcome"] == "client_gone"
        assert record["usage"]["total_cost"] == 0
        assert c.proxy.engines.engines[0].failures == 0
        call.over.set()


@pytest.mark.parametrize("payload", [CHAT, STREAM])
@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
async def test_a_client_that_leaves_more_behind_than_is_read(
    how: str, payload: dict[str, Any]
) -> None:
    """Nothing is read any more, so no read tells that it left; the engine says nothing, either."""
    puppet = Puppet()
    async with chain(puppet) as c:
        client = await c.connect()
        client.send(post(payload))
        call = await puppet.call()
        (connection,) = c.proxy.downstream.connections
        client.send(post(SHORT) * 500)
        async with asyncio.timeout(5):
            while not connection._reading_paused:
                await asyncio.sleep(0.001)
        leave(client, how)
        await call.gone()
        assert (await c.only_usage())["outcome"] == "client_gone"
        assert puppet.uncalled, "what was pipelined is not asked for"
        assert not c.proxy.downstream.unread
        call.over.set()


async def test_a_client_that_leaves_while_the_engine_is_being_connected() -> None:
    async with chain(urls=("http://192.0.2.1:9=m",), wait=False, connect_s=5) as c:
        (engine,) = c.proxy.engines.engines
        engine.models.update(engine.named)  # as when it was looked at in vain
        client = await c.connect()
        client.send(post(STREAM))
        while not c.running and not len(c.proxy.usage):
            await asyncio.sleep(0.001)
        client.leave()
        record = await c.only_usage()
        assert record["outcome"] in ("client_gone", "engine_failed")  # no route: refused at once


async def test_many_clients_that_leave_at_any_moment_leave_nothing_behind() -> None:
    flood = Flood(200, "x" * 2000)
    async with chain(flood) as c:
        clients = [await c.connect() for _ in range(30)]
        for client in clients:
            client.send(post(STREAM))
        for number, client in enumerate(clients):
            if number % 3:
                await client.head()
            if number % 3 == 2:
                await client.chunk()
            client.leave()
        async with asyncio.timeout(5):
            while len(c.proxy.usage) < 30:
                await asyncio.sleep(0.01)
        outcomes = {record.outcome for record in c.proxy.usage._records.values()}
        assert outcomes <= {"client_gone", "completed"}
        assert (await c.ask(post(SHORT))).complete


async def test_the_request_s_own_timeout() -> None:
    puppet = Puppet()
    puppet.continuous = True
    async with chain(puppet) as c:
        client = await c.connect()
        client.send(post(STREAM | {"timeout": 0.3}))
        call = await puppet.call()
        assert "timeout" not in call.request.json
        call.send(STREAM_HEAD, chunked(delta("x", usage=tokens(10, 3))))
        answer = await client.answer()
        assert answer.events[0] == delta("x")
        assert b'"timeout"' in answer.events[-1]
        assert answer.complete
        await call.gone()
        record = await c.usage(answer.request_id)
        assert record["outcome"] == "client_timeout"
        assert record["usage"]["total_cost"] == cost(10, 3)
        call.over.set()


@pytest.mark.parametrize("payload", [CHAT, STREAM])
async def test_the_request_s_own_timeout_before_anything_came(payload: dict[str, Any]) -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        client = await c.connect()
        client.send(post(payload | {"timeout": 0.2}))
        call = await puppet.call()
        answer = await client.answer()
        assert answer.status == 504
        assert answer.json["error"]["code"] == "timeout"
        assert answer.headers["x-should-retry"] == "false"
        record = await c.usage(answer.request_id)
        assert record["outcome"] == "client_timeout"
        assert record["usage"]["total_cost"] == 0
        await call.gone()
        call.over.set()


async def test_our_own_limit_on_a_request() -> None:
    puppet = Puppet()
    async with chain(puppet, request_s=0.3) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await puppet.call()

        async def babble(call: Call) -> None:
            call.send(STREAM_HEAD)
            while not call.request.gone.is_set():
                call.send(chunked(delta("x")))
                await asyncio.sleep(0.02)

        babbling = asyncio.create_task(babble(call))
        answer = await client.answer()
        assert b'"engine_timeout"' in answer.events[-1]
        await babbling
        record = await c.usage(answer.request_id)
        assert record["outcome"] == "engine_stalled"
        assert record["usage"]["total_cost"] == 0
        call.over.set()
