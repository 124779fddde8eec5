"""The embedded ledger over its writer thread: what is stored, when who is told, and what a failure does."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from tests.unit.store.working import replaced

from filature.errors import StoreError
from filature.ledger.accounts import client_account, worker_account
from filature.ledger.commands import Correct, OpenAccount, Refund, TopUp
from filature.ledger.invariants import check_ledger
from filature.ledger.outcomes import Outcome
from filature.store.batch import TRANSFER_COLUMNS, Batch, UsageRow
from filature.store.hot_rows import Work
from filature.store.idempotency import Claim, Idempotency
from filature.store.ledger_rows import read_accounts, read_transfers
from filature.store.store import Store
from filature.store.writer import STUCK_S
from filature.units import HoldId, Nano, TransferId

ALICE = client_account("alice")
WORKER = worker_account("w")
LATER_MS = 10**15


def row(id_: str, cost: int = 0) -> UsageRow:
    return UsageRow(id_, ALICE, None, 1, "m", "completed", cost, f'{{"id":"{id_}"}}')


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = await Store.open(url)
    try:
        yield store
    finally:
        await store.close()


async def rich(store: Store, amount: int = 1_000_000) -> None:
    await store.ledger.run(OpenAccount(ALICE))
    assert (
        await store.ledger.run(TopUp(TransferId("t"), ALICE, Nano(amount), 1))
    ).outcome is Outcome.DONE


async def sound(store: Store) -> None:
    def check(connection):  # type: ignore[no-untyped-def]
        return check_ledger(read_accounts(connection), list(read_transfers(connection)))

    assert await store.reader.read(check) == []


@pytest.fixture
def url(database_url: str) -> str:
    return database_url


class TestRequests:
    async def test_a_charge_is_stored_when_its_waiter_is_told(self, url: str) -> None:
        async with opened(url) as store:
            await rich(store)
            ledger, told = store.ledger, asyncio.Event()
            assert ledger.hold(HoldId("r"), ALICE, Nano(500), 1000, LATER_MS) is Outcome.DONE
            assert ledger.available(ALICE) == 999_500
            outcome = ledger.settle(HoldId("r"), WORKER, Nano(300), row("r", 300), told.set)
            assert outcome is Outcome.DONE
            assert not told.is_set()  # never at once
            await told.wait()
            transfers = await store.reader.read(lambda c: list(read_transfers(c)))
            assert [(t.id, t.amount, t.fee) for t in transfers] == [
                ("t", 1_000_000, 0),
                ("r", 300, 30),
            ]
            assert ledger.available(ALICE) == 999_700
            assert not ledger.state.transfers  # what is stored is found there
            await sound(store)

    async def test_many_charges_share_a_commit(self, url: str) -> None:
        async with opened(url) as store:
            await rich(store)
            before = store.writer.batches
            told: list[int] = []
            for number in range(50):
                request = HoldId(f"r{number}")
                store.ledger.hold(request, ALICE, Nano(10), 0, LATER_MS)
                store.ledger.settle(
                    request, WORKER, Nano(7), row(request, 7), partial(told.append, number)
                )
            await store.ledger.flush()
            assert told == list(range(50))
            assert store.writer.batches - before == 1
            await sound(store)

    async def test_a_voided_request_leaves_its_record_and_no_charge(self, url: str) -> None:
        async with opened(url) as store:
            await rich(store)
            store.ledger.hold(HoldId("r"), ALICE, Nano(500), 0, LATER_MS)
            store.ledger.void(HoldId("r"), row("r"))
            await store.ledger.flush()
            assert store.ledger.available(ALICE) == 1_000_000
            assert len(await store.reader.read(lambda c: list(read_transfers(c)))) == 1
            assert await store.usage.get("r") is not None

    async def test_more_than_there_is_cannot_be_held(self, url: str) -> None:
        async with opened(url) as store:
            await rich(store, 100)
            assert store.ledger.hold(HoldId("a"), ALICE, Nano(60), 0, LATER_MS) is Outcome.DONE
            outcome = store.ledger.hold(HoldId("b"), ALICE, Nano(60), 0, LATER_MS)
            assert outcome is Outcome.INSUFFICIENT

    async def test_a_reversed_charge_costs_nothing(self, url: str) -> None:
        async with opened(url) as store:
            await rich(store)
            store.ledger.hold(HoldId("r"), ALICE, Nano(500), 1000, LATER_MS)
            store.ledger.settle(HoldId("r"), WORKER, Nano(300), row("r", 300), None)
            outcome = store.ledger.reverse(HoldId("r"), Nano(300), row("r", 0), "not told")
            assert outcome is Outcome.DONE
            await store.ledger.flush()
            assert store.ledger.available(ALICE) == 1_000_000
            await sound(store)


class TestRestarts:
    async def test_balances_are_those_that_were_stored(self, url: str) -> None:
        async with opened(url) as store:
            await rich(store)
            store.ledger.hold(HoldId("open"), ALICE, Nano(500), 0, LATER_MS)
            store.ledger.hold(HoldId("r"), ALICE, Nano(500), 0, LATER_MS)
            store.ledger.settle(HoldId("r"), WORKER, Nano(300), row("r", 300), None)
        async with opened(url) as store:  # close() committed what waited
            assert store.ledger.available(ALICE) == 999_700
            assert not store.ledger.state.holds

    async def test_a_command_given_again_happened_before(self, url: str) -> None:
        async with opened(url) as store:
            await rich(store)
        async with opened(url) as store:
            run = store.ledger.run
            again = TopUp(TransferId("t"), ALICE, Nano(1_000_000), 2)
            assert (await run(again)).outcome is Outcome.EXISTS
            other = TopUp(TransferId("t"), ALICE, Nano(5), 2)
            assert (await run(other)).outcome is Outcome.CONFLICT
            refund = Correct(TransferId("c"), TransferId("t"), Nano(400_000), 3)
            assert (await run(refund)).outcome is Outcome.DONE
            assert (await run(refund)).outcome is Outcome.EXISTS
            too_much = Correct(TransferId("d"), TransferId("t"), Nano(700_000), 3)
            assert (await run(too_much)).outcome is Outcome.EXCEEDS_TRANSFER

    async def test_the_same_command_twice_at_once_happens_once(self, url: str) -> None:
        async with opened(url) as store:
            await rich(store)
            refund = Refund(TransferId("back"), ALICE, Nano(10), 2)
            results = await asyncio.gather(*(store.ledger.run(refund) for _ in range(5)))
            assert sorted(result.outcome for result in results) == ["done"] + ["exists"] * 4
            assert store.ledger.available(ALICE) == 999_990


class TestOneWriter:
    async def test_a_second_one_is_refused(self, url: str) -> None:
        async with opened(url):
            with pytest.raises(StoreError, match="in use") as refused:
                await Store.open(url)
            assert refused.value.code == "store_in_use"
        async with opened(url):
            pass  # and afterwards it is not

    @pytest.mark.parametrize("url", ["mysql://h/d", "sqlite://", "nonsense", "sqlite:///:memory:"])
    async def test_other_databases_are_refused(self, url: str) -> None:
        with pytest.raises(StoreError, match=r"sqlite:///path/to/file\.db or postgresql"):
            await Store.open(url)

    async def test_a_newer_schema_is_refused(self, url: str) -> None:
        async with opened(url) as store:
            await store.writer.call(
                lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
            )
        with pytest.raises(StoreError, match="newer than this program"):
            await Store.open(url)


class Unheard:
    """Rows whose next commit succeeds, and is told as an error."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.failed = 0

    def write(self, driver: Any, work: Any) -> None:
        self._rows.write(driver, work)
        if not self.failed:
            self.failed += 1
            raise ConnectionError("the answer was lost")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)


class TestRetries:
    async def test_a_commit_of_which_nothing_was_heard_is_not_written_again(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("filature.store.writer.RETRY_S", 0.01)
        async with opened(url) as store:
            await rich(store)
            unheard: Any = Unheard(store.writer._rows)
            store.writer._rows = unheard
            store.ledger.hold(HoldId("r"), ALICE, Nano(500), 1000, LATER_MS)
            store.ledger.settle(HoldId("r"), WORKER, Nano(300), row("r", 300), None)
            await store.ledger.flush()
            assert unheard.failed
            await sound(store)

    async def test_another_transfer_of_the_same_id_is_not_taken_for_the_charge(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("filature.store.writer.RETRY_S", 0.01)
        async with opened(url) as store:
            await rich(store)
            others = ", ".join(TRANSFER_COLUMNS.split(", ")[1:])
            await store.writer.call(
                lambda c: c.exec_driver_sql(
                    f"INSERT INTO transfers ({TRANSFER_COLUMNS}) SELECT 'r', {others} FROM transfers"
                )
            )
            told: list[str] = []
            store.ledger.hold(HoldId("r"), ALICE, Nano(500), 1000, LATER_MS)
            committed = partial(told.append, "r")
            store.ledger.settle(HoldId("r"), WORKER, Nano(300), row("r", 300), committed)
            retried = 0
            again = store.writer._again

            def counted(batch: Batch) -> None:
                nonlocal retried
                retried += 1
                again(batch)

            monkeypatch.setattr(store.writer, "_again", counted)
            while retried < 3:
                await asyncio.sleep(0.001)
                assert not told, "nothing of it is stored"
            await store.writer.call(
                lambda c: c.exec_driver_sql("DELETE FROM transfers WHERE id = 'r'")
            )
            await store.ledger.flush()
            assert told == ["r"]
            await sound(store)


class TestFailures:
    """On SQLite, whose file can be locked by anybody."""

    async def test_nothing_is_admitted_until_what_failed_is_stored(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("filature.store.database.SQLITE_BUSY_MS", 1)
        monkeypatch.setattr("filature.store.writer.RETRY_S", 0.01)
        path = tmp_path / "f.db"
        async with opened(f"sqlite:///{path}") as store:
            await rich(store)
            ledger, told = store.ledger, asyncio.Event()
            ledger.hold(HoldId("r"), ALICE, Nano(500), 0, LATER_MS)
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            ledger.settle(HoldId("r"), WORKER, Nano(300), row("r", 300), told.set)
            while ledger.failing is None:
                await asyncio.sleep(0.001)
            with pytest.raises(StoreError) as refused:
                ledger.hold(HoldId("s"), ALICE, Nano(1), 0, LATER_MS)
            assert refused.value.status == 503
            with pytest.raises(StoreError):
                await ledger.run(OpenAccount(client_account("bob")))
            assert not told.is_set()
            other.execute("ROLLBACK")
            other.close()
            await told.wait()
            assert ledger.hold(HoldId("s"), ALICE, Nano(1), 0, LATER_MS) is Outcome.DONE
            await sound(store)

    async def test_a_database_that_does_not_answer_fails_until_it_does(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        let_go = threading.Event()
        async with opened(f"sqlite:///{tmp_path / 'f.db'}") as store:
            await rich(store)
            ledger, writer, told = store.ledger, store.writer, asyncio.Event()

            def failing() -> str | None:
                return ledger.failing

            idempotency = Idempotency(writer, lambda: 0)
            claim = Claim(ALICE, "key", "s", b"")
            commit = writer._commit

            def wait_and_commit(batch: Batch, work: Work, *, again: bool) -> None:
                let_go.wait()
                commit(batch, work, again=again)

            monkeypatch.setattr(writer, "_commit", wait_and_commit)
            for number in (1, 2):  # each batch has its own time
                ledger.hold(HoldId(f"r{number}"), ALICE, Nano(500), 0, LATER_MS)
                ledger.settle(HoldId(f"r{number}"), WORKER, Nano(300), row(f"r{number}"), told.set)
                while writer._writing is None:
                    await asyncio.sleep(0)
                writer.look(1000.0 * number)
                writer.look(1000.0 * number + STUCK_S - 0.1)
                assert failing() is None
                if number == 1:
                    let_go.set()
                    await told.wait()
                    let_go.clear()
            writer.look(2000 + STUCK_S)
            assert failing() == "the database has not answered for 5 s"
            with pytest.raises(StoreError):
                ledger.hold(HoldId("s"), ALICE, Nano(1), 0, LATER_MS)
            with pytest.raises(StoreError):
                await idempotency.claim(claim, replaced)
            let_go.set()
            await ledger.flush()
            assert failing() is None
            assert await idempotency.claim(claim, replaced) is claim
            writer.look(5000)
            writer.look(9000)
            assert failing() is None, "nothing is being written"

    async def test_a_database_that_does_not_answer_at_the_end_is_left_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("filature.store.writer.CLOSE_S", 0.05)
        store = await Store.open(f"sqlite:///{tmp_path / 'f.db'}")
        await rich(store)
        hangs, closed = Event(), []
        monkeypatch.setattr(store.writer, "_disconnect", lambda: closed.append(hangs.is_set()))
        thread = store.writer._thread
        hanging = asyncio.create_task(store.writer.call(lambda _: hangs.wait()))
        await asyncio.sleep(0)
        await store.close()
        assert closed == [], "its connection may be what hangs"
        hangs.set()
        await hanging
        assert thread is not None
        await asyncio.to_thread(thread.join)
