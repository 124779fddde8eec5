"""Tunnels over slow lines, and before slow clients: none of them is dead."""

import asyncio
import json
import socket
from typing import Any

from tests.integration.harness import WAIT_S, EngineRequest, RawEngine
from tests.integration.messages import json_answer
from tests.integration.network import Network, engine_of, network

from filature.relay.fetch import fetch
from filature.relay.tunnel import SIGN_S, TunnelPool
from filature.relay.upstream import UpstreamConnection

QUESTION = json.dumps({"model": "m", "content": "hello"}).encode()


async def counts(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
    writer.write(json_answer({"count": 3}))


async def pool_of(net: Network) -> TunnelPool:
    pool = (await engine_of(net, "gpu0")).pool
    assert isinstance(pool, TunnelPool)
    return pool


async def sign_on(pool: TunnelPool) -> UpstreamConnection:
    """The connection that a request was sent on, after the worker said that it is there."""
    async with asyncio.timeout(SIGN_S + WAIT_S):
        while not pool._awaited:
            await asyncio.sleep(0)
        connection = next(iter(pool._awaited))
        while connection in pool._awaited:
            await asyncio.sleep(0.01)
    assert not connection.transport.is_closing(), "it was taken for dead"
    return connection


async def test_a_request_may_take_its_time_to_reach_the_worker() -> None:
    """Of a long prompt, or images, on a slow line the body comes long after the head."""
    async with network(RawEngine(counts)) as net:
        pool = await pool_of(net)
        request = (await engine_of(net, "gpu0")).post_to("/tokenize", QUESTION)
        first, rest = request[:-9], request[-9:]
        asked: asyncio.Task[Any] = asyncio.create_task(fetch(pool, first, timeout_s=WAIT_S))
        connection = await sign_on(pool)
        connection.transport.write(rest)
        assert await asked == (200, b'{"count": 3}')


async def test_a_count_may_take_its_time() -> None:
    go_on = asyncio.Event()

    async def handler(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await counts(request, writer)

    engine = RawEngine(handler)
    async with network(engine) as net:
        pool = await pool_of(net)
        request = (await engine_of(net, "gpu0")).post_to("/tokenize", QUESTION)
        asked: asyncio.Task[Any] = asyncio.create_task(fetch(pool, request, timeout_s=WAIT_S))
        await sign_on(pool)
        go_on.set()
        assert await asked == (200, b'{"count": 3}')
        assert len(engine.requests) == 1


async def test_a_worker_leaves_it_to_the_proxy_how_slow_a_client_may_be() -> None:
    """A proxy whose client is slow takes nothing for as long; its kernel answers, so it is there."""
    async with network(RawEngine(counts)) as net:
        at_proxy = (await pool_of(net))._idle[0].transport
        worker = net.workers["gpu0"]
        (link,) = worker.links
        async with asyncio.timeout(WAIT_S):
            while (
                not link.tunnels.downstream.connections
            ):  # it is told of a moment later than the proxy
                await asyncio.sleep(0.001)
        at_worker = next(iter(link.tunnels.downstream.connections)).transport
        for transport, user_timeout_ms in ((at_proxy, 20_000), (at_worker, 0)):
            sock: socket.socket = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert told == user_timeout_ms
        assert link.tunnels.downstream.limits.client_stall_s >= worker.settings.request_s


async def test_reports_of_an_earlier_process_do_not_wait_for_an_engine() -> None:
    """It may not come back, and tickets end."""
    report = dict.fromkeys(("prompt", "cached", "completion", "reasoning"), 1)
    told = json.dumps(report | {"id": "req_1", "ticket": "forged", "outcome": "completed"})
    async with network() as net:
        nowhere = ["http://127.0.0.1:9"]
        worker = await net.join("gpu", wait=False, engines=nowhere)
        worker.outbox.add(worker.settings.proxies[0], told)
        async with asyncio.timeout(WAIT_S):
            while len(worker.outbox):
                await asyncio.sleep(0.01)
        assert not worker.links[0].joined
