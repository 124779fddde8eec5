"""What a client and the log are told where an answer that had to wait cannot be made."""

import asyncio
from typing import Any

import pytest

from filature.errors import FilatureError, StoreError
from filature.relay.deferred import Deferred


class Connection:
    """As much of a ``DownstreamConnection`` as is asked."""

    exchange: object = None
    deadline = 0.0


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (StoreError(), []),  # for each request while the database is away: its writer said why
        (StoreError("postgresql://db cannot be read"), ["postgresql://db cannot be read"]),
    ],
)
async def test_the_log_is_told_what_it_does_not_know_yet(
    error: StoreError, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    failed: asyncio.Future[FilatureError] = asyncio.get_running_loop().create_future()
    connection: Any = Connection()

    async def work() -> None:
        raise error

    Deferred(connection, done=lambda _: None, failed=failed.set_result).start(work())
    told = await failed
    assert isinstance(told, StoreError)
    assert "postgresql" not in told.message
    assert caplog.messages == [f"an answer could not be made: {line}" for line in lines]
