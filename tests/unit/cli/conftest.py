from pathlib import Path

import pytest
from tests.unit.cli.calling import Caller


@pytest.fixture
def cli(tmp_path: Path) -> Caller:
    return Caller(tmp_path / "data")
