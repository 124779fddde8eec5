"""What workers asked to be paid: kept once, bounded by what is there, answered once; and the payouts of the ledger."""

import asyncio
from typing import Any

import pytest
from tests.unit.store.working import NOW_MS

from filature.errors import Conflict, NotFound
from filature.ledger.accounts import client_account, worker_account
from filature.ledger.commands import Correct, OpenAccount, Payout, TopUp
from filature.store.batch import UsageRow
from filature.store.payouts import (
    OPEN_MAX,
    PayoutRequest,
    read_payouts,
    request_of,
    transfer_of,
)
from filature.store.store import Store
from filature.units import HoldId, Nano, TransferId

ALICE, GPU = client_account("alice"), worker_account("gpu")


def test_one_transfer_pays_a_request() -> None:
    assert transfer_of("a") == "payout-request:a"
    assert request_of(transfer_of("a")) == "a"
    assert request_of(TransferId("payout-a")) is None


async def test_the_same_request_is_kept_once(store: Store) -> None:
    requests = store.payout_requests
    asked = await requests.add("a", "gpu", Nano(10), Nano(15))
    assert asked == PayoutRequest("a", "gpu", Nano(10), NOW_MS)
    assert await requests.add("a", "gpu", Nano(10), Nano(0)) == asked
    assert await requests.list() == [asked]
    assert await requests.get("a") == asked
    for worker, amount in (("gpu", 9), ("other", 10)):
        with pytest.raises(Conflict) as caught:
            await requests.add("a", worker, Nano(amount), Nano(100))
        assert caught.value.code == "payout_request_id_taken"


async def test_open_requests_together_stay_below_the_most(store: Store) -> None:
    requests = store.payout_requests
    await requests.add("a", "gpu", Nano(10), Nano(15))
    with pytest.raises(Conflict) as caught:
        await requests.add("b", "gpu", Nano(6), Nano(15))
    assert caught.value.code == "insufficient_funds"
    await requests.add("c", "gpu", Nano(5), Nano(15))
    await requests.add("d", "other", Nano(15), Nano(15))  # another's are another's
    await requests.end("a", "refused")
    await requests.add("b", "gpu", Nano(10), Nano(15))
    assert [each.id for each in await requests.list("gpu", ("open",))] == ["b", "c"]


async def test_two_at_once_do_not_both_fit(store: Store) -> None:
    asked = [store.payout_requests.add(each, "gpu", Nano(10), Nano(15)) for each in "ab"]
    done: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(each) for each in done} == {Conflict, PayoutRequest}
    assert len(await store.payout_requests.list()) == 1


async def test_so_many_are_open_at_most(store: Store) -> None:
    for number in range(OPEN_MAX):
        await store.payout_requests.add(f"r{number}", "gpu", Nano(1), Nano(10**6))
    with pytest.raises(Conflict) as caught:
        await store.payout_requests.add("more", "gpu", Nano(1), Nano(10**6))
    assert caught.value.code == "payout_requests_max"
    await store.payout_requests.end("r0", "paid")
    await store.payout_requests.add("more", "gpu", Nano(1), Nano(10**6))


async def test_a_request_ends_once(store: Store) -> None:
    requests = store.payout_requests
    for request, state, other in (("a", "paid", "refused"), ("b", "refused", "paid")):
        await requests.add(request, "gpu", Nano(1), Nano(10))
        ended = await requests.end(request, state)  # type: ignore[arg-type]
        assert (ended.state, ended.ended_ms) == (state, NOW_MS)
        assert await requests.end(request, state) == ended  # type: ignore[arg-type]
        with pytest.raises(Conflict) as caught:
            await requests.end(request, other)  # type: ignore[arg-type]
        assert caught.value.code == f"payout_{state}"
        assert await requests.get(request) == ended
    with pytest.raises(NotFound):
        await requests.end("nothing", "paid")
    with pytest.raises(NotFound):
        await requests.get("nothing")


async def test_a_restart_keeps_requests(database_url: str) -> None:
    store = await Store.open(database_url, lambda: NOW_MS)
    asked = await store.payout_requests.add("a", "gpu", Nano(10), Nano(10))
    await store.close()
    again = await Store.open(database_url)
    found = await again.payout_requests.list()
    await again.close()
    assert found == [asked]


async def test_payouts_tell_what_came_back(store: Store) -> None:
    ledger = store.ledger
    await ledger.run(OpenAccount(ALICE))
    await ledger.run(TopUp(TransferId("in"), ALICE, Nano(100), 1))
    ledger.hold(HoldId("r"), ALICE, Nano(100), 0, 10**15)
    row = UsageRow("r", ALICE, None, 1, "m", "completed", 100, '{"engine":"gpu"}')
    ledger.settle(HoldId("r"), GPU, Nano(100), row, None)
    await ledger.flush()
    for transfer, amount in (("one", 40), ("two", 50)):
        await ledger.run(Payout(TransferId(transfer), GPU, Nano(amount), 5, "note"))
    await ledger.run(Correct(TransferId("back"), TransferId("two"), Nano(20), 6))
    await ledger.run(Correct(TransferId("again"), TransferId("two"), Nano(1), 6))
    told = [
        (each.id, each.account, each.amount, each.returned, each.at_ms, each.note)
        for each in await read_payouts(store.reader)
    ]
    assert told == [("one", GPU, 40, 0, 5, "note"), ("two", GPU, 50, 21, 5, "note")]
    assert [each.id for each in await read_payouts(store.reader, GPU)] == ["one", "two"]
    assert await read_payouts(store.reader, worker_account("other")) == []
    (two,) = await read_payouts(store.reader, transfer=TransferId("two"))
    assert two.id == "two"
