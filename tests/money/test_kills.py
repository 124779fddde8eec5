"""The proxy is killed at random moments under load, again and again, and nothing is lost or charged twice.

The load is of every dialect, streamed and not. After each restart the ledger is sound, and each client
that had received a complete answer is charged for it, once. Of what was running nothing is held, and
nobody pays more than was told.
"""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from tests.integration.messages import cost
from tests.money.load import ASKED, CREDIT, TOKENS, Book, balance, load, ready, stored_charges
from tests.money.process import Filature, Installation, running_engine

KILLS: Final = {"sqlite": 50, "postgresql": 10}
ENGINE: Final = ("--tokens", str(TOKENS), "--tokens-per-second", "500", "--model", "demo")


async def judge(proxy: Filature, secret: str, book: Book, url: str) -> None:
    """After a restart."""
    charges = await asyncio.to_thread(stored_charges, url)
    times = Counter(str(charge.id) for charge in charges)
    assert all(count == 1 for count in times.values()), "charged twice"
    paid = {str(charge.id): charge.amount for charge in charges}
    lost = {request: told for request, told in book.told.items() if paid.get(request) != told}
    assert not lost, f"complete answers that are not charged as told: {lost}"
    assert max(paid.values()) <= max(book.prices.values())
    left = int(CREDIT) * 10**9 - sum(paid.values())
    assert await balance(proxy, secret) == (left, 0)


@pytest.mark.parametrize("kind", KILLS)
async def test_what_was_told_is_charged_once_whenever_the_proxy_is_killed(
    kind: str, tmp_path: Path, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    database = None
    if kind == "postgresql":
        database = request.getfixturevalue("empty_postgres_url")
    url = database or f"sqlite:///{tmp_path / 'data' / 'filature.db'}"
    book = Book()
    async with running_engine(tmp_path, *ENGINE) as engine:
        place = Installation(tmp_path, engine.url, database)
        secret = await place.customer(CREDIT)
        proxy = await place.up()
        try:
            for _ in range(KILLS[kind]):
                before = len(book.told)
                await ready(proxy, secret)
                await load(proxy, secret, book, chance)
                proxy = await place.up()
                await place.check()
                if len(book.told) > before:
                    await judge(proxy, secret, book, url)
        finally:
            with suppress(ProcessLookupError):
                status = await proxy.stop()
        assert status == 0, proxy.log.read_text()[-3000:]
        assert len(book.told) > 10 * KILLS[kind], "there was no load"
        assert book.broken > 0
        assert book.prices.keys() == ASKED.keys()
        charges = await asyncio.to_thread(stored_charges, url)
        print(  # noqa: T201 - what was seen is worth knowing
            f"\n{kind}: {KILLS[kind]} kills; {book.sent} requests, {len(book.told)} answered whole and "
            f"charged, {book.left} left by their clients, {book.broken} broken off; "
            f"{len(charges) - len(book.told)} charges of answers that did not arrive whole, at most "
            f"{cost(0, 0) + max(book.told.values())} nano-credits each"
        )
