from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.admin.api import Api, opened


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with opened(f"sqlite:///{tmp_path}/f.db") as api:
        yield api


@pytest.fixture
async def either(database_url: str) -> AsyncIterator[Api]:
    """The same on SQLite and on PostgreSQL."""
    async with opened(database_url) as api:
        yield api
