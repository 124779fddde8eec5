"""Going down: running answers finish within the grace period, nothing new begins, nobody is cut off."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.integration.harness import WAIT_S, Call, Chain, Client, Puppet, RawEngine, chain, says
from tests.integration.messages import (
    CHAT,
    DONE,
    LAST_CHUNK,
    STREAM,
    STREAM_HEAD,
    chunked,
    completion,
    delta,
    get,
    json_answer,
    post,
)

from filature.proxy.app import Proxy, serve
from filature.proxy.settings import ProxySettings

HI = json_answer(completion("hi"))
LONG_S = 60.0
"""To drain: longer than a test waits."""


async def streaming(c: Chain, puppet: Puppet) -> tuple[Client, Call]:
    """A client in the middle of its stream."""
    client = await c.connect()
    client.send(post(STREAM))
    call = await puppet.call()
    call.send(STREAM_HEAD, chunked(delta("a")))
    await client.head()
    assert await client.chunk() == delta("a")
    return client, call


async def body_of(client: Client) -> bytes:
    body = b""
    while chunk := await client.chunk():
        body += chunk
    return body


async def test_a_running_stream_finishes_and_then_its_connection_closes() -> None:
    puppet = Puppet()
    async with chain(puppet, drain_s=LONG_S) as c:
        client, call = await streaming(c, puppet)
        draining = asyncio.create_task(c.proxy.drain())
        await asyncio.sleep(0.02)
        call.end(chunked(delta("b", finish="stop")), chunked(DONE), LAST_CHUNK)
        assert (await body_of(client)).endswith(DONE)
        assert await client.eof() == b""
        async with asyncio.timeout(WAIT_S):
            await draining
        assert (await c.only_usage())["outcome"] == "completed"


async def test_a_stream_that_begins_to_answer_while_draining_says_that_it_will_close() -> None:
    puppet = Puppet()
    async with chain(puppet, drain_s=5) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        draining = asyncio.create_task(c.proxy.drain())
        await asyncio.sleep(0.02)
        call.end(STREAM_HEAD, chunked(delta("b", finish="stop")), chunked(DONE), LAST_CHUNK)
        answer = await client.answer()
        assert answer.headers["connection"] == "close"
        assert answer.body.endswith(DONE)
        await draining


async def test_a_stream_that_outlives_the_grace_period_is_told() -> None:
    puppet = Puppet()
    async with chain(puppet, drain_s=0.2) as c:
        client, call = await streaming(c, puppet)
        draining = asyncio.create_task(c.proxy.drain())
        body = await body_of(client)
        assert b'"draining"' in body
        assert DONE not in body
        assert await client.eof() == b""
        await draining
        await call.gone()
        record = await c.only_usage()
        assert record["outcome"] == "drained"
        assert record["usage"]["total_cost"] == 0
        call.over.set()


async def test_the_last_words_are_not_lost_when_the_process_closes_at_once() -> None:
    puppet = Puppet()
    async with chain(puppet, drain_s=0) as c:
        client, call = await streaming(c, puppet)
        await c.proxy.drain()
        await c.proxy.close()
        assert b'"draining"' in await body_of(client)
        call.over.set()


async def test_a_request_that_waits_for_its_engine_past_the_grace_period() -> None:
    puppet = Puppet()
    async with chain(puppet, drain_s=0.1) as c:
        client = await c.connect()
        client.send(post(CHAT))
        call = await puppet.call()
        draining = asyncio.create_task(c.proxy.drain())
        answer = await client.answer()
        assert answer.status == 503
        assert answer.json["error"]["code"] == "draining"
        assert answer.headers["retry-after"]
        assert answer.headers["connection"] == "close"
        await draining
        assert (await c.only_usage())["outcome"] == "drained"
        call.over.set()


async def test_idle_connections_close_and_new_ones_are_refused() -> None:
    async with chain(says(HI), drain_s=LONG_S) as c:
        silent, kept = await c.connect(), await c.connect()
        kept.send(post(CHAT))
        assert (await kept.answer()).status == 200
        async with asyncio.timeout(WAIT_S):
            await c.proxy.drain()
        assert await silent.eof() == b""
        assert await kept.eof() == b""
        with pytest.raises(ConnectionRefusedError):
            await c.connect()


async def test_a_request_that_arrives_while_draining_is_refused() -> None:
    engine = RawEngine(says(HI))
    async with chain(engine, drain_s=5) as c:
        client, page, last = [await c.connect() for _ in range(3)]
        request = post(CHAT)
        client.send(request[:30])
        page.send(get("/ready")[:10])
        last.send(get("/health")[:10])
        await asyncio.sleep(0.02)
        draining = asyncio.create_task(c.proxy.drain())
        await asyncio.sleep(0.02)
        client.send(request[30:])
        answer = await client.answer()
        assert answer.status == 503
        assert answer.json["error"]["code"] == "draining"
        assert answer.headers["connection"] == "close"
        assert await client.eof() == b""
        page.send(get("/ready")[10:])
        assert (await page.answer()).status == 503
        last.send(get("/health")[10:])
        assert (await last.answer()).status == 200
        await draining
    assert engine.requests == []


async def test_sigterm_drains_and_a_second_one_ends_at_once(tmp_path: Path) -> None:
    puppet = Puppet()
    await puppet.start()
    try:
        await signalled(puppet, tmp_path)
    finally:
        await puppet.close()


async def signalled(puppet: Puppet, data_dir: Path) -> None:
    for signals in (1, 2):
        settings = ProxySettings(
            engines=[f"{puppet.url}=m"],
            port=0,
            admin_port=0,
            drain_s=LONG_S,
            log_level="error",
            data_dir=data_dir,
        )
        running: asyncio.Future[Proxy] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(settings, running.set_result))
        proxy = await running
        running_chain = Chain(proxy)
        await running_chain.looked()
        client, call = await streaming(running_chain, puppet)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        assert not serving.done()
        if signals == 1:
            call.end(chunked(delta("b", finish="stop")), chunked(DONE), LAST_CHUNK)
            assert (await body_of(client)).endswith(DONE)
        else:
            os.kill(os.getpid(), signal.SIGTERM)
            call.over.set()
        async with asyncio.timeout(WAIT_S):
            await serving
        (record,) = proxy.usage._records.values()
        if signals == 2:  # it was not the client who left
            assert b'"draining"' in await client.eof()
            assert (record.outcome, record.total_cost) == ("drained", 0)
        client.leave()
