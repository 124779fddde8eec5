"""Workers ask to be paid: for themselves, at most what they earned, and the same once."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from tests.unit.store.working import rich, serve

from filature.errors import Conflict, InvalidRequest
from filature.proxy.payout_desk import PayoutDesk
from filature.store.store import Store
from filature.store.worker_tokens import WorkerToken

NOW_MS = 1_800_000_000_000


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = await Store.open(database_url, lambda: NOW_MS)
    await rich(store)
    serve(store, "r1", "gpu", 100)
    await store.ledger.flush()
    try:
        yield store
    finally:
        await store.close()


async def token(store: Store, worker: str) -> WorkerToken:
    return (await store.worker_tokens.create(worker, None))[1]


async def ask(store: Store, worker: str, **asked: Any) -> Any:
    return orjson.loads(
        await PayoutDesk(store).ask(await token(store, worker), orjson.dumps(asked))
    )


async def test_a_request_is_taken_once(store: Store) -> None:
    answer = await ask(store, "gpu", id="a", amount_nano=60)
    assert answer == {
        "object": "payout_request",
        "id": "a",
        "worker": "gpu",
        "amount_nano": 60,
        "state": "open",
        "at_ms": NOW_MS,
        "balance_nano": 100,
    }
    assert await ask(store, "gpu", id="a", amount_nano=60) == answer
    await store.payout_requests.end("a", "refused")
    assert (await ask(store, "gpu", id="a", amount_nano=60))["state"] == "refused"
    assert len(await store.payout_requests.list()) == 1


async def test_never_more_than_was_earned(store: Store) -> None:
    await ask(store, "gpu", id="a", amount_nano=60)
    for worker, amount in (("gpu", 41), ("other", 1)):
        with pytest.raises(Conflict):
            await ask(store, worker, id="b", amount_nano=amount)
    await ask(store, "gpu", id="b", amount_nano=40)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, "id"),
        ({"id": "a"}, "amount_nano"),
        ({"id": "", "amount_nano": 1}, "id"),
        ({"id": "a b", "amount_nano": 1}, "id"),
        ({"id": "a" * 65, "amount_nano": 1}, "id"),
        ({"id": "a\n", "amount_nano": 1}, "id"),
        ({"id": "a", "amount_nano": 0}, "amount_nano"),
        ({"id": "a", "amount_nano": 2**63}, "amount_nano"),
        ({"id": "a", "amount_nano": 0.5}, "amount_nano"),
    ],
)
async def test_what_cannot_be_is_named(store: Store, asked: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await ask(store, "gpu", **asked)
    assert caught.value.param == param
    assert await store.payout_requests.list() == []
