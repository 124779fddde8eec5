"""Workers' tokens: made once, found by their secret, revoked at once, and the same after a restart."""

import hashlib
from typing import Any

import pytest
from sqlalchemy import select
from tests.unit.store.working import NOW_MS

from filature.errors import InvalidRequest, NotFound, StoreError
from filature.store.credentials import MODELS_MAX
from filature.store.schema import worker_tokens
from filature.store.store import Store
from filature.store.worker_tokens import WORKER_CHARS_MAX, WorkerTokens

MODELS = frozenset({"Qwen/Qwen3-8B", "gpt-4o-mini"})


async def reread(store: Store) -> WorkerTokens:
    """The tokens as a process that starts now reads them."""
    return await WorkerTokens.load(store.reader, store.writer, lambda: NOW_MS)


async def test_a_token_is_found_by_its_secret(store: Store) -> None:
    secret, token = await store.worker_tokens.create("gpu-1", MODELS)
    assert secret.startswith("fil-wrk-")
    assert len(secret) == len("fil-wrk-") + 43  # 32 bytes in base64
    prefix, _, number = token.id.partition("_")
    assert (prefix, len(number), len(bytes.fromhex(number))) == ("wt", 16, 8)
    assert (token.worker, token.models, token.created_ms) == ("gpu-1", MODELS, NOW_MS)
    assert token.hint == secret[-4:]
    assert token.revoked_ms is None
    assert store.worker_tokens.find(secret.encode()) is token
    assert store.worker_tokens.get(token.id) is token


async def test_no_other_secret_finds_it(store: Store) -> None:
    secret, token = await store.worker_tokens.create("gpu-1", None)
    given = secret.encode()
    for other in (b"", given[:-1], given + b"A", given.lower(), token.digest, token.id.encode()):
        assert store.worker_tokens.find(other) is None


async def test_secrets_are_not_stored(store: Store) -> None:
    secret, _ = await store.worker_tokens.create("gpu-1", MODELS)

    rows = await store.reader.read(lambda c: c.execute(select(worker_tokens)).all())
    assert [bytes(row.digest) for row in rows] == [hashlib.sha256(secret.encode()).digest()]
    assert secret.removeprefix("fil-wrk-") not in repr(rows)


async def test_a_worker_may_have_several(store: Store) -> None:
    made = [await store.worker_tokens.create("gpu-1", None) for _ in range(10)]
    assert len({secret for secret, _ in made}) == len({token.id for _, token in made}) == 10
    await store.worker_tokens.revoke(made[0][1].id)
    found = [store.worker_tokens.find(secret.encode()) for secret, _ in made]
    assert [token and token.revoked_ms for token in found] == [NOW_MS] + [None] * 9


@pytest.mark.parametrize("models", [MODELS, None, frozenset[str]()])
async def test_a_restart_keeps_tokens_as_they_were(
    database_url: str, models: frozenset[str] | None
) -> None:
    store = await Store.open(database_url, lambda: NOW_MS)
    secret, token = await store.worker_tokens.create("gpu-1", models)
    await store.close()
    again = await Store.open(database_url, lambda: NOW_MS + 1)
    found = again.worker_tokens.find(secret.encode())
    await again.close()
    assert found == token
    assert found is not token


async def test_tokens_are_listed_as_they_were_made(database_url: str) -> None:
    now = iter(range(100, 200))
    store = await Store.open(database_url, lambda: next(now))
    try:
        assert store.worker_tokens.list() == []
        made = [(await store.worker_tokens.create(name, None))[1] for name in "zayb"]
        assert store.worker_tokens.list() == made
        assert (await reread(store)).list() == made
    finally:
        await store.close()


@pytest.mark.parametrize("name", ["a", "7", "Gpu-1.rack_2", "a" * WORKER_CHARS_MAX])
async def test_names_of_workers(store: Store, name: str) -> None:
    _, token = await store.worker_tokens.create(name, None)
    assert token.worker == name


@pytest.mark.parametrize(
    "name",
    ["", "a" * (WORKER_CHARS_MAX + 1), "-a", ".a", "_a", "a b", "a:b", "a/b", "a\n", "ä", "a\0"],
)
async def test_other_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await store.worker_tokens.create(name, None)
    assert refused.value.param == "worker"
    assert (await reread(store)).list() == store.worker_tokens.list() == []


async def test_models_are_bounded(store: Store) -> None:
    most = frozenset(map(str, range(MODELS_MAX)))
    await store.worker_tokens.create("gpu-1", most)
    with pytest.raises(InvalidRequest) as refused:
        await store.worker_tokens.create("gpu-1", most | {"one more"})
    assert refused.value.param == "models"
    assert len((await reread(store)).list()) == 1


async def test_what_cannot_be_stored_is_not_made(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(function: Any) -> None:
        raise StoreError

    monkeypatch.setattr(store.writer, "call", fail)
    with pytest.raises(StoreError):
        await store.worker_tokens.create("gpu-1", None)
    assert store.worker_tokens.list() == []


class TestRevoking:
    async def test_it_is_seen_on_the_object_that_was_found_before(self, store: Store) -> None:
        secret, token = await store.worker_tokens.create("gpu-1", None)
        found = store.worker_tokens.find(secret.encode())
        assert await store.worker_tokens.revoke(token.id) is found
        assert found is not None
        assert found.revoked_ms == NOW_MS

    async def test_it_lasts(self, store: Store) -> None:
        secret, token = await store.worker_tokens.create("gpu-1", None)
        await store.worker_tokens.revoke(token.id)
        found = (await reread(store)).find(secret.encode())
        assert found is not None
        assert found.revoked_ms == NOW_MS

    async def test_the_first_time_counts(self, database_url: str) -> None:
        now = iter(range(100, 200))
        store = await Store.open(database_url, lambda: next(now))
        try:
            _, token = await store.worker_tokens.create("gpu-1", None)
            first = (await store.worker_tokens.revoke(token.id)).revoked_ms
            assert first is not None
            assert (await store.worker_tokens.revoke(token.id)).revoked_ms == first
            assert (await reread(store)).get(token.id).revoked_ms == first
        finally:
            await store.close()

    async def test_what_cannot_be_stored_is_not_revoked(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*statements: Any) -> None:
            raise StoreError

        _, token = await store.worker_tokens.create("gpu-1", None)
        monkeypatch.setattr(store.writer, "execute", fail)
        with pytest.raises(StoreError):
            await store.worker_tokens.revoke(token.id)
        assert token.revoked_ms is None

    async def test_an_unknown_token_is_named(self, store: Store) -> None:
        with pytest.raises(NotFound, match="wt_x") as refused:
            await store.worker_tokens.revoke("wt_x")
        assert refused.value.code == "worker_token_not_found"
