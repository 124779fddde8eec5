"""The loop of these tests is the one that the proxy runs on; their chances are repeatable."""

import asyncio
import os
import random
from collections.abc import Callable

import pytest
import uvloop

SEED_VARIABLE = "MONEY_SEED"


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_report_header() -> str:
    return f"{SEED_VARIABLE}={_seed()} repeats the chances of tests/money"


def _seed() -> int:
    """One for the whole run, and for those that follow it."""
    os.environ.setdefault(SEED_VARIABLE, str(random.SystemRandom().randrange(10**6)))
    return int(os.environ[SEED_VARIABLE])


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """The test's own; the seed is told with its failure."""
    seed = f"{_seed()} {request.node.nodeid}"
    print(f"{SEED_VARIABLE}={_seed()}")  # noqa: T201 - shown where the test fails
    return random.Random(seed)
