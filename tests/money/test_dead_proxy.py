"""A proxy whose answers come from a worker is killed in the middle of them: the worker's reports settle what was open.

Each client that had received a complete answer is charged for it, once. What broke off is charged as the
worker metered it until then, once, and the worker's outbox is empty in the end.
"""

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from tests.money.load import (
    CREDIT,
    TOKENS,
    Book,
    balance,
    load,
    ready,
    stored_charges,
)
from tests.money.network import Network, ended
from tests.money.process import running_engine

KILLS: Final = {"sqlite": 12, "postgresql": 6}
ENGINE: Final = ("--tokens", str(TOKENS), "--tokens-per-second", "200", "--model", "demo")


@pytest.mark.parametrize("kind", KILLS)
async def test_what_was_open_is_settled_by_its_report(
    kind: str, tmp_path: Path, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    database = None
    if kind == "postgresql":
        database = request.getfixturevalue("empty_postgres_url")
    book = Book()
    async with running_engine(tmp_path, *ENGINE) as engine:
        net = Network(tmp_path, engine.url, database=database)
        secret = await net.place.customer(CREDIT)
        await net.make_token()
        proxy = await net.proxy()
        worker = await net.worker()
        try:
            for number in range(KILLS[kind]):
                await ready(proxy, secret)
                await load(proxy, secret, book, chance)
                if number % 4 == 3:  # both are gone: what the worker knew is on its disk
                    await asyncio.sleep(0.3)
                    await ended(worker, kill=True)
                    worker = await net.worker()
                proxy = await net.proxy()
                await net.place.check()
            await ready(proxy, secret)
            await asyncio.sleep(1.5)
            await net.delivered()
            await net.place.check()
            charges = await asyncio.to_thread(stored_charges, net.database)
            paid = {str(charge.id): charge.amount for charge in charges}
            assert len(paid) == len(charges), "charged twice"
            lost = {name: told for name, told in book.told.items() if paid.get(name) != told}
            assert not lost, f"complete answers that are not charged as told: {lost}"
            dearest = max(book.prices.values())
            assert max(paid.values()) <= dearest, "more than a whole answer costs"
            left = int(CREDIT) * 10**9 - sum(paid.values())
            assert await balance(proxy, secret) == (left, 0)
            settled = len(await net.usage("--outcome", "reported"))
            assert settled > 0, "no kill left an open request"
            assert len(book.told) > KILLS[kind]
        finally:
            await ended(worker)
            with suppress(ProcessLookupError):
                status = await proxy.stop()
        assert status == 0, proxy.log.read_text()[-3000:]
        print(  # noqa: T201 - what was seen is worth knowing
            f"\n{kind}: {KILLS[kind]} kills: {book.sent} requests, {len(book.told)} answered whole and charged, "
            f"{book.broken} broken off, {settled} settled by reports"
        )
