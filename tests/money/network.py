"""A proxy and workers that join it as processes of their own, which a test may kill."""

import asyncio
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.money.process import WAIT_S, Filature, Installation, environment

from filature.ledger.accounts import client_account
from filature.ledger.commands import OpenAccount, TopUp
from filature.proxy.settings import DATABASE_FILE
from filature.store.keys import KeyLimits
from filature.store.store import Store
from filature.units import Nano, TransferId

DELIVERED_S: Final = 30.0
Prepare = Callable[[], None]
"""Runs first in a new process."""


class Network:
    """One proxy at a port of its own, and workers. ``database``: None for a file of its own.
    ``certificate``: of the proxy's, with ``key.pem`` beside it; None: no TLS.

    ``proxy_side`` and ``worker_side``: what their processes do first, where they run elsewhere.
    """

    def __init__(
        self,
        directory: Path,
        engine_url: str,
        *,
        database: str | None = None,
        host: str = "127.0.0.1",
        certificate: Path | None = None,
        proxy_side: Prepare | None = None,
        worker_side: Prepare | None = None,
    ) -> None:
        self.directory = directory
        self.engine_url = engine_url
        self.host = host
        self.certificate = certificate
        self.place = Installation(directory, engine_url, database)
        self.place.prepare = proxy_side
        if certificate is not None:
            key = certificate.with_name("key.pem")
            self.place.settings |= {"tls_cert": str(certificate), "tls_key": str(key)}
        self.worker_side = worker_side
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: int = taken.getsockname()[1]
        self.tokens: dict[str, str] = {}
        self._logged: dict[str, int] = {}

    async def proxy(self) -> Filature:
        words = ("proxy", "--host", self.host, "--port", str(self.port), "--admin-port", "0")
        log, prepare = self.directory / "proxy.log", self.place.prepare
        return await Filature.start(*words, log=log, prepare=prepare, **self.place.settings)

    async def worker(
        self, name: str = "gpu", *more: str, engine_url: str = ""
    ) -> asyncio.subprocess.Process:
        """Start one that has a token. ``more`` are options of its own."""
        place = self.directory / name
        tls = self.certificate is not None
        url = f"{'https' if tls else 'http'}://{self.host}:{self.port}"
        words = ["--proxy", url, "--token", self.tokens[name]]
        words += ["--proxy-ca", str(self.certificate)] if tls else []
        here = ("--engine", engine_url or self.engine_url, "--data-dir", str(place))
        with (self.directory / f"{name}.log").open("ab") as log:
            self._logged[name] = log.tell()
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "filature", "worker", *words, *here, *more),
                stdout=log,
                stderr=log,
                env=environment(),
                preexec_fn=self.worker_side,
            )

    async def make_token(self, name: str = "gpu") -> None:
        self.tokens[name] = (await self.place.ask("worker-token", "create", name))["secret"]

    async def stock(self, credit: int, *workers: str) -> str:
        """What commands would make before there is a proxy, in less time: tokens, and a customer, whose key it is."""
        self.data_dir.mkdir(mode=0o700)
        store = await Store.open(self.database)
        account = client_account("alice")
        await store.ledger.run(OpenAccount(account))
        await store.ledger.run(TopUp(TransferId("first"), account, Nano(credit), 1))
        secret, _ = await store.keys.create(account, "test", KeyLimits())
        for name in workers:
            self.tokens[name], _ = await store.worker_tokens.create(name, None)
        await store.close()
        return secret

    @property
    def data_dir(self) -> Path:
        return Path(self.place.settings["data_dir"])

    @property
    def database(self) -> str:
        file = f"sqlite:///{self.data_dir / DATABASE_FILE}"
        return self.place.settings.get("database", file)

    async def joined(self, *names: str) -> None:
        """Wait until the latest process of each of the workers says so."""
        async with asyncio.timeout(WAIT_S):
            for name in names:
                log = self.directory / f"{name}.log"
                while b"joined " not in log.read_bytes()[self._logged[name] :]:
                    await asyncio.sleep(0.05)

    async def usage(self, *options: str) -> list[dict[str, Any]]:
        """The usage records that are stored."""
        words = ("usage", "list", "--limit", "10000", *options)
        found: list[dict[str, Any]] = (await self.place.ask(*words))["data"]
        return found

    def unacknowledged(self, name: str = "gpu") -> int:
        """Reports that are still in the worker's outbox."""
        connection = sqlite3.connect(self.directory / name / "outbox.db", timeout=5)
        try:
            (count,) = connection.execute(
                "SELECT coalesce(sum(number), 0) FROM report_batches"
            ).fetchone()
        finally:
            connection.close()
        assert isinstance(count, int)
        return count

    async def delivered(self, name: str = "gpu") -> None:
        async with asyncio.timeout(DELIVERED_S):
            while self.unacknowledged(name):
                await asyncio.sleep(0.1)


async def ended(worker: asyncio.subprocess.Process, *, kill: bool = False) -> None:
    """Stop a worker, and wait until it is gone."""
    with suppress(ProcessLookupError):
        worker.kill() if kill else worker.terminate()
    async with asyncio.timeout(WAIT_S):
        await worker.wait()
