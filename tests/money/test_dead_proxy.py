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
from tests.integration.harness import Client
from tests.integration.messages import post
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
from tests.money.process import Filature, running_engine

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


@pytest.mark.parametrize("first", ["retry", "report"])
async def test_an_idempotency_key_is_charged_for_once(first: str, tmp_path: Path) -> None:
    """Whether the client's retry comes first, or the report of what its dead proxy had asked for."""
    slowly = ("--tokens", "60", "--tokens-per-second", "30", "--model", "demo")
    async with running_engine(tmp_path, *slowly) as engine:
        net = Network(tmp_path, engine.url)
        secret = await net.stock(10**9, "gpu", "other")
        proxy = await net.proxy()
        workers = [await net.worker()]
        try:
            await ready(proxy, secret)
            client = await asked(proxy, secret)
            broken = (await client.answer(head_only=True)).request_id
            await asyncio.sleep(0.3)
            await proxy.kill()
            client.leave()
            if first == "retry":
                await ended(workers.pop())
                workers.append(await net.worker("other"))
            proxy = await net.proxy()
            await ready(proxy, secret)
            if first == "report":
                await net.delivered()
            client = await asked(proxy, secret)
            answer = await client.answer()
            client.leave()
            assert answer.status == (200 if first == "retry" else 409)
            outcomes = {each["id"]: each["outcome"] for each in await net.usage()}
            if first == "retry":
                assert outcomes == {broken: "replaced", answer.request_id: "completed"}
                workers.append(await net.worker())
                await net.delivered()
                outcomes = {each["id"]: each["outcome"] for each in await net.usage()}
            assert outcomes[broken] == "reported"
            await net.place.check()
            (charge,) = await asyncio.to_thread(stored_charges, net.database)
            assert charge.id == (answer.request_id if first == "retry" else broken)
            assert await balance(proxy, secret) == (10**9 - charge.amount, 0)
        finally:
            for worker in workers:
                await ended(worker)
            with suppress(ProcessLookupError):
                await proxy.stop()


async def asked(proxy: Filature, secret: str) -> Client:
    """A streamed request, by the same key each time."""
    client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    headers = f"Authorization: Bearer {secret}\r\nIdempotency-Key: once\r\n"
    client.send(post(body, headers=headers))
    return client
