"""What a worker earned by day and model: charges, corrections, and requests that cost nothing."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
from sqlalchemy import delete
from tests.unit.store.working import fail, rich, serve, serve_late
from tests.unit.store.working import row as row_of

from filature.ledger.accounts import worker_account
from filature.ledger.commands import Correct, Payout
from filature.store.earnings import Earned, earnings
from filature.store.schema import usage_records
from filature.store.store import Store
from filature.units import HoldId, Nano, TransferId

DAY_MS = 86_400_000
DAY = 20_000


class Clock:
    """The store's."""

    now_ms = DAY * DAY_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(database_url: str, clock: Clock) -> AsyncIterator[Store]:
    store = await Store.open(database_url, clock)
    await rich(store)
    try:
        yield store
    finally:
        await store.close()


async def test_by_day_and_model(store: Store, clock: Clock) -> None:
    tokens = {"prompt": 10, "cached": 4, "completion": 20, "reasoning": 5}
    serve(store, "r1", "gpu", 1000, clock.now_ms, fee_bp=1000, **tokens)
    serve(store, "r2", "gpu", 500, clock.now_ms, fee_bp=1000, **tokens)
    serve(store, "r3", "gpu", 30, clock.now_ms, model="n", prompt=1)
    serve(store, "r4", "other", 77, clock.now_ms)
    clock.now_ms += DAY_MS
    serve(store, "r5", "gpu", 8, clock.now_ms)
    await store.ledger.flush()
    first = Earned(DAY, "m", 2, {}, 20, 8, 40, 10, 1500, 150)
    others = [Earned(DAY, "n", 1, prompt=1, charged=30), Earned(DAY + 1, "m", 1, charged=8)]
    assert await earnings(store.reader, "gpu", 0) == [first, *others]
    assert first.earned == 1350
    assert await earnings(store.reader, "gpu", (DAY + 1) * DAY_MS) == others[1:]
    assert await earnings(store.reader, "other", 0) == [Earned(DAY, "m", 1, charged=77)]
    assert await earnings(store.reader, "nobody", 0) == []


async def test_what_cost_nothing_is_told_by_outcome(store: Store, clock: Clock) -> None:
    for number, outcome in zip(count(), ["engine_failed", "client_gone", "engine_failed"]):
        fail(store, f"r{number}", "gpu", outcome, clock.now_ms)
    fail(store, "o", "other", "drained", clock.now_ms)
    serve(store, "zero", "gpu", 0, clock.now_ms)  # settled: it has an end in the ledger
    await store.ledger.flush()
    voided = {"engine_failed": 2, "client_gone": 1}
    assert await earnings(store.reader, "gpu", 0) == [Earned(DAY, "m", 1, voided)]
    assert await earnings(store.reader, "gpu", clock.now_ms + 1) == []


async def test_corrections_are_taken_off_on_their_day(store: Store, clock: Clock) -> None:
    serve(store, "r1", "gpu", 1000, clock.now_ms, fee_bp=1000)
    await store.ledger.flush()
    at_ms = clock.now_ms + 2 * DAY_MS
    await store.ledger.run(Correct(TransferId("c"), TransferId("r1"), Nano(400), at_ms))
    await store.ledger.run(Payout(TransferId("p"), worker_account("gpu"), Nano(5), at_ms))
    rows = await earnings(store.reader, "gpu", 0)
    assert rows == [
        Earned(DAY, "m", 1, charged=1000, fees=100),
        Earned(DAY + 2, "m", charged=-400, fees=-40),
    ]
    balance = store.ledger.state.accounts[worker_account("gpu")].balance
    assert sum(row.earned for row in rows) - 5 == balance


async def test_a_charge_that_was_given_back_at_once_is_none(store: Store, clock: Clock) -> None:
    serve(store, "r1", "gpu", 10, clock.now_ms, fee_bp=1000, prompt=5)
    given_back = row_of("r1", "gpu", 0, clock.now_ms, outcome="not_settled")
    store.ledger.reverse(HoldId("r1"), Nano(10), given_back, "late")
    await store.ledger.flush()
    (row,) = await earnings(store.reader, "gpu", 0)
    assert row == Earned(DAY, "m", 0, {"not_settled": 1})


async def test_what_the_operator_bears_is_earned_too(store: Store, clock: Clock) -> None:
    await serve_late(store, "r1", "gpu", 200, clock.now_ms)
    await store.ledger.flush()
    assert await earnings(store.reader, "gpu", 0) == [
        Earned(DAY, "m", 1, prompt=7, charged=200, fees=20)
    ]


async def test_charges_outlive_their_records(store: Store, clock: Clock) -> None:
    serve(store, "r1", "gpu", 10, clock.now_ms, prompt=5)
    await store.ledger.flush()
    await store.writer.execute(delete(usage_records))
    assert await earnings(store.reader, "gpu", 0) == [Earned(DAY, "", 1, charged=10)]


@pytest.mark.parametrize("model", ["a\0b", "a\\u0000b", "a\\\\u0000", '"', "é\U0001f9f5"])
async def test_whatever_a_model_is_called(store: Store, clock: Clock, model: str) -> None:
    serve(store, "r1", "gpu", 10, clock.now_ms, model=model, prompt=5)
    fail(store, "r2", "gpu", "drained", clock.now_ms)
    await store.ledger.flush()
    rows = {row.model: row for row in await earnings(store.reader, "gpu", 0)}
    assert rows[model.replace("\0", "\ufffd")].prompt == 5
    assert rows["m"].voided == {"drained": 1}
