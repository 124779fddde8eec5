"""Workers before a proxy, all in one process, over real sockets. Beside ``harness.py``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from pydantic import SecretStr
from tests.integration.accounts import sound, store_of
from tests.integration.harness import WAIT_S, Chain, Handler, RawEngine, chain
from tests.integration.messages import get, post

from filature.wire import control
from filature.worker.app import Worker
from filature.worker.settings import WorkerSettings


class Network:
    """A proxy with no engine of its own, and the workers that joined it."""

    def __init__(self, c: Chain, stack: AsyncExitStack) -> None:
        self.chain = c
        self.scheme = "http" if c.proxy.settings.tls_cert is None else "https"
        self.workers: dict[str, Worker] = {}
        self._stack = stack
        self._secrets: dict[str, str] = {}

    async def token(self, name: str, models: frozenset[str] | None = None) -> str:
        if name not in self._secrets:
            secret, _ = await store_of(self.chain).worker_tokens.create(name, models)
            self._secrets[name] = secret
        return self._secrets[name]

    async def join(
        self, name: str, *engines: RawEngine | Handler, wait: bool = True, **settings: Any
    ) -> Worker:
        """Start a worker before engines, which are started where they are not, and wait until it is ready."""
        raw = [each if isinstance(each, RawEngine) else RawEngine(each) for each in engines]
        for engine in raw:
            if not hasattr(engine, "url"):
                await engine.start()
                self._stack.push_async_callback(engine.close)
        data_dir = Path(self._stack.enter_context(TemporaryDirectory(prefix="filature-worker-")))
        given: dict[str, Any] = {
            "proxies": [f"{self.scheme}://127.0.0.1:{self.chain.proxy.port}"],
            "token": SecretStr(await self.token(name)),
            "engines": [engine.url + engine.suffix for engine in raw],
            "data_dir": data_dir,
            "drain_s": 0.2,
            "log_level": "error",
            **settings,
        }
        worker = Worker(WorkerSettings(**given))
        self.workers[name] = worker
        self._stack.push_async_callback(self.leave, name)
        await worker.start()
        if wait:
            await self.ready(name)
        return worker

    async def ready(self, name: str) -> None:
        """Until requests can be sent to the worker."""
        async with asyncio.timeout(WAIT_S):
            while True:
                known = self.chain.proxy.workers.get(name)
                if (
                    known is not None
                    and known.instance == self.workers[name].instance
                    and known.engine.models
                    and known.pool.idle_connections
                ):
                    return
                await asyncio.sleep(0.005)

    async def leave(self, name: str) -> None:
        """Stop a worker at once."""
        worker = self.workers.pop(name, None)
        if worker is not None:
            await worker.close()


@asynccontextmanager
async def network(
    *engines: RawEngine | Handler, own: tuple[RawEngine, ...] = (), **settings: Any
) -> AsyncIterator[Network]:
    """A proxy and a worker ``gpu0``, ``gpu1``, … before each of the engines; the ledger is sound afterwards.

    ``own``: engines that the proxy calls itself.
    """
    async with chain(*own, **settings) as c, AsyncExitStack() as stack:
        net = Network(c, stack)
        for number, engine in enumerate(engines):
            await net.join(f"gpu{number}", engine)
        yield net
        await sound(c)


async def engine_of(net: Network, name: str) -> Any:
    """The worker as the proxy sees it."""
    worker = net.chain.proxy.workers.get(name)
    assert worker is not None
    return worker.engine


class Fake:
    """A worker that a test plays: it says hello, dials, and answers as it is told, or not at all."""

    def __init__(self, net: Network, token: str, said: bytes) -> None:
        self.port = net.chain.proxy.port
        self.token = token
        self.said = said
        self.instance = "0123456789abcdef"
        self.hello = b""
        """As it was sent."""
        self.requests = 0
        self.heard = b""
        """All that came down its connections."""
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def join(cls, net: Network, name: str, *, coefficient: int, says: bytes = b"") -> Self:
        fake = cls(net, await net.token(name), says)
        standing = {
            "instance": fake.instance,
            "models": [{"id": "m", "coefficient": coefficient}],
            "capacity": 8,
        }
        auth = f"Authorization: Bearer {fake.token}\r\n"
        fake.hello = post(standing, control.HELLO_PATH, headers=auth)
        answer = await net.chain.ask(fake.hello)
        assert answer.status == 200, answer.body
        for _ in range(3):
            fake._tasks.append(asyncio.create_task(fake._tunnel()))
        worker = net.chain.proxy.workers.get(name)
        assert worker is not None
        async with asyncio.timeout(5):
            while worker.pool.idle_connections < 3:
                await asyncio.sleep(0.001)
        return fake

    def upgrade(self) -> bytes:
        lines = (
            f"Authorization: Bearer {self.token}\r\n{control.INSTANCE_HEADER}: {self.instance}\r\n"
            f"Connection: upgrade\r\nUpgrade: {control.TUNNEL_PROTOCOL}\r\n"
        )
        return get(control.TUNNEL_PATH, headers=lines)

    async def _tunnel(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(self.upgrade())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        try:
            while data := await reader.read(65536):
                self.requests += 1
                self.heard += data
                await self._answer(writer)
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self.said)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
