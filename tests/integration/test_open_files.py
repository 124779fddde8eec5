"""Where the system lets the process open no more files: nobody else is blamed, and it goes on afterwards."""

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.harness import WAIT_S, Puppet, RawEngine, chain, says
from tests.integration.messages import CHAT, completion, json_answer, post
from tests.integration.network import engine_of, network

WHOLE = json_answer(completion("hi", 3, 2))


@contextmanager
def no_more_files() -> Iterator[None]:
    """The lowest number that a new file could have is the first that it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_an_engine_that_cannot_be_dialled_for_want_of_files_has_not_failed() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        (engine,) = c.proxy.engines.engines
        busy, client = await c.connect(), await c.connect()
        busy.send(post(CHAT))  # on the one connection that is there
        call = await puppet.call()
        with no_more_files():
            client.send(post(CHAT))
            refused = await client.answer()
        assert refused.status == 503
        assert "Too many open files" in refused.json["error"]["message"]
        assert refused.headers["retry-after"] == "1"
        assert (await c.usage(refused.request_id))["outcome"] == "no_engine"
        assert engine.failures == 0
        assert c.proxy.metrics._limits == {"open_files": 1}
        call.end(WHOLE)
        assert (await busy.answer()).status == 200
        client.send(post(CHAT))
        (await puppet.call()).end(WHOLE)
        assert (await client.answer()).status == 200


async def test_workers_leave_clients_the_files_that_are_theirs() -> None:
    async with network(RawEngine(says(WHOLE))) as net:
        workers, metrics = net.chain.proxy.workers, net.chain.proxy.metrics
        workers.tunnels_max = 4
        await net.leave("gpu0")
        await net.join("gpu0", RawEngine(says(WHOLE)))
        async with asyncio.timeout(WAIT_S):
            while "tunnels_max" not in metrics._limits:
                await asyncio.sleep(0.001)
        pool = (await engine_of(net, "gpu0")).pool
        assert 1 <= pool.open_connections <= workers.tunnels_max
        assert (await net.chain.ask(post(CHAT))).status == 200
