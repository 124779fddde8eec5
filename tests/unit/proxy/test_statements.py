"""When a proxy makes earnings statements, and what they say."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from tests.unit.store.working import rich, serve

from filature.errors import StoreError
from filature.ledger.accounts import worker_account
from filature.ledger.commands import Payout
from filature.proxy import statements
from filature.proxy.statements import STATEMENT_S, StatementDesk
from filature.store.store import Store
from filature.units import Nano, TransferId
from filature.wire.statement import SigningKey, Statement, read_keys

KEY = SigningKey(bytes(range(32)))
WALL_S = 1_800_000_000.75


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = await Store.open(database_url)
    await rich(store)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def desk(store: Store) -> StatementDesk:
    return StatementDesk(store.reader, KEY, lambda: WALL_S)


def read(text: str | None) -> Statement:
    assert text is not None
    return KEY.public.check(text)


async def test_it_says_what_the_account_has(store: Store, desk: StatementDesk) -> None:
    serve(store, "r1", "gpu", 100, fee_bp=1000)
    serve(store, "r2", "other", 7)
    await store.ledger.flush()
    await store.ledger.run(Payout(TransferId("p"), worker_account("gpu"), Nano(40), 1))
    assert desk.of("gpu") is None
    assert desk.of("new") is None
    await desk.make()
    assert read(desk.of("gpu")) == Statement(
        iss=KEY.public.issuer,
        sub="gpu",
        iat=1_800_000_000,
        earned_nano=90,
        paid_nano=40,
        requests=1,
        seq=2,
    )
    assert read(desk.of("new")).owed_nano == 0
    assert desk.of("other") is None  # who has not asked has none


async def test_one_a_minute_of_a_worker_that_asks(
    store: Store, desk: StatementDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    loop = asyncio.get_running_loop()
    desk.of("gpu")
    await desk.make()
    first = desk.of("gpu")
    serve(store, "r1", "gpu", 5)
    await store.ledger.flush()
    await desk.make()
    assert desk.of("gpu") == first
    now = loop.time() + STATEMENT_S
    monkeypatch.setattr(loop, "time", lambda: now)
    await desk.make()
    second = desk.of("gpu")
    assert read(second).earned_nano == 5
    now += STATEMENT_S
    wall_s = WALL_S + 60
    monkeypatch.setattr(desk, "_wall_s", lambda: wall_s)
    await desk.make()
    third = desk._latest["gpu"]
    assert third != second
    now += STATEMENT_S
    wall_s += 60
    await desk.make()  # nobody has asked since
    assert desk._latest["gpu"] == third


async def test_it_goes_on_after_a_failure(
    store: Store,
    desk: StatementDesk,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(statements, "LOOK_S", 0.001)
    read_all, failing = store.reader.read, True

    async def maybe(function: Any) -> Any:
        if failing:
            raise StoreError("No.")
        return await read_all(function)

    monkeypatch.setattr(store.reader, "read", maybe)
    desk.of("gpu")
    running = asyncio.create_task(desk.run())
    try:
        await asyncio.sleep(0.05)
        assert desk.of("gpu") is None
        assert [record.message for record in caplog.records] == [
            "earnings statements stay as they are: No."
        ]
        failing = False
        async with asyncio.timeout(10):
            while desk.of("gpu") is None:
                await asyncio.sleep(0.005)
    finally:
        running.cancel()


def test_the_keys_are_public(desk: StatementDesk) -> None:
    page = desk.keys(None, None)  # type: ignore[arg-type]  # what is asked does not matter
    assert read_keys(page) == [KEY.public]
    assert "d" not in orjson.loads(page)["keys"][0]
