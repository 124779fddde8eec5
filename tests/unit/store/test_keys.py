"""API keys: made once, found by their secret, revoked at once, and the same after a restart."""

import hashlib
from typing import Any

import pytest
from sqlalchemy import func, insert, select
from tests.unit.store.working import NOW_MS

from filature.errors import InvalidRequest, NotFound, StoreError
from filature.ledger.accounts import client_account
from filature.ledger.commands import OpenAccount
from filature.store.credentials import MODELS_MAX
from filature.store.keys import (
    NAME_CHARS_MAX,
    PERIODS_KEPT,
    KeyLimits,
    KeyRing,
    read_spending,
)
from filature.store.schema import api_keys, key_spending
from filature.store.store import Store
from filature.units import NANO_MAX, Nano

ALICE, BOB = client_account("alice"), client_account("bob")
LIMITS = KeyLimits(
    budget=Nano(NANO_MAX),
    budget_period="month",
    requests_per_minute=60,
    tokens_per_minute=100_000,
    concurrency=4,
    models=frozenset({"Qwen/Qwen3-8B", "gpt-4o-mini"}),
    max_coefficient=1500,
    expires_ms=NOW_MS + 1,
)
NO_LIMITS = KeyLimits()


@pytest.fixture
async def store(store: Store) -> Store:
    for account in (ALICE, BOB):
        await store.ledger.run(OpenAccount(account))
    return store


async def reread(store: Store) -> KeyRing:
    """The keys as a process that starts now reads them."""
    return await KeyRing.load(store.reader, store.writer, lambda: NOW_MS)


async def test_a_key_is_found_by_its_secret(store: Store) -> None:
    secret, key = await store.keys.create(ALICE, "laptop", LIMITS)
    assert secret.startswith("sk-fil-")
    assert len(secret) == len("sk-fil-") + 43  # 32 bytes in base64
    assert key.id.startswith("key_")
    assert (key.account, key.name, key.created_ms) == (ALICE, "laptop", NOW_MS)
    assert secret.endswith(key.hint)
    assert key.revoked_ms is None
    assert store.keys.find(secret.encode()) is key
    assert store.keys.get(key.id) is key


async def test_no_other_secret_finds_it(store: Store) -> None:
    secret, key = await store.keys.create(ALICE, "", NO_LIMITS)
    given = secret.encode()
    for other in (b"", given[:-1], given + b"A", given.lower(), key.digest, key.id.encode()):
        assert store.keys.find(other) is None


async def test_secrets_are_not_stored(store: Store) -> None:
    secret, _ = await store.keys.create(ALICE, "laptop", LIMITS)

    rows = await store.reader.read(lambda c: c.execute(select(api_keys)).all())
    assert [bytes(row.digest) for row in rows] == [hashlib.sha256(secret.encode()).digest()]
    assert secret.removeprefix("sk-fil-") not in repr(rows)


async def test_each_key_has_a_secret_and_an_id_of_its_own(store: Store) -> None:
    made = [await store.keys.create(ALICE, "same", NO_LIMITS) for _ in range(10)]
    assert len({secret for secret, _ in made}) == len({key.id for _, key in made}) == 10


@pytest.mark.parametrize("limits", [LIMITS, NO_LIMITS, KeyLimits(models=frozenset())])
async def test_a_restart_keeps_keys_as_they_were(store: Store, limits: KeyLimits) -> None:
    secret, key = await store.keys.create(ALICE, "läptop", limits)
    assert (await reread(store)).find(secret.encode()) == key


async def test_a_key_needs_an_account(store: Store) -> None:
    with pytest.raises(StoreError):
        await store.keys.create(client_account("nobody"), "", NO_LIMITS)
    assert store.keys.list() == []


async def test_a_long_name_is_refused(store: Store) -> None:
    await store.keys.create(ALICE, "n" * NAME_CHARS_MAX, NO_LIMITS)
    with pytest.raises(InvalidRequest) as refused:
        await store.keys.create(ALICE, "n" * (NAME_CHARS_MAX + 1), NO_LIMITS)
    assert refused.value.param == "name"


async def test_keys_are_listed_by_account(store: Store) -> None:
    (_, first), (_, other), (_, last) = [
        await store.keys.create(account, "", NO_LIMITS) for account in (ALICE, BOB, ALICE)
    ]
    assert store.keys.list() == [first, other, last]
    assert store.keys.list(ALICE) == [first, last]
    assert store.keys.list(client_account("nobody")) == []


class TestRevoking:
    async def test_it_is_seen_on_the_object_that_was_found_before(self, store: Store) -> None:
        secret, key = await store.keys.create(ALICE, "", NO_LIMITS)
        found = store.keys.find(secret.encode())
        assert await store.keys.revoke(key.id) is found
        assert found is not None
        assert found.revoked_ms == NOW_MS

    async def test_it_lasts(self, store: Store) -> None:
        secret, key = await store.keys.create(ALICE, "", NO_LIMITS)
        await store.keys.revoke(key.id)
        found = (await reread(store)).find(secret.encode())
        assert found is not None
        assert found.revoked_ms == NOW_MS

    async def test_the_first_time_counts(self, database_url: str) -> None:
        now = iter(range(100, 200))
        store = await Store.open(database_url, lambda: next(now))
        try:
            await store.ledger.run(OpenAccount(ALICE))
            _, key = await store.keys.create(ALICE, "", NO_LIMITS)
            first = (await store.keys.revoke(key.id)).revoked_ms
            assert first is not None
            assert (await store.keys.revoke(key.id)).revoked_ms == first
        finally:
            await store.close()

    async def test_what_cannot_be_stored_is_not_revoked(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*statements: Any) -> None:
            raise StoreError

        _, key = await store.keys.create(ALICE, "", NO_LIMITS)
        monkeypatch.setattr(store.writer, "execute", fail)
        with pytest.raises(StoreError):
            await store.keys.revoke(key.id)
        assert key.revoked_ms is None

    async def test_an_unknown_key_is_named(self, store: Store) -> None:
        with pytest.raises(NotFound, match="key_x") as refused:
            await store.keys.revoke("key_x")
        assert refused.value.code == "key_not_found"


class TestLimits:
    @pytest.mark.parametrize(
        ("wrong", "param"),
        [
            ({"budget": -1, "budget_period": "day"}, "budget"),
            ({"budget": NANO_MAX + 1, "budget_period": "day"}, "budget"),
            ({"budget": 1}, "budget_period"),
            ({"budget_period": "day"}, "budget_period"),
            ({"budget": 1, "budget_period": "week"}, "budget_period"),
            ({"requests_per_minute": 0}, "requests_per_minute"),
            ({"tokens_per_minute": 0}, "tokens_per_minute"),
            ({"concurrency": 0}, "concurrency"),
            ({"concurrency": NANO_MAX + 1}, "concurrency"),
            ({"max_coefficient": -1}, "max_coefficient"),
            ({"expires_ms": 0}, "expires_ms"),
            ({"models": frozenset(map(str, range(MODELS_MAX + 1)))}, "models"),
        ],
    )
    def test_a_wrong_one_is_named(self, wrong: dict[str, Any], param: str) -> None:
        with pytest.raises(InvalidRequest) as refused:
            KeyLimits(**wrong)
        assert refused.value.param == param

    @pytest.mark.parametrize(
        ("limits", "is_counted"),
        [
            ({}, False),
            ({"models": frozenset(), "max_coefficient": 0, "expires_ms": 1}, False),
            ({"budget": 0, "budget_period": "total"}, True),
            ({"requests_per_minute": 1}, True),
            ({"tokens_per_minute": 1}, True),
            ({"concurrency": 1}, True),
        ],
    )
    def test_some_have_to_be_counted(self, limits: dict[str, Any], is_counted: bool) -> None:
        assert KeyLimits(**limits).is_counted is is_counted


async def test_of_spending_the_latest_periods_are_read(store: Store) -> None:
    _, daily = await store.keys.create(ALICE, "", NO_LIMITS)
    _, total = await store.keys.create(ALICE, "", NO_LIMITS)
    days = [f"2026-11-{day:02}" for day in range(1, 10)] + ["2027-01-01"]
    rows = [
        {"key_id": daily.id, "period": day, "spent": number} for number, day in enumerate(days)
    ] + [{"key_id": total.id, "period": "total", "spent": NANO_MAX}]
    await store.writer.execute(insert(key_spending).values(rows))
    assert PERIODS_KEPT == 2
    assert await store.reader.read(read_spending) == {
        (daily.id, "2026-11-09"): 8,
        (daily.id, "2027-01-01"): 9,
        (total.id, "total"): NANO_MAX,
    }
    count = select(func.count()).select_from(key_spending)
    assert await store.reader.read(lambda c: c.execute(count).scalar_one()) == len(rows)
