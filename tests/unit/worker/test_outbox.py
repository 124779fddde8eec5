"""Reports on disk: kept in order, by proxy, until they are forgotten, across restarts."""

import asyncio
import contextlib
import json
import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from filature.errors import StoreError
from filature.wire.control import REPORTS_MAX
from filature.worker import outbox as module
from filature.worker.outbox import Outbox

A, B = "https://a.example", "https://b.example"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Outbox]:
    outbox = Outbox(path / "worker" / "outbox.db")
    await outbox.open()
    yield outbox
    await outbox.close()


def report(number: int) -> str:
    """With all that JSON and SQL may stumble over."""
    return json.dumps({"id": f"r{number}", "text": "a'\"\\,é\u2028\ud800"})


async def waiting(outbox: Outbox, proxy: str) -> list[str]:
    delivery = await outbox.oldest(proxy)
    if delivery is None:
        return []
    reports = json.loads(f"[{delivery.lines}]")
    assert len(reports) == delivery.number
    assert reports == [json.loads(report(int(each["id"][1:]))) for each in reports]
    return [each["id"] for each in reports]


async def test_reports_are_kept_by_proxy_and_in_order_until_they_are_forgotten(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as outbox:
        for number in range(5):
            outbox.add(A if number % 2 == 0 else B, report(number))
        assert await waiting(outbox, A) == [], "what is not written is not delivered"
        await outbox.flush()
        assert await waiting(outbox, A) == ["r0", "r2", "r4"]
        delivery = await outbox.oldest(A)
        assert delivery is not None
        outbox.add(A, report(0))  # made since, of the same request
        await outbox.flush()
        assert outbox.forget(A, delivery, ["r0", "r4"]) == 2
        assert len(outbox) == 4
        await outbox.flush()
    async with opened(tmp_path) as again:
        assert await waiting(again, A) == ["r0", "r2"], "what was left goes behind the others"
        assert await waiting(again, B) == ["r1", "r3"]
        assert len(again) == 4


async def test_a_delivery_is_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        for number in range(REPORTS_MAX + 10):
            outbox.add(A, report(number))
        await outbox.flush()
        assert await waiting(outbox, A) == [f"r{number}" for number in range(REPORTS_MAX)]


async def test_above_the_bound_new_ones_are_dropped_and_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        outbox.kept_max = 2
        for number in range(3):
            outbox.add(A, report(number))
        assert (len(outbox), outbox.dropped) == (2, 1)


async def test_what_cannot_be_written_is_kept_and_written_later(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        path = tmp_path / "worker" / "outbox.db"
        rename(path, "report_batches", "away")
        outbox.add(A, report(1))
        with pytest.raises(StoreError, match="outbox"):
            await outbox.oldest(A)
        with pytest.raises(StoreError, match="outbox"):
            await outbox.flush()
        assert await waiting(outbox, A) == ["r1"], "from memory, though nothing can be read either"
        assert len(outbox) == 1
        rename(path, "away", "report_batches")
        await outbox.flush()
        assert await waiting(outbox, A) == ["r1"]


def rename(path: Path, name: str, new: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute(f"ALTER TABLE {name} RENAME TO {new}")


async def test_its_files_are_for_nobody_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        outbox.add(A, report(1))
        await outbox.flush()
        names = ("outbox.db", "outbox.db-wal", "outbox.db-shm")
        assert modes(tmp_path / "worker") == dict.fromkeys(names, 0o600)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.glob("*.db*")}


async def test_a_folder_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    (tmp_path / "worker").write_text("")
    with pytest.raises(StoreError, match="outbox"):
        async with opened(tmp_path):
            raise AssertionError


@pytest.mark.parametrize("number", [1, 3, 4, 5, 63, 256, 257, 700])
async def test_any_number_is_written_and_forgotten_at_once(tmp_path: Path, number: int) -> None:
    async with opened(tmp_path) as outbox:
        for each in range(number):
            outbox.add(A, report(each))
        outbox.add(B, report(0))
        await outbox.flush()
        seen: list[str] = []
        while (delivery := await outbox.oldest(A)) is not None:
            ids = await waiting(outbox, A)
            assert outbox.forget(A, delivery, ids) == len(ids)
            seen += ids
        assert seen == [f"r{each}" for each in range(number)]
        assert await waiting(outbox, B) == ["r0"]
        assert len(outbox) == 1


async def test_what_is_being_written_is_written_though_nobody_waits(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        for number in range(REPORTS_MAX):
            outbox.add(A, report(number))
        writing = asyncio.ensure_future(outbox.flush())
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        outbox.add(A, report(0))
        await outbox.flush()
        assert len(outbox) == REPORTS_MAX + 1
    async with opened(tmp_path) as again:
        assert len(again) == REPORTS_MAX + 1


async def test_two_workers_do_not_share_a_folder(tmp_path: Path) -> None:
    async with opened(tmp_path):
        second = Outbox(tmp_path / "worker" / "outbox.db")
        with pytest.raises(StoreError, match="--data-dir"):
            await second.open()
    async with opened(tmp_path):
        pass


async def test_what_an_earlier_version_kept_is_delivered(tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "worker" / "outbox.db")) as earlier, earlier:
        earlier.execute(
            "CREATE TABLE reports (seq INTEGER PRIMARY KEY AUTOINCREMENT, "
            "proxy TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL)"
        )
        for proxy, number in ((A, 0), (B, 1), (A, 2)):
            row = (proxy, f"r{number}", report(number))
            earlier.execute("INSERT INTO reports (proxy, id, body) VALUES (?, ?, ?)", row)
    for _ in range(2):
        async with opened(tmp_path) as outbox:
            assert len(outbox) == 3
            assert await waiting(outbox, A) == ["r0", "r2"]
            assert await waiting(outbox, B) == ["r1"]


async def test_rows_that_do_not_fit_into_a_delivery_wait_for_the_next(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        for number in range(REPORTS_MAX):
            outbox.add(A, report(number))
            if number == 9:
                await outbox.flush()
        await outbox.flush()
        outbox.add(A, report(REPORTS_MAX))
        await outbox.flush()
        first = await outbox.oldest(A)
        assert first is not None
        assert (first.number, first.more) == (REPORTS_MAX, True)
        assert outbox.forget(A, first, [f"r{each}" for each in range(5, REPORTS_MAX)]) == 507
        await outbox.flush()
        assert await waiting(outbox, A) == [f"r{REPORTS_MAX}", "r0", "r1", "r2", "r3", "r4"]
        assert len(outbox) == 6


@pytest.mark.parametrize("told", [["r0", "r1"], ["r0"]])
async def test_what_was_delivered_twice_is_forgotten_once_and_nothing_written_since(
    tmp_path: Path, told: list[str]
) -> None:
    async with opened(tmp_path) as outbox:
        for number in range(2):
            outbox.add(A, report(number))
        await outbox.flush()
        first, second = await outbox.oldest(A), await outbox.oldest(A)
        assert first is not None
        assert second is not None
        assert outbox.forget(A, first, ["r0", "r1"]) == 2
        outbox.add(A, report(2))
        await outbox.flush()
        assert outbox.forget(A, second, told) == 0
        assert await waiting(outbox, A) == ["r2"]
        assert len(outbox) == 1


async def test_reports_for_a_proxy_that_is_away_are_not_passed_over(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    statements = {module._OLDEST: (A, 9), module._FORGET: (A, 9)}
    with contextlib.closing(sqlite3.connect(tmp_path / "worker" / "outbox.db")) as other:
        for statement, values in statements.items():
            plan = other.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            assert [step[3].partition(" (")[0] for step in plan] == [
                "SEARCH report_batches USING INDEX report_batches_by_proxy"
            ]


async def test_what_has_no_id_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        outbox.add(A, '{"no": "id"}')
        outbox.add(A, report(1))
        await outbox.flush()
        delivery = await outbox.oldest(A)
        assert delivery is not None
        with pytest.raises(KeyError):
            outbox.forget(A, delivery, ["r1"])
        outbox.add(B, report(2))
        await outbox.flush()
        assert await waiting(outbox, B) == ["r2"]
        assert len(outbox) == 3


class Disk:
    """Of an outbox; while ``full`` nothing can be written to it or deleted."""

    def __init__(self, path: Path) -> None:
        self._path = path / "worker" / "outbox.db"

    def full(self, *, full: bool) -> None:
        with contextlib.closing(sqlite3.connect(self._path)) as other, other:
            for event in ("INSERT", "UPDATE", "DELETE"):
                other.execute(f"DROP TRIGGER IF EXISTS full_{event}")
                if full:
                    other.execute(
                        f"CREATE TRIGGER full_{event} BEFORE {event} ON report_batches "
                        "BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
                    )

    def reports(self) -> list[str]:
        """The ids of those that are written, in order."""
        with contextlib.closing(sqlite3.connect(self._path)) as other:
            rows = other.execute("SELECT lines FROM report_batches ORDER BY seq").fetchall()
        return [each["id"] for (lines,) in rows for each in json.loads(f"[{lines}]")]


async def flush_in_vain(outbox: Outbox) -> None:
    with pytest.raises(StoreError, match="disk is full"):
        await outbox.flush()


async def test_while_the_disk_is_full_reports_are_delivered_from_memory_in_order(
    tmp_path: Path,
) -> None:
    disk = Disk(tmp_path)
    async with opened(tmp_path) as outbox:
        outbox.add(A, report(0))
        outbox.add(B, report(1))
        await outbox.flush()
        disk.full(full=True)
        for number in range(2, 5):
            outbox.add(A, report(number))
        await flush_in_vain(outbox)

        first = await outbox.oldest(A)
        assert first is not None
        assert (first.number, first.more) == (1, True)
        assert await waiting(outbox, A) == ["r0"], "what is written goes first"
        assert outbox.forget(A, first, ["r0"]) == 1
        second = await outbox.oldest(A)
        assert second is not None
        assert await waiting(outbox, A) == ["r2", "r3", "r4"]
        assert outbox.forget(A, second, ["r3"]) == 1
        assert await waiting(outbox, A) == ["r2", "r4"]
        assert outbox.forget(A, second, ["r2", "r3"]) == 1, "each is counted once"
        assert len(outbox) == 2
        await flush_in_vain(outbox)
        assert disk.reports() == ["r0", "r1"]

        disk.full(full=False)
        await outbox.flush()
        assert disk.reports() == ["r1", "r4"]
        assert await waiting(outbox, A) == ["r4"]
        assert await waiting(outbox, B) == ["r1"]
    async with opened(tmp_path) as again:
        assert len(again) == 2


async def test_what_was_written_or_made_while_it_was_delivered_from_memory_stays(
    tmp_path: Path,
) -> None:
    disk = Disk(tmp_path)
    async with opened(tmp_path) as outbox:
        disk.full(full=True)
        outbox.add(A, report(0))
        await flush_in_vain(outbox)
        delivery = await outbox.oldest(A)
        assert delivery is not None
        outbox.add(A, report(0))  # made since, of the same request
        assert outbox.forget(A, delivery, ["r0"]) == 1
        assert await waiting(outbox, A) == ["r0"]
        delivery = await outbox.oldest(A)
        assert delivery is not None
        disk.full(full=False)
        await outbox.flush()
        assert outbox.forget(A, delivery, ["r0"]) == 0, "it is delivered once more"
        assert await waiting(outbox, A) == ["r0"]
        assert len(outbox) == 1


async def test_a_delivery_from_memory_is_bounded(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    async with opened(tmp_path) as outbox:
        disk.full(full=True)
        for number in range(REPORTS_MAX + 1):
            outbox.add(A, report(number))
        await flush_in_vain(outbox)
        delivery = await outbox.oldest(A)
        assert delivery is not None
        assert (delivery.number, delivery.more) == (REPORTS_MAX, True)
        ids = await waiting(outbox, A)
        assert outbox.forget(A, delivery, ids) == REPORTS_MAX
        assert await waiting(outbox, A) == [f"r{REPORTS_MAX}"]


async def test_what_was_dealt_with_is_deleted_at_the_next_flush(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    async with opened(tmp_path) as outbox:
        for number in range(2):
            outbox.add(A, report(number))
        await outbox.flush()
        delivery = await outbox.oldest(A)
        assert delivery is not None
        assert outbox.forget(A, delivery, ["r0"]) == 1
        assert disk.reports() == ["r0", "r1"], "what is left is not lost meanwhile"
        await outbox.flush()
        assert disk.reports() == ["r1"]
        outbox.add(A, report(2))
        await outbox.flush()
        assert disk.reports() == ["r1", "r2"]


async def test_reports_for_proxies_that_are_not_named_any_more_are_told_of_and_forgotten_in_the_end(
    tmp_path: Path,
) -> None:
    def began(number: int, at: float) -> str:
        return json.dumps(json.loads(report(number)) | {"started_at": at})

    async with opened(tmp_path) as outbox:
        for proxy in (A, B):
            for at in (1000.0, 2000.0):
                outbox.add(proxy, began(1, at))
                outbox.add(proxy, began(2, at + 1))
                await outbox.flush()
    async with opened(tmp_path) as again:
        assert await again.forget_others([A, B], 9999.0) == {}
        assert await again.forget_others([A], 1001.0) == {B: 4}, "as old as the latest of a row"
        assert await again.forget_others([A], 1500.0) == {B: 2}
        assert len(again) == 6
        delivery = await again.oldest(B)
        assert delivery is not None
        assert [each["started_at"] for each in json.loads(f"[{delivery.lines}]")] == [2000, 2001]
        assert await again.forget_others([A], 9999.0) == {}
        assert len(again) == 4
    async with opened(tmp_path) as again:
        assert len(again) == 4, "those for a proxy that is named are kept"


async def test_its_files_are_their_owner_s_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(tmp_path) as outbox:
            outbox.add(A, report(1))
            await outbox.flush()
            modes = {each.name: each.stat().st_mode for each in (tmp_path / "worker").iterdir()}
    finally:
        os.umask(before)
    assert {"outbox.db", "outbox.lock"} <= set(modes)
    assert {stat.S_IMODE(mode) for mode in modes.values()} == {0o600}, modes
