"""Tunnels on which nobody answers any more: what was sent there goes elsewhere."""

import asyncio

import pytest
from tests.integration.harness import Puppet, RawEngine, says
from tests.integration.messages import CHAT, completion, json_answer, post
from tests.integration.network import Fake, engine_of, network

from filature.relay.upstream import UpstreamConnection
from filature.worker.app import Worker

HI = json_answer(completion("hi", 3, 2))
BUSY = b"HTTP/1.1 503 Full\r\nx-filature-busy: 1\r\ncontent-length: 0\r\n\r\n"


async def test_a_dead_tunnel_is_noticed_within_two_seconds() -> None:
    """A worker whose connections are there and silent: what NAT leaves of them."""
    alive = RawEngine(says(HI))
    async with network() as net:
        dead = await Fake.join(net, "dead", coefficient=1)
        await net.join("alive", alive)
        await asyncio.sleep(0.15)
        answer = await net.chain.ask(post(CHAT))
        assert answer.status == 200
        assert dead.requests == 1, "the next one of its connections was waited for, too"
        assert (await engine_of(net, "dead")).failures == 1
        record = await net.chain.only_usage()
        assert (record["engine"], record["tries"]) == ("alive", 2)
        (kept,) = net.chain.proxy.usage._records.values()
        assert not kept.sent_again, "not to the one that answered"
        await dead.close()


@pytest.mark.parametrize("others", [0, 1])
async def test_where_no_other_worker_has_room_another_tunnel_is_tried(others: int) -> None:
    puppet = Puppet()
    async with network(RawEngine(says(HI))) as net:
        for number in range(others):  # full by a request of another's
            await net.join(f"full{number}", puppet, max_requests=1, coefficient=1)
        await asyncio.sleep(0.15)
        clients = [await net.chain.connect() for _ in range(others)]
        for client in clients:
            client.send(post(CHAT))
            call = await puppet.call()
        engine = await engine_of(net, "gpu0")
        silence(net.workers["gpu0"], engine.pool._idle[-1])
        answer = await net.chain.ask(post(CHAT))
        assert (answer.status, engine.asked, engine.failures) == (200, 1, 0)
        for client in clients:
            call.end(HI)
            assert (await client.answer()).status == 200


async def test_what_was_sent_again_to_the_same_worker_is_known_as_such() -> None:
    """A worker whose first connection is dead: it may have read the request, and may report that answer, too."""

    class Late(Fake):
        """Says nothing on the connection that is asked first."""

        async def _answer(self, writer: asyncio.StreamWriter) -> None:
            if self.requests > 1:
                writer.write(HI)

    async with network() as net:
        worker = await Late.join(net, "late", coefficient=1)
        assert (await net.chain.ask(post(CHAT))).status == 200
        assert (await net.chain.ask(post(CHAT))).status == 200
        assert worker.requests == 3
        known = [each.sent_again for each in net.chain.proxy.usage._records.values()]
        assert known == [True, False]
        await worker.close()


async def test_what_was_sent_again_stays_known_where_the_worker_is_busy_then() -> None:
    """As one that stood still, and has as many requests as it takes when it goes on."""

    class Full(Fake):
        """Says nothing on the connection that is asked first, and has no room at the second question."""

        async def _answer(self, writer: asyncio.StreamWriter) -> None:
            if self.requests > 1:
                writer.write(BUSY if self.requests == 2 else HI)

    async with network() as net:
        worker = await Full.join(net, "full", coefficient=1)
        assert (await net.chain.ask(post(CHAT))).status == 200
        assert worker.requests == 3
        (kept,) = net.chain.proxy.usage._records.values()
        assert kept.sent_again
        await worker.close()


def silence(worker: Worker, tunnel: UpstreamConnection) -> None:
    """The worker takes nothing from a tunnel any more."""
    port = tunnel.transport.get_extra_info("peername")[1]
    for connection in worker.links[0].tunnels.downstream.connections:
        if connection.transport.get_extra_info("sockname")[1] == port:
            connection.transport.pause_reading()
            return
    raise AssertionError("it is no tunnel of this worker")
