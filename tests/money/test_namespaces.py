"""A worker behind NAT, in network namespaces of the test's own: it serves by TLS, and nobody reaches it.

Then its network is gone for half a minute, under load: packets are dropped, and nobody is told.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from tests.integration.harness import Client
from tests.money.asking import CREDIT, Load, Seen, judge, request_of
from tests.money.namespaces import (
    OPERATOR,
    OWNER,
    ROUTER,
    Namespaces,
    NoNamespaces,
    behind_nat,
)
from tests.money.network import Network, ended
from tests.money.process import WAIT_S, Filature, running_engine

CERTIFICATE: Final = Path(__file__).parents[1] / "data" / "tls" / "cert.pem"
CUT_S: Final = 30.0
TOKENS: Final = 40
ENGINE: Final = ("--tokens", str(TOKENS), "--tokens-per-second", "100", "--model", "demo")
CLIENTS: Final = 8
BEFORE: Final = 40
"""Answers, before the cut and after it."""
UNREACHED_S: Final = 1.0
"""For a connection that is not made."""


@pytest.fixture
def nat() -> Iterator[Namespaces]:
    try:
        with behind_nat() as made:
            yield made
    except NoNamespaces as error:
        pytest.skip(f"no network namespaces: {error}")


@dataclass
class Apart:
    """A proxy on one side, a worker and its engine on the other."""

    nat: Namespaces
    net: Network
    proxy: Filature
    worker: asyncio.subprocess.Process
    engine: Filature
    secret: str

    async def connect(self) -> Client:
        """As a client beside the proxy."""
        sock = self.nat.socket(self.nat.operator)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (OPERATOR, self.net.port))
        trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
        found = await asyncio.open_connection(sock=sock, ssl=trusting, server_hostname=OPERATOR)
        return Client(*found)


@asynccontextmanager
async def apart(directory: Path, nat: Namespaces) -> AsyncIterator[Apart]:
    async with running_engine(directory, *ENGINE, prepare=nat.enter_owner) as engine:
        net = Network(
            directory,
            engine.url,
            host=OPERATOR,
            certificate=CERTIFICATE,
            proxy_side=nat.enter_operator,
            worker_side=nat.enter_owner,
        )
        secret = await net.stock(CREDIT, "gpu")
        proxy = await net.proxy()
        worker = await net.worker()
        try:
            await net.joined("gpu")
            yield Apart(nat, net, proxy, worker, engine, secret)
        finally:
            await ended(worker)
            assert await proxy.stop() == 0, proxy.log.read_text()[-3000:]


async def reached(nat: Namespaces, name: str, port: int, *, at: str) -> bool:
    """Whether somebody in a namespace can connect to an address."""
    with nat.socket(name) as sock:
        sock.setblocking(False)
        try:
            async with asyncio.timeout(UNREACHED_S):
                await asyncio.get_running_loop().sock_connect(sock, (at, port))
        except OSError:  # a TimeoutError is one
            return False
        return True


async def test_a_worker_that_nobody_can_connect_to_serves(tmp_path: Path, nat: Namespaces) -> None:
    async with apart(tmp_path, nat) as each:
        seen = Seen()
        for stream in (False, True):
            client = await each.connect()
            client.send(request_of(each.secret, TOKENS, stream=stream))
            answer = await client.answer()
            seen.note(answer)
            client.leave()
            assert b'"completion_tokens":%d' % TOKENS in answer.body
        assert len(seen.told) == 2, "answered with usage and cost"
        assert min(seen.told.values()) > 0
        await judge(each.net, each.connect, each.secret, seen)
        # nothing listens there but the engine, and that for its own machine only
        listening = nat.run(nat.owner, "ss", "-Hltn").split()
        assert [word for word in listening if ":" in word][::2] == [f"127.0.0.1:{each.engine.port}"]
        # and what would listen is not reached from outside, though it is from its own side of the router
        with nat.socket(nat.owner) as open_door:
            open_door.bind((OWNER, 0))
            open_door.listen()
            port = open_door.getsockname()[1]
            assert await reached(nat, nat.router, port, at=OWNER)
            assert not await reached(nat, nat.operator, port, at=OWNER)
            assert not await reached(nat, nat.operator, port, at=ROUTER)


async def test_half_a_minute_without_a_network(tmp_path: Path, nat: Namespaces) -> None:
    """Nothing is restarted: it goes on by itself, and the reports of what broke off arrive."""
    async with apart(tmp_path, nat) as each:
        load = Load(each.connect, each.secret, tokens=TOKENS, clients=CLIENTS)
        await load.answered(BEFORE)
        await load.streaming(2)
        nat.cut()
        await asyncio.sleep(CUT_S)
        answered = len(load.seen.told)
        nat.mend()
        await load.answered(BEFORE)
        seen = await load.stop()
        assert seen.broken, "the cut was not noticed"
        assert answered < BEFORE + 3 * CLIENTS, "there was no cut"
        assert each.worker.returncode is None
        async with asyncio.timeout(WAIT_S):
            while each.net.unacknowledged():
                await asyncio.sleep(0.1)
        await judge(each.net, each.connect, each.secret, seen)
        print(  # noqa: T201 - what was seen is worth knowing
            f"\n{seen.sent} requests: {len(seen.told)} answered, {len(seen.broken)} broken off, "
            f"refused: {sorted(seen.refused.values())}"
        )
