"""A worker whose disk is full: its reports reach the proxy all the same."""

import asyncio
import contextlib
import sqlite3
import threading

import pytest
from tests.integration.harness import WAIT_S, RawEngine, says
from tests.integration.messages import CHAT, completion, json_answer, post
from tests.integration.network import network

from filature.worker.app import Worker
from filature.worker.settings import OUTBOX_FILE


def fill(worker: Worker) -> None:
    path = worker.settings.data_dir / OUTBOX_FILE
    with contextlib.closing(sqlite3.connect(path)) as disk, disk:
        for event in ("INSERT", "DELETE"):
            disk.execute(
                f"CREATE TRIGGER full_{event} BEFORE {event} ON report_batches "
                "BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
            )


async def test_reports_are_delivered_though_none_can_be_written() -> None:
    async with network(RawEngine(says(json_answer(completion("hi", 3, 2))))) as net:
        worker = net.workers["gpu0"]
        fill(worker)
        for _ in range(3):
            assert (await net.chain.ask(post(CHAT))).status == 200
        assert len(worker.outbox) == 3
        async with asyncio.timeout(WAIT_S):
            while len(worker.outbox):
                await asyncio.sleep(0.01)


async def test_what_drains_delivers_what_it_could_not_write() -> None:
    async with network(RawEngine(says(json_answer(completion("hi", 3, 2))))) as net:
        worker = net.workers["gpu0"]
        fill(worker)
        assert (await net.chain.ask(post(CHAT))).status == 200
        await worker.drain()
        assert len(worker.outbox) == 0


async def test_a_worker_ends_though_its_disk_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("filature.worker.app.LAST_WORDS_S", 0.05)
    async with network(RawEngine(says(json_answer(completion("hi", 3, 2))))) as net:
        worker = net.workers["gpu0"]
        with worker.outbox._in_use:  # as a write that does not end
            assert (await net.chain.ask(post(CHAT))).status == 200
            async with asyncio.timeout(WAIT_S):
                await net.leave("gpu0")
            assert "1 reports may be lost" in caplog.text
            hanging = [each for each in threading.enumerate() if each.name == "outbox"]
            assert hanging
            assert all(each.daemon for each in hanging), "the process would wait for them"
        for each in hanging:
            await asyncio.to_thread(each.join)
        await worker.outbox.close()
