"""Stored usage records: found, listed, added up and let go of, alike on both databases."""

import asyncio
from threading import Event
from typing import Any

import orjson
import pytest
from sqlalchemy import insert

from filature.errors import InvalidRequest, StoreError
from filature.ledger.accounts import client_account
from filature.store import usage
from filature.store.reader import READERS_MAX
from filature.store.schema import usage_records
from filature.store.store import Store
from filature.store.usage import LIST_MAX, UsageLog
from filature.units import NANO_MAX, AccountId

ALICE, BOB = client_account("alice"), client_account("bob")
DAY_MS = 86_400_000


@pytest.fixture
def log(store: Store) -> UsageLog:
    return store.usage


def row(
    id_: str,
    started_ms: int,
    cost: int = 0,
    account: AccountId = ALICE,
    model: str = "m",
    outcome: str = "completed",
) -> dict[str, Any]:
    record = orjson.dumps({"id": id_, "model": model, "total_cost": cost}).decode()
    return {
        "id": id_,
        "account": account,
        "key_id": None,
        "started_ms": started_ms,
        "model": model,
        "outcome": outcome,
        "total_cost": cost,
        "record": record,
    }


async def stored(store: Store, *rows: dict[str, Any]) -> None:
    await store.writer.execute(insert(usage_records).values(list(rows)))


async def ids(log: UsageLog, **asked: Any) -> list[str]:
    records, _ = await log.list(**asked)
    return [record["id"] for record in records]


async def test_one_is_found_with_its_account(store: Store) -> None:
    given = row("r", 1, 7, BOB, "模型")
    await stored(store, given)
    assert await store.usage.get("r") == (BOB, given["record"].encode())


@pytest.mark.parametrize("request_id", ["s", "", "R", "r\0", "\ud800"])
async def test_others_are_not(store: Store, request_id: str) -> None:
    await stored(store, row("r", 1))
    assert await store.usage.get(request_id) is None


async def test_a_database_that_does_not_answer_keeps_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "CALL_S", 0.05)
    answers = Event()
    hanging = [
        asyncio.create_task(store.reader.read(lambda _: answers.wait())) for _ in range(READERS_MAX)
    ]
    try:
        with pytest.raises(StoreError, match="in time"):
            await asyncio.wait_for(store.usage.get("req_1"), 30)
    finally:
        answers.set()
    await asyncio.gather(*hanging)


class TestLists:
    @pytest.fixture(autouse=True)
    async def records(self, store: Store) -> None:
        await stored(
            store,
            row("a", 10),
            row("b", 20, account=BOB),
            row("c", 20, model="n"),
            row("d", 30, outcome="client_gone"),
        )

    @pytest.mark.parametrize(
        ("asked", "found"),
        [
            ({}, "dcba"),  # the latest first; what began at the same time by its id
            ({"limit": 2}, "dc"),
            ({"account": ALICE}, "dca"),
            ({"account": client_account("nobody")}, ""),
            ({"model": "n"}, "c"),
            ({"outcome": "client_gone"}, "d"),
            ({"since_ms": 20}, "dcb"),
            ({"until_ms": 20}, "a"),
            ({"since_ms": 20, "until_ms": 30}, "cb"),
            ({"account": ALICE, "model": "m", "outcome": "completed", "since_ms": 5}, "a"),
        ],
    )
    async def test_what_is_asked_for(
        self, log: UsageLog, asked: dict[str, Any], found: str
    ) -> None:
        assert await ids(log, **asked) == list(found)

    @pytest.mark.parametrize("limit", [0, -1, LIST_MAX + 1])
    async def test_they_are_bounded(self, log: UsageLog, limit: int) -> None:
        with pytest.raises(InvalidRequest) as refused:
            await log.list(limit=limit)
        assert refused.value.param == "limit"


class TestSums:
    @pytest.fixture(autouse=True)
    async def records(self, store: Store) -> None:
        await stored(
            store,
            row("a", DAY_MS - 1, 5),
            row("b", DAY_MS, 7, BOB),
            row("c", DAY_MS + 1, 11, model="n"),
            row("d", 2 * DAY_MS, 0, outcome="engine_failed"),
        )

    async def test_groups(self, log: UsageLog) -> None:
        assert await log.sums("account") == [(ALICE, 3, 16), (BOB, 1, 7)]
        assert await log.sums("model") == [("m", 3, 12), ("n", 1, 11)]
        assert await log.sums("outcome") == [("completed", 3, 23), ("engine_failed", 1, 0)]
        assert await log.sums("day") == [(0, 1, 5), (1, 2, 18), (2, 1, 0)]

    async def test_some_of_them(self, log: UsageLog) -> None:
        assert await log.sums("day", account=ALICE) == [(0, 1, 5), (1, 1, 11), (2, 1, 0)]
        assert await log.sums("account", since_ms=DAY_MS, until_ms=DAY_MS + 1) == [(BOB, 1, 7)]
        assert await log.sums("model", since_ms=10 * DAY_MS) == []

    async def test_sums_are_exact_integers(self, store: Store) -> None:
        await stored(store, row("e", 9 * DAY_MS, NANO_MAX - 1), row("f", 9 * DAY_MS, 1))
        ((name, count, cost),) = await store.usage.sums("day", since_ms=9 * DAY_MS)
        assert (name, count, cost) == (9, 2, NANO_MAX)
        assert type(cost) is type(name) is int


class TestPurging:
    async def test_older_ones_go_some_at_a_time(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(usage, "PURGED_AT_ONCE", 2)
        await stored(store, *(row(f"r{number}", number) for number in range(6)))
        assert [await store.usage.purge(5) for _ in range(4)] == [2, 2, 1, 0]
        assert await ids(store.usage) == ["r5"]

    async def test_nothing_is_old(self, store: Store) -> None:
        await stored(store, row("a", 10))
        assert await store.usage.purge(10) == 0
        assert await ids(store.usage) == ["a"]
