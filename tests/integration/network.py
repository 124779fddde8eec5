"""Workers before a proxy, all in one process, over real sockets. Beside ``harness.py``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import SecretStr
from tests.integration.accounts import sound, store_of
from tests.integration.harness import WAIT_S, Chain, Handler, RawEngine, chain

from filature.worker.app import Worker
from filature.worker.settings import WorkerSettings


class Network:
    """A proxy with no engine of its own, and the workers that joined it."""

    def __init__(self, c: Chain, stack: AsyncExitStack) -> None:
        self.chain = c
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
            "proxies": [f"http://127.0.0.1:{self.chain.proxy.port}"],
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
async def network(*engines: RawEngine | Handler, **settings: Any) -> AsyncIterator[Network]:
    """A proxy and one worker ``gpu`` before each of the engines; the ledger is sound afterwards."""
    async with chain(wait=False, **settings) as c, AsyncExitStack() as stack:
        net = Network(c, stack)
        for number, engine in enumerate(engines):
            await net.join(f"gpu{number}", engine)
        yield net
        await sound(c)
