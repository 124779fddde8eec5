"""The stored ledger under any interleaving of what can happen to it, crashes among it, on both databases.

The model is a list of what was decided, in order. After a crash what is stored is a beginning of that
list, and everything that anybody was told of is in it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.databases import TEMPLATE, sqlite_url

from filature.ledger.accounts import client_account, worker_account
from filature.ledger.commands import OpenAccount, Refund, TopUp
from filature.ledger.invariants import check_ledger
from filature.ledger.outcomes import Outcome
from filature.store.batch import UsageRow
from filature.store.ledger_rows import read_accounts, read_transfers
from filature.store.store import Store
from filature.units import AccountId, HoldId, Nano, TransferId

CLIENTS = [client_account("ada"), client_account("bob")]
WORKERS = [worker_account("gpu"), worker_account("tpu")]
CLIENT = st.sampled_from(CLIENTS)
AMOUNT = st.integers(1, 500)
LATER_MS = 1_000

T = TypeVar("T")


def row(request: str, client: AccountId, cost: int) -> UsageRow:
    return UsageRow(request, client, None, 1, "m", "completed", cost, "{}")


class Jobs:
    """Stands for the queue to the writer's thread: what is in it is done when the machine says so.

    So nothing depends on which thread is quicker. While something is awaited it is done as it comes.
    """

    def __init__(self, thread: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.thread = thread
        self._loop = loop
        self._waiting: list[Callable[[], None]] = []
        self._at_once = False

    def put(self, job: Callable[[], None] | None) -> None:
        if job is None:
            self.thread.put(None)
        elif self._at_once:
            self._loop.call_soon(job)
        else:
            self._waiting.append(job)

    def do(self, number: int) -> None:
        for job in self._waiting[:number]:
            job()
        del self._waiting[:number]

    def at_once(self, yes: bool) -> None:
        self._at_once = yes
        if yes:
            self.do(len(self._waiting))


class StoredLedger(RuleBasedStateMachine):
    """One ledger through several lives of its process."""

    new_url: ClassVar[Callable[[], str]]

    def __init__(self) -> None:
        super().__init__()
        self.url = type(self).new_url()
        self.numbers = count()
        self.decided: list[tuple[str, AccountId, int]] = []
        """Id, client and what it adds to the client's balance."""
        self.told: set[str] = set()
        """Ids of whose commit somebody was told."""
        self.open_holds: dict[str, tuple[AccountId, int]] = {}
        self.reversible: dict[str, tuple[AccountId, int]] = {}
        self.top_ups: list[TopUp] = []

    @initialize()
    def begin(self) -> None:
        self._start()
        for client in CLIENTS:
            assert self._run(self.store.ledger.run(OpenAccount(client))).outcome is Outcome.DONE

    def _start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = self.loop.run_until_complete(Store.open(self.url))
        self.jobs = Jobs(self.store.writer._jobs, self.loop)
        self.store.writer._jobs = self.jobs  # type: ignore[assignment]  # a queue by its only method

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        self.jobs.at_once(True)
        try:
            return self.loop.run_until_complete(work)
        finally:
            self.jobs.at_once(False)

    def _balance(self, client: AccountId) -> int:
        return sum(amount for _, who, amount in self.decided if who == client)

    def _held(self, client: AccountId) -> int:
        return sum(amount for who, amount in self.open_holds.values() if who == client)

    # what operators do: stored when it returns

    @rule(client=CLIENT, amount=AMOUNT)
    def top_up(self, client: AccountId, amount: int) -> None:
        command = TopUp(TransferId(f"t{next(self.numbers)}"), client, Nano(amount), 1)
        assert self._run(self.store.ledger.run(command)).outcome is Outcome.DONE
        self.decided.append((command.id, client, amount))
        self.top_ups.append(command)
        self._all_told()

    @precondition(lambda self: self.top_ups)
    @rule(data=st.data())
    def top_up_again(self, data: st.DataObject) -> None:
        command = data.draw(st.sampled_from(self.top_ups))
        assert self._run(self.store.ledger.run(command)).outcome is Outcome.EXISTS

    @rule(client=CLIENT, amount=AMOUNT)
    def refund(self, client: AccountId, amount: int) -> None:
        command = Refund(TransferId(f"b{next(self.numbers)}"), client, Nano(amount), 1)
        enough = self._balance(client) - self._held(client) >= amount
        outcome = self._run(self.store.ledger.run(command)).outcome
        assert outcome is (Outcome.DONE if enough else Outcome.INSUFFICIENT)
        if enough:
            self.decided.append((command.id, client, -amount))
            self._all_told()

    # what requests do

    @rule(client=CLIENT, amount=AMOUNT)
    def hold(self, client: AccountId, amount: int) -> None:
        request = f"r{next(self.numbers)}"
        enough = self._balance(client) - self._held(client) >= amount
        outcome = self.store.ledger.hold(HoldId(request), client, Nano(amount), 700, LATER_MS)
        assert outcome is (Outcome.DONE if enough else Outcome.INSUFFICIENT)
        if enough:
            self.open_holds[request] = (client, amount)

    @precondition(lambda self: self.open_holds)
    @rule(data=st.data(), worker=st.sampled_from(WORKERS), share=st.integers(0, 10))
    def settle(self, data: st.DataObject, worker: AccountId, share: int) -> None:
        self._settle(data.draw(st.sampled_from(sorted(self.open_holds))), worker, share)

    def _settle(self, request: str, worker: AccountId, share: int) -> None:
        client, held = self.open_holds.pop(request)
        cost = held * share // 10
        outcome = self.store.ledger.settle(
            HoldId(request),
            worker,
            Nano(cost),
            row(request, client, cost),
            lambda: self.told.add(request),
        )
        assert outcome is Outcome.DONE
        assert request not in self.told, "told before it can have been stored"
        self.decided.append((request, client, -cost))
        self.reversible[request] = (client, cost)

    @precondition(lambda self: self.open_holds)
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.open_holds)))
        client, _ = self.open_holds.pop(request)
        outcome = self.store.ledger.void(HoldId(request), row(request, client, 0))
        assert outcome is Outcome.DONE

    @precondition(lambda self: set(self.reversible) - self.told)
    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(set(self.reversible) - self.told)))
        client, cost = self.reversible.pop(request)
        ledger = self.store.ledger
        outcome = ledger.reverse(HoldId(request), Nano(cost), row(request, client, 0), "late")
        assert outcome is Outcome.DONE
        if cost:
            self.decided.append((f"{request}:reversed", client, cost))

    @rule()
    def expire(self) -> None:
        assert self.store.ledger.expire(LATER_MS) == len(self.open_holds)
        self.open_holds.clear()

    # time, and the end of it

    @rule(turns=st.integers(1, 4))
    def let_turn(self, turns: int) -> None:
        self.turn(turns)

    def turn(self, turns: int) -> None:
        """So many iterations of the loop, and no more."""
        for _ in range(turns):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    @rule()
    def flush(self) -> None:
        self._run(self.store.ledger.flush())
        self._all_told()

    @rule()
    def close(self) -> None:
        self._run(self.store.close())
        self.loop.close()
        self.open_holds.clear()
        self.reversible.clear()
        self._start()
        assert self._stored() == [id_ for id_, _, _ in self.decided]
        self._all_told()

    @rule(jobs=st.integers(1, 3))
    def work(self, jobs: int) -> None:
        """The writer's thread gets so far."""
        self.jobs.do(jobs)

    @rule(turns=st.integers(0, 4), settled=st.integers(0, 3), jobs=st.integers(0, 1))
    def crash(self, turns: int, settled: int, jobs: int) -> None:
        """The process is gone in the middle of its work: what the thread did is stored, the rest is lost."""
        for request in sorted(self.open_holds)[:settled]:
            self._settle(request, WORKERS[0], 5)
        self.turn(turns)
        self.jobs.do(jobs)
        self._kill()
        self.open_holds.clear()
        self.reversible.clear()
        self._start()
        stored = self._stored()
        assert stored == [id_ for id_, _, _ in self.decided[: len(stored)]]
        assert self.told <= set(stored), "somebody was told of what was lost"
        del self.decided[len(stored) :]

    def _kill(self) -> None:
        store = self.store
        writer = store.writer
        self.jobs.thread.put(None)
        assert writer._thread is not None
        writer._thread.join()
        writer._disconnect()
        writer._lock.release()
        store.reader.close()
        store.database.close()
        self.loop.close()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self._kill()

    # what must be true

    def _all_told(self) -> None:
        self.told.update(id_ for id_, _, _ in self.decided)
        self.reversible.clear()

    def _stored(self) -> list[str]:
        accounts, transfers = self._run(
            self.store.reader.read(lambda c: (read_accounts(c), list(read_transfers(c))))
        )
        assert check_ledger(accounts, transfers) == []
        return [transfer.id for transfer in transfers]

    @invariant()
    def balances_are_those_of_the_model(self) -> None:
        if not hasattr(self, "store"):
            return
        for client in CLIENTS:
            account = self.store.ledger.state.accounts[client]
            assert account.balance == self._balance(client)
            assert account.held == self._held(client)
            assert account.available >= 0


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Makes databases with the schema and nothing in them."""
    if request.param == "sqlite":
        names = (tmp_path / f"{number}.db" for number in count())
        yield lambda: sqlite_url(next(names))
        return
    postgres = request.getfixturevalue("postgres")
    made: list[str] = []

    def make() -> str:
        made.append(postgres.create(TEMPLATE))
        return made[-1]

    yield make
    for url in made:
        postgres.drop(url)


def test_any_interleaving(new_url: Callable[[], str]) -> None:
    machine = type("Machine", (StoredLedger,), {"new_url": staticmethod(new_url)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
