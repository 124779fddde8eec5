"""Reports on disk: kept in order, by proxy, until they are forgotten, across restarts."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from filature.errors import StoreError
from filature.wire.control import REPORTS_MAX
from filature.worker import outbox as module
from filature.worker.outbox import Delivery, Outbox

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
        assert await outbox.forget(A, delivery, ["r0", "r4"]) == 2
        assert len(outbox) == 4
    async with opened(tmp_path) as again:
        assert await waiting(again, A) == ["r2", "r0"]
        assert await waiting(again, B) == ["r1", "r3"]
        assert len(again) == 4


async def test_a_delivery_is_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        for number in range(REPORTS_MAX + 10):
            outbox.add(A, report(number))
        await outbox.flush()
        assert await waiting(outbox, A) == [f"r{number}" for number in range(REPORTS_MAX)]


async def test_above_the_bound_new_ones_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 2)
    async with opened(tmp_path) as outbox:
        for number in range(3):
            outbox.add(A, report(number))
        assert (len(outbox), outbox.dropped) == (2, 1)


async def test_what_cannot_be_written_is_kept_and_written_later(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        path = tmp_path / "worker" / "outbox.db"
        rename(path, "report_batches", "away")
        outbox.add(A, report(1))
        for attempt in (
            outbox.flush(),
            outbox.oldest(A),
            outbox.forget(A, Delivery(1, 9, "", more=False), ["r1"]),
        ):
            with pytest.raises(StoreError, match="outbox"):
                await attempt
        assert len(outbox) == 1
        rename(path, "away", "report_batches")
        await outbox.flush()
        assert await waiting(outbox, A) == ["r1"]


def rename(path: Path, name: str, new: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute(f"ALTER TABLE {name} RENAME TO {new}")


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
            assert await outbox.forget(A, delivery, ids) == len(ids)
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
        assert await outbox.forget(A, first, [f"r{each}" for each in range(5, REPORTS_MAX)]) == 507
        assert await waiting(outbox, A) == ["r0", "r1", "r2", "r3", "r4", f"r{REPORTS_MAX}"]
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
        assert await outbox.forget(A, first, ["r0", "r1"]) == 2
        outbox.add(A, report(2))
        await outbox.flush()
        assert await outbox.forget(A, second, told) == 0
        assert await waiting(outbox, A) == ["r2"]
        assert len(outbox) == 1


async def test_reports_for_a_proxy_that_is_away_are_not_passed_over(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    statements = {
        module._OLDEST: (A,),
        module._UP_TO: (9, A),
        module._COUNT_UP_TO: (9, A),
        module._FORGET: (9, A),
    }
    with contextlib.closing(sqlite3.connect(tmp_path / "worker" / "outbox.db")) as other:
        for statement, values in statements.items():
            plan = other.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            assert [step[3].partition(" (")[0] for step in plan] == [
                "SEARCH report_batches USING INDEX report_batches_by_proxy"
            ]


async def test_what_could_not_be_taken_out_leaves_no_transaction_open(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        outbox.add(A, '{"no": "id"}')
        outbox.add(A, report(1))
        await outbox.flush()
        delivery = await outbox.oldest(A)
        assert delivery is not None
        with pytest.raises(KeyError):
            await outbox.forget(A, delivery, ["r1"])
        outbox.add(B, report(2))
        await outbox.flush()
        assert await waiting(outbox, B) == ["r2"]
        assert len(outbox) == 3
