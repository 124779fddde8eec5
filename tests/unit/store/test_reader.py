"""A database that does not answer a query: what waits is bounded, and the process ends without it."""

import asyncio
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import Connection, text

from filature.errors import StoreError
from filature.store import reader as module
from filature.store.database import Database
from filature.store.reader import Reader


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path / 'f.db'}")


async def test_a_query_that_hangs_keeps_no_process_from_its_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_S", 0.05)
    reader, begun, answers = Reader(database), Event(), Event()

    def hangs(_: Connection) -> str:
        begun.set()
        answers.wait()
        return "late"

    hanging = asyncio.create_task(reader.read(hangs))
    await asyncio.to_thread(begun.wait)
    try:
        await asyncio.wait_for(asyncio.to_thread(reader.close), 30)
        alive = [thread for thread in reader._threads if thread.is_alive()]
        assert len(alive) == 1
        assert alive[0].daemon, "the process would wait for it"
    finally:
        answers.set()
    assert await hanging == "late"
    await asyncio.to_thread(alive[0].join)


async def test_queries_that_nobody_waits_for_any_more_still_count(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READS_WAITING_MAX", module.READERS_MAX + 1)
    reader, answers, run = Reader(database), Event(), []

    def hangs(_: Connection) -> None:
        answers.wait()

    hanging = [asyncio.create_task(reader.read(hangs)) for _ in range(module.READERS_MAX)]
    left = asyncio.create_task(reader.read(lambda _: run.append("it was asked for no more")))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait([left])
    with pytest.raises(StoreError, match="Too many"):
        await reader.read(lambda _: None)
    answers.set()
    await asyncio.gather(*hanging)
    assert await reader.read(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1
    assert run == []
    reader.close()
    with pytest.raises(StoreError, match="closed"):
        await reader.read(lambda _: None)
