"""Totals of workers' accounts: as the ledger's rows add up, in whatever steps they are read."""

import pytest
from sqlalchemy import delete
from tests.unit.store.working import fail, rich, serve, serve_late

from filature.errors import StoreError
from filature.ledger.accounts import worker_account
from filature.ledger.commands import Correct, Payout
from filature.store import statements
from filature.store.schema import transfers
from filature.store.statements import EarningsTotals, Totals
from filature.store.store import Store
from filature.units import Nano, TransferId

GPU, OTHER = worker_account("gpu"), worker_account("other")


@pytest.fixture
async def store(store: Store) -> Store:
    await rich(store)
    return store


async def work(store: Store) -> None:
    serve(store, "r1", "gpu", 1000, fee_bp=1000)
    serve(store, "r2", "gpu", 0)
    serve(store, "r3", "other", 70)
    fail(store, "r4", "gpu", "engine_failed")
    await serve_late(store, "r5", "gpu", 500, 0)
    await store.ledger.run(Payout(TransferId("p"), GPU, Nano(600), 1))
    await store.ledger.run(Correct(TransferId("c1"), TransferId("r1"), Nano(100), 1))
    await store.ledger.run(Correct(TransferId("c2"), TransferId("p"), Nano(50), 1))


WORKED = Totals(earned=900 + 450 + 50, paid=600, corrected=90, requests=3, transfers=6)


def balance(totals: Totals) -> int:
    return totals.earned - totals.paid - totals.corrected


async def test_they_are_what_the_account_has(store: Store) -> None:
    await work(store)
    totals = EarningsTotals(store.reader)
    assert totals.of(GPU) == Totals()
    await totals.advance()
    assert totals.of(GPU) == WORKED
    assert totals.of(OTHER) == Totals(earned=70, requests=1, transfers=1)
    assert totals.of(worker_account("nobody")) == Totals()
    for account in (GPU, OTHER):
        assert balance(totals.of(account)) == store.ledger.state.accounts[account].balance


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 7])
async def test_they_are_the_same_in_small_steps(
    store: Store, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    monkeypatch.setattr(statements, "ROWS_MAX", at_a_time)
    await work(store)
    totals = EarningsTotals(store.reader)
    await totals.advance()
    assert totals.of(GPU) == WORKED


async def test_each_row_is_added_once(store: Store) -> None:
    totals = EarningsTotals(store.reader)
    await totals.advance()
    await work(store)
    for _ in range(2):
        await totals.advance()
        assert totals.of(GPU) == WORKED
    serve(store, "r6", "gpu", 5)
    await store.ledger.flush()
    await store.writer.execute(delete(transfers).where(transfers.c.id == "r5"))  # read already
    await totals.advance()
    assert totals.of(GPU).earned == WORKED.earned + 5
    assert totals.of(GPU).requests == WORKED.requests + 1


async def test_it_goes_on_where_it_could_not_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "ROWS_MAX", 3)
    await work(store)
    totals = EarningsTotals(store.reader)
    read, reads = store.reader.read, 0

    async def failing(function: object) -> object:
        nonlocal reads
        reads += 1
        if reads == 3:  # of the end, of three rows, of three rows
            raise StoreError
        return await read(function)  # type: ignore[arg-type]

    monkeypatch.setattr(store.reader, "read", failing)
    with pytest.raises(StoreError):
        await totals.advance()
    assert totals.of(GPU).transfers < WORKED.transfers
    await totals.advance()
    assert totals.of(GPU) == WORKED
