from collections.abc import AsyncIterator

import pytest
from tests.unit.store.working import NOW_MS

from filature.store.store import Store


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = await Store.open(database_url, lambda: NOW_MS)
    try:
        yield store
    finally:
        await store.close()
