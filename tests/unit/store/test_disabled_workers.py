"""Workers that were disabled stay so until they are enabled, also after a restart."""

import pytest

from filature.errors import StoreError
from filature.store.disabled_workers import DisabledWorkers
from filature.store.schema import disabled_workers
from filature.store.store import Store


async def reread(store: Store) -> frozenset[str]:
    """As a process that starts now reads them."""
    return (await DisabledWorkers.load(store.reader, store.writer)).names()


async def test_disabled_until_enabled(store: Store) -> None:
    disabled = store.disabled_workers
    assert "a" not in disabled
    for _ in range(2):
        await disabled.disable("a")
        assert "a" in disabled
    await disabled.disable("b")
    assert disabled.names() == await reread(store) == {"a", "b"}
    for _ in range(2):
        await disabled.enable("a")
        assert "a" not in disabled
    assert disabled.names() == await reread(store) == {"b"}


async def test_what_cannot_be_stored_is_not_so(store: Store) -> None:
    await store.disabled_workers.disable("b")
    await store.writer.call(disabled_workers.drop)
    with pytest.raises(StoreError):
        await store.disabled_workers.disable("a")
    with pytest.raises(StoreError):
        await store.disabled_workers.enable("b")
    assert store.disabled_workers.names() == {"b"}
