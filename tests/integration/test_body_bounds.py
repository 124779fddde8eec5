"""Requests' bodies in memory: bounded in sum, whoever sends them and however they end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.integration.harness import WAIT_S, Chain, Client, Puppet, RawEngine, chain, says
from tests.integration.messages import CHAT, completion, json_answer, post
from tests.integration.network import engine_of, network

KIB: Final = 1024
LARGEST: Final = 64 * KIB
AT_ONCE: Final = 32
"""Of the largest."""
PART: Final = LARGEST - 100
"""Of a body, whose end is to come."""
WHOLE: Final = json_answer(completion("hi", 3, 2))


def of_bytes(size: int) -> bytes:
    """A request with a body of about ``size``."""
    return post(CHAT | {"messages": [{"role": "user", "content": "x" * (size - 200)}]})


async def counted(c: Chain, size: int) -> None:
    """Wait until so much is held."""
    bodies = c.proxy.downstream.bodies
    async with asyncio.timeout(WAIT_S):
        while bodies.bytes != size:
            await asyncio.sleep(0.001)


async def begun(c: Chain) -> Client:
    """A client that sends all but the end of a body."""
    client = await c.connect()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % LARGEST
    )
    client.send(head + b" " * PART)
    return client


@asynccontextmanager
async def full(engine: RawEngine) -> AsyncIterator[tuple[Chain, list[Client]]]:
    """A proxy that can hold no large body more, and who holds them."""
    async with chain(engine, body_bytes_max=LARGEST) as c:
        clients = [await begun(c) for _ in range(AT_ONCE)]
        await counted(c, AT_ONCE * PART)
        yield c, clients
        for client in clients:
            client.leave()
        await counted(c, 0)


async def test_a_body_beyond_the_bound_is_refused_until_others_have_ended() -> None:
    async with full(RawEngine(says(WHOLE))) as (c, clients):
        for request in (of_bytes(LARGEST), of_bytes(LARGEST - 20 * KIB)):
            answer = await c.ask(request)
            assert answer.status == 503
            assert answer.json["error"]["code"] == "overloaded"
            assert answer.headers["retry-after"] == "1"
            record = c.proxy.usage.get(answer.request_id)
            assert record is not None
            assert (record.outcome, record.total_cost) == ("refused", 0)
        assert c.proxy.metrics._limits == {"bodies_bytes_max": 2}
        small = await c.ask(of_bytes(8 * KIB))
        assert small.status == 200, "a small one does no harm"
        await counted(c, AT_ONCE * PART)
        clients.pop().leave()
        await counted(c, (AT_ONCE - 1) * PART)
        assert (await c.ask(of_bytes(LARGEST))).status == 200


async def test_a_refused_body_that_has_come_whole_leaves_its_connection_open() -> None:
    async with full(RawEngine(says(WHOLE))) as (c, clients):
        client = await c.connect()
        client.send(of_bytes(24 * KIB))
        refused = await client.answer()
        clients.pop().leave()
        await counted(c, (AT_ONCE - 1) * PART)
        client.send(of_bytes(24 * KIB))
        again = await client.answer()
    assert [refused.status, again.status] == [503, 200]


async def test_a_body_counts_until_its_answer_has_ended() -> None:
    engine = Puppet()
    async with chain(engine) as c:
        client = await c.connect()
        request = of_bytes(40 * KIB)
        client.send(request)
        call = await engine.call()
        body = request.partition(b"\r\n\r\n")[2]
        await counted(c, len(body))
        call.end(WHOLE)
        await client.answer()
        await counted(c, 0)
        client.send(request)
        await engine.call()
        client.leave()
        await counted(c, 0)


async def test_what_is_refused_or_broken_off_is_counted_no_more() -> None:
    too_large = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    async with chain(says(WHOLE), body_bytes_max=LARGEST) as c:
        piece = b"5000\r\n" + b" " * 0x5000 + b"\r\n"
        assert (await c.ask(too_large + piece * 4)).status == 413
        assert (await c.ask(too_large + piece + b"garbage\r\n")).status == 400
        assert (await c.ask(post(b" " * LARGEST))).status == 400
        await counted(c, 0)


async def test_a_worker_that_holds_too_much_is_busy_and_not_at_fault() -> None:
    async with network(RawEngine(says(WHOLE)), wait_s=0.3) as net:
        bodies = net.workers["gpu0"].links[0].tunnels.downstream.bodies
        bodies.take(bodies.bytes_max, 0)
        engine = await engine_of(net, "gpu0")
        refused = await net.chain.ask(of_bytes(LARGEST))
        assert refused.json["error"]["code"] == "no_capacity"
        assert (engine.failures, engine.refused > 0) == (0, True)
        bodies.release(bodies.bytes_max)
        assert (await net.chain.ask(of_bytes(LARGEST))).status == 200
