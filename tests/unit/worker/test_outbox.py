"""Reports on disk: kept in order, by proxy, until they are forgotten, across restarts."""

import sqlite3
from pathlib import Path

import pytest

from filature.errors import StoreError
from filature.wire.control import REPORTS_MAX
from filature.worker import outbox as module
from filature.worker.outbox import Outbox

A, B = "https://a.example", "https://b.example"


async def opened(path: Path) -> Outbox:
    outbox = Outbox(path / "worker" / "outbox.db")
    await outbox.open()
    return outbox


async def test_reports_are_kept_by_proxy_and_in_order_until_they_are_forgotten(
    tmp_path: Path,
) -> None:
    outbox = await opened(tmp_path)
    for number in range(5):
        outbox.add(A if number % 2 == 0 else B, f"r{number}", f'{{"id":"r{number}"}}')
    assert await outbox.oldest(A) == [], "what is not written is not delivered"
    await outbox.flush()
    rows = await outbox.oldest(A)
    assert [id_ for _, id_, _ in rows] == ["r0", "r2", "r4"]
    await outbox.forget([place for place, id_, _ in rows if id_ != "r2"])
    again = await opened(tmp_path)
    assert [line for _, _, line in await again.oldest(A)] == ['{"id":"r2"}']
    assert [id_ for _, id_, _ in await again.oldest(B)] == ["r1", "r3"]
    assert len(again) == 3


async def test_a_delivery_is_bounded(tmp_path: Path) -> None:
    outbox = await opened(tmp_path)
    for number in range(REPORTS_MAX + 10):
        outbox.add(A, f"r{number}", "{}")
    await outbox.flush()
    assert len(await outbox.oldest(A)) == REPORTS_MAX


async def test_above_the_bound_new_ones_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 2)
    outbox = await opened(tmp_path)
    for number in range(3):
        outbox.add(A, f"r{number}", "{}")
    assert (len(outbox), outbox.dropped) == (2, 1)


async def test_what_cannot_be_written_is_kept_and_written_later(tmp_path: Path) -> None:
    outbox = await opened(tmp_path)
    path = tmp_path / "worker" / "outbox.db"
    with sqlite3.connect(path) as other:
        other.execute("ALTER TABLE reports RENAME TO away")
    other.close()
    outbox.add(A, "r", "{}")
    with pytest.raises(StoreError):
        await outbox.flush()
    assert len(outbox) == 1
    with sqlite3.connect(path) as other:
        other.execute("ALTER TABLE away RENAME TO reports")
    other.close()
    await outbox.flush()
    assert [id_ for _, id_, _ in await outbox.oldest(A)] == ["r"]


async def test_a_folder_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    (tmp_path / "worker").write_text("")
    with pytest.raises(StoreError, match="outbox"):
        await opened(tmp_path)
