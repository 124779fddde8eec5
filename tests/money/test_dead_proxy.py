"""A proxy whose answers come from a worker is killed in the middle of them: the worker's reports settle what was open.

Each client that had received a complete answer is charged for it, once. What broke off is charged as the
worker metered it until then, once, and the worker's outbox is empty in the end.
"""

import asyncio
import json
import random
import socket
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.money.process import Filature, Installation, environment, running_engine
from tests.money.test_kills import (
    CREDIT,
    TOKENS,
    Book,
    balance,
    load,
    ready,
    stored_charges,
)

KILLS: Final = 12
ENGINE: Final = ("--tokens", str(TOKENS), "--tokens-per-second", "200", "--model", "demo")
WAIT_S: Final = 30.0


class Network:
    """One proxy at a port of its own, and one worker, as processes."""

    def __init__(self, directory: Path, engine_url: str) -> None:
        self.directory = directory
        self.engine_url = engine_url
        self.place = Installation(directory, engine_url)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: int = taken.getsockname()[1]
        self.token = ""

    async def proxy(self) -> Filature:
        words = ("proxy", "--port", str(self.port), "--admin-port", "0")
        log = self.directory / "proxy.log"
        return await Filature.start(*words, log=log, prepare=None, **self.place.settings)

    async def worker(self) -> asyncio.subprocess.Process:
        words = ("--proxy", f"http://127.0.0.1:{self.port}", "--token", self.token)
        more = ("--engine", self.engine_url, "--data-dir", str(self.directory / "worker"))
        with (self.directory / "worker.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "filature.cli.main", "worker", *words, *more),
                stdout=log,
                stderr=log,
                env=environment(),
            )

    async def make_token(self) -> None:
        status, said, errors = await self.place.run("worker-token", "create", "gpu", "--json")
        assert status == 0, errors
        self.token = json.loads(said)["secret"]

    def unacknowledged(self) -> int:
        """Reports that are still in the worker's outbox."""
        connection = sqlite3.connect(self.directory / "worker" / "outbox.db", timeout=5)
        try:
            (count,) = connection.execute("SELECT count(*) FROM reports").fetchone()
        finally:
            connection.close()
        assert isinstance(count, int)
        return count

    async def delivered(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.unacknowledged():
                await asyncio.sleep(0.1)


async def test_what_was_open_is_settled_by_its_report(
    tmp_path: Path, chance: random.Random
) -> None:
    book = Book()
    url = f"sqlite:///{tmp_path / 'data' / 'filature.db'}"
    async with running_engine(tmp_path, *ENGINE) as engine:
        net = Network(tmp_path, engine.url)
        secret = await net.place.customer(CREDIT)
        await net.make_token()
        proxy = await net.proxy()
        worker = await net.worker()
        try:
            for number in range(KILLS):
                await ready(proxy, secret)
                await load(proxy, secret, book, chance)
                if number % 4 == 3:  # both are gone: what the worker knew is on its disk
                    await asyncio.sleep(0.3)
                    worker.kill()
                    await worker.wait()
                    worker = await net.worker()
                proxy = await net.proxy()
                await net.place.check()
            await ready(proxy, secret)
            await asyncio.sleep(1.5)
            await net.delivered()
            await net.place.check()
            charges = await asyncio.to_thread(stored_charges, url)
            paid = {str(charge.id): charge.amount for charge in charges}
            assert len(paid) == len(charges), "charged twice"
            lost = {name: told for name, told in book.told.items() if paid.get(name) != told}
            assert not lost, f"complete answers that are not charged as told: {lost}"
            price = next(iter(book.told.values()))
            assert set(book.told.values()) == {price}
            assert max(paid.values()) <= price, "more than a whole answer costs"
            left = int(CREDIT) * 10**9 - sum(paid.values())
            assert await balance(proxy, secret) == (left, 0)
            settled = await reported(net)
            assert settled > 0, "no kill left an open request"
            assert len(book.told) > KILLS
        finally:
            with suppress(ProcessLookupError):
                worker.terminate()
                await worker.wait()
            with suppress(ProcessLookupError):
                status = await proxy.stop()
        assert status == 0, proxy.log.read_text()[-3000:]
        print(  # noqa: T201 - what was seen is worth knowing
            f"\n{KILLS} kills: {book.sent} requests, {len(book.told)} answered whole and charged, "
            f"{book.broken} broken off, {settled} settled by reports"
        )


async def reported(net: Network) -> int:
    """How many requests were settled by a report."""
    words = ("usage", "list", "--outcome", "reported", "--limit", "10000", "--json")
    status, said, errors = await net.place.run(*words)
    assert status == 0, errors
    return len(json.loads(said)["data"])
