"""Secrets that a proxy keeps: made once, the same after a restart, one for each name."""

import asyncio

import pytest
from sqlalchemy import select

from filature.errors import StoreError
from filature.store.schema import kept_secrets
from filature.store.store import Store

NOW_MS = 1_800_000_000_000


async def test_a_secret_is_made_once(database_url: str) -> None:
    store = await Store.open(database_url, lambda: NOW_MS)
    try:
        both = await asyncio.gather(store.secret("a"), store.secret("a"))
        other = await store.secret("b")
        rows = await store.reader.read(lambda c: c.execute(select(kept_secrets)).all())
    finally:
        await store.close()
    first = both[0]
    assert both[1] == first
    assert len(first) == len(other) == 32
    assert other != first
    assert sorted((row.name, bytes(row.value), row.created_ms) for row in rows) == [
        ("a", first, NOW_MS),
        ("b", other, NOW_MS),
    ]
    again = await Store.open(database_url, lambda: NOW_MS + 1)
    try:
        assert await again.secret("a") == first
        assert await again.secret("b") == other
    finally:
        await again.close()


async def test_each_database_has_its_own(database_url: str, empty_database_url: str) -> None:
    made = []
    for url in (database_url, empty_database_url):
        store = await Store.open(url)
        made.append(await store.secret("a"))
        await store.close()
    assert made[0] != made[1]


async def test_what_cannot_be_stored_is_not_told(database_url: str) -> None:
    store = await Store.open(database_url)
    try:
        await store.writer.call(kept_secrets.drop)
        with pytest.raises(StoreError):
            await store.secret("a")
    finally:
        await store.close()
