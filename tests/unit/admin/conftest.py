from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.admin.api import Api, opened


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with opened(tmp_path) as api:
        yield api
