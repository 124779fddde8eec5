"""What ends by a defect is said, and begins anew."""

import asyncio

import pytest

from filature.worker import lasting as module
from filature.worker.lasting import lasting


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_MAX_S", 0.0)


async def test_it_is_said_each_time_and_tried_until_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried = 0

    async def run() -> None:
        nonlocal tried
        tried += 1
        if tried < 4:
            raise LookupError(f"defect {tried}")

    async with asyncio.timeout(5):
        await lasting("the thing", run)
    assert tried == 4
    assert [record.getMessage() for record in caplog.records] == [
        "the thing ended unexpectedly; it is tried again"
    ] * 3
    assert "defect 3" in caplog.text


async def test_it_ends_when_it_is_cancelled() -> None:
    running = asyncio.ensure_future(lasting("the thing", asyncio.Event().wait))  # type: ignore[arg-type]  # its True is not looked at
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
