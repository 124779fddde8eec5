"""Copies, backups and schema upgrades of whole databases, between and on both kinds."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.databases import PostgresServer, sqlite_url
from tests.unit.store.working import replaced

from filature.errors import StoreError
from filature.ledger.accounts import client_account, worker_account
from filature.ledger.commands import Correct, OpenAccount, TopUp
from filature.store.availability import WorkerDay
from filature.store.batch import UsageRow
from filature.store.database import Database
from filature.store.idempotency import Claim, Idempotency
from filature.store.keys import KeyLimits
from filature.store.marks import Mark
from filature.store.schema import metadata
from filature.store.store import Store
from filature.store.upkeep import COPIED_AT_ONCE, backup, copy, restore, upgrade
from filature.units import HoldId, Nano, TransferId

ALICE = client_account("alice")
WORKER = worker_account("w")
LATER_MS = 10**15
CHARGES = COPIED_AT_ONCE + 3
"""More than one batch of a copy holds."""

Tables = dict[str, list[tuple[Any, ...]]]


async def fill(url: str) -> Tables:
    """Something in every table; what is stored then."""
    store = await Store.open(url)
    try:
        await store.ledger.run(OpenAccount(ALICE))
        await store.ledger.run(TopUp(TransferId("t"), ALICE, Nano(10**9), 1, "a ‘note’ \U0001f9f5"))
        secret, key = await store.keys.create(ALICE, "k", KeyLimits(Nano(10**9), "month"))
        await store.worker_tokens.create("w", frozenset({"m"}))
        await store.disabled_workers.disable("w")
        await store.worker_days.add([WorkerDay("w", 1, 2, 3, 4)])
        await store.marks.put(Mark("w", "m", "prompt", 1, "{}"))
        await store.payout_requests.add("p", "w", Nano(5), Nano(5))
        await store.secret("s")
        await store.prices.set("m", prompt=1, cached=2, completion=3, fee_bp=100)
        await store.prices.set_alias("alias", "m")
        await store.prices.set_coefficient("engine", "m", 1500)
        claim = Claim(ALICE, "same", "r1", bytes(range(32)))
        idempotency = Idempotency(store.writer, lambda: 5)
        await idempotency.claim(claim, replaced)
        idempotency.settled(claim, "application/json", b'{"\x00\xff"}')
        for number in range(CHARGES):
            request = f"r{number}"
            row = UsageRow(request, ALICE, key.id, number, "m", "completed", 7, '{"id": "…"}')
            store.ledger.hold(HoldId(request), ALICE, Nano(10), 100, LATER_MS)
            store.ledger.settle(
                HoldId(request), WORKER, Nano(7), row, None, budget=(key.id, "2026-11")
            )
        await store.ledger.flush()
        await store.ledger.run(Correct(TransferId("c"), TransferId("r1"), Nano(3), 9, "mended"))
        assert secret.startswith("sk-fil-")
    finally:
        await store.close()
    tables = stored(url)
    assert all(tables.values()), "a table is empty"
    assert len(tables["transfers"]) == CHARGES + 2
    return tables


def stored(url: str) -> Tables:
    """All rows of all tables, in the order of the rows themselves: each database sorts by its own rules."""
    database = Database(url)
    try:
        with database.engine.connect() as connection:
            return {
                table.name: sorted((tuple(r) for r in connection.execute(select(table))), key=repr)
                for table in metadata.sorted_tables
            }
    finally:
        database.close()


def filled(url: str) -> Tables:
    return asyncio.run(fill(url))


@pytest.fixture
def path_of(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture
def empty_target(empty_database_url: str) -> str:
    return empty_database_url


class TestCopy:
    def test_all_arrives_at_either_kind_from_either(
        self, database_url: str, empty_target: str
    ) -> None:
        before = filled(database_url)
        rows = copy(database_url, empty_target)
        assert stored(empty_target) == before
        assert rows == {name: len(each) for name, each in before.items()}

    def test_the_copy_goes_on_where_the_original_was(
        self, empty_target: str, tmp_path: Path
    ) -> None:
        """Numbers of transfers among it: those of PostgreSQL come from a sequence of their own."""
        source = sqlite_url(tmp_path / "source.db")
        filled(source)
        copy(source, empty_target)

        async def go_on() -> None:
            store = await Store.open(empty_target)
            balance = 10**9 - 7 * CHARGES + 3
            assert store.ledger.available(ALICE) == balance
            row = UsageRow("next", ALICE, None, 1, "m", "completed", 7, "{}")
            store.ledger.hold(HoldId("next"), ALICE, Nano(10), 0, LATER_MS)
            store.ledger.settle(HoldId("next"), WORKER, Nano(7), row, None)
            await store.ledger.flush()
            assert store.ledger.available(ALICE) == balance - 7
            await store.close()

        asyncio.run(go_on())
        assert stored(empty_target)["transfers"][-1] is not None
        assert len(stored(empty_target)["transfers"]) == CHARGES + 3

    def test_a_database_that_is_not_empty_is_left_alone(
        self, database_url: str, tmp_path: Path
    ) -> None:
        source = sqlite_url(tmp_path / "source.db")
        filled(source)
        before = filled(database_url)
        with pytest.raises(StoreError, match="is not empty: there are rows in"):
            copy(source, database_url)
        assert stored(database_url) == before

    def test_one_with_the_schema_and_no_rows_is_empty(
        self, database_url: str, tmp_path: Path
    ) -> None:
        source = sqlite_url(tmp_path / "source.db")
        before = filled(source)
        copy(source, database_url)
        assert stored(database_url) == before

    def test_a_ledger_that_is_not_sound_is_not_copied(
        self, empty_target: str, tmp_path: Path
    ) -> None:
        source = sqlite_url(tmp_path / "source.db")
        filled(source)
        damage(source, f"UPDATE ledger_accounts SET credits = credits + 1 WHERE id = '{ALICE}'")
        with pytest.raises(StoreError, match=r"not sound.*cached balances.*client:alice"):
            copy(source, empty_target)
        assert not any(stored(empty_target).values())
        damage(source, f"UPDATE ledger_accounts SET credits = credits - 1 WHERE id = '{ALICE}'")
        copy(source, empty_target)  # what failed left it empty

    async def test_databases_in_use_are_refused(self, database_url: str, tmp_path: Path) -> None:
        other = sqlite_url(tmp_path / "other.db")
        store = await Store.open(database_url)
        try:
            for names in ((database_url, other), (other, database_url)):
                with pytest.raises(StoreError) as refused:
                    await asyncio.to_thread(copy, *names)
                assert refused.value.code == "store_in_use"
        finally:
            await store.close()

    def test_a_file_that_is_not_there_is_not_made(self, tmp_path: Path) -> None:
        missing = tmp_path / "missing.db"
        with pytest.raises(StoreError, match="There is no ledger at"):
            copy(f"sqlite:///{missing}", f"sqlite:///{tmp_path / 'target.db'}")
        assert list(tmp_path.iterdir()) == []


def damage(url: str, statement: str) -> None:
    database = Database(url)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(statement)
    database.close()


class TestBackup:
    @pytest.fixture(autouse=True)
    def programs(self, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
        """PostgreSQL's own come from where its server does: they do not serve a newer one."""
        if "database_url" in request.fixturenames:
            if not request.getfixturevalue("database_url").startswith("postgresql"):
                return
            server: PostgresServer = request.getfixturevalue("postgres")
            monkeypatch.setenv("PATH", f"{server.binaries}{os.pathsep}{os.environ['PATH']}")
            if shutil.which("pg_dump") is None or shutil.which("pg_restore") is None:
                pytest.skip("PostgreSQL's own pg_dump and pg_restore are not installed")

    def test_it_fills_an_empty_database(
        self, database_url: str, path_of: Path, fresh_of: "Fresh"
    ) -> None:
        before = filled(database_url)
        backup(database_url, path_of)
        target = fresh_of(database_url)
        restore(path_of, target)
        assert stored(target) == before
        asyncio.run(opens(target))

    def test_it_is_one_file_for_this_user_s_eyes(self, database_url: str, path_of: Path) -> None:
        filled(database_url)
        backup(database_url, path_of)
        assert path_of.stat().st_mode & 0o777 == 0o600
        beside = {each.name for each in path_of.parent.iterdir()}
        assert beside <= {"backup", "filature.db", "filature.db-wal", "filature.db-shm"} | {
            "filature.db.lock"
        }

    async def test_it_is_of_one_moment_while_the_ledger_is_written_to(
        self, database_url: str, path_of: Path, fresh_of: "Fresh"
    ) -> None:
        await fill(database_url)
        store = await Store.open(database_url)
        done = asyncio.Event()

        async def charge() -> int:
            number = 0
            while not done.is_set() or not number:
                request = f"s{number}"
                row = UsageRow(request, ALICE, None, number, "m", "completed", 7, "{}")
                store.ledger.hold(HoldId(request), ALICE, Nano(10), 100, LATER_MS)
                store.ledger.settle(HoldId(request), WORKER, Nano(7), row, None)
                await store.ledger.flush()
                number += 1
            return number

        charging = asyncio.create_task(charge())
        await asyncio.to_thread(backup, database_url, path_of)
        done.set()
        written = await charging
        await store.close()
        target = fresh_of(database_url)
        await asyncio.to_thread(restore, path_of, target)  # which checks the ledger
        assert CHARGES + 2 <= len(stored(target)["transfers"]) <= CHARGES + 2 + written
        await opens(target)

    def test_what_is_there_is_not_overwritten(
        self, database_url: str, path_of: Path, fresh_of: "Fresh"
    ) -> None:
        filled(database_url)
        backup(database_url, path_of)
        kept = path_of.read_bytes()
        with pytest.raises(StoreError, match="is there already"):
            backup(database_url, path_of)
        assert path_of.read_bytes() == kept
        target = fresh_of(database_url)
        other = asyncio.run(fill_with_one_account(target))
        with pytest.raises(StoreError, match="is not empty"):
            restore(path_of, target)
        assert stored(target) == other

    def test_one_of_an_earlier_schema_takes_the_place_of_a_later_one(
        self, database_url: str, path_of: Path, fresh_of: "Fresh"
    ) -> None:
        before = filled(database_url)
        for statement in (
            "DROP TABLE payout_requests",
            "DROP TABLE worker_days",
            "DROP TABLE worker_marks",
            "DROP TABLE disabled_workers",
            "DROP TABLE worker_tokens",
            "DROP TABLE secrets",
            "UPDATE alembic_version SET version_num = '0001'",
        ):
            damage(database_url, statement)
        backup(database_url, path_of)
        target = fresh_of(database_url)
        upgrade(target)
        restore(path_of, target)
        upgrade(target)
        newer = (
            "worker_tokens",
            "secrets",
            "payout_requests",
            "disabled_workers",
            "worker_marks",
            "worker_days",
        )
        assert stored(target) == before | {table: [] for table in newer}
        asyncio.run(opens(target))

    async def test_nothing_is_restored_under_a_running_proxy(
        self, database_url: str, path_of: Path
    ) -> None:
        await fill(database_url)
        await asyncio.to_thread(backup, database_url, path_of)
        store = await Store.open(database_url)
        try:
            with pytest.raises(StoreError, match="in use"):
                await asyncio.to_thread(restore, path_of, database_url)
        finally:
            await store.close()

    def test_a_damaged_backup_is_not_restored(self, tmp_path: Path, path_of: Path) -> None:
        source = sqlite_url(tmp_path / "source.db")
        filled(source)
        backup(source, path_of)
        whole = bytearray(path_of.read_bytes())
        middle = len(whole) // 2
        whole[middle : middle + 20_000] = bytes(20_000)
        path_of.write_bytes(whole)
        target = tmp_path / "target.db"
        with pytest.raises(StoreError, match=r"damaged|cannot be copied|malformed"):
            restore(path_of, f"sqlite:///{target}")
        assert not target.exists()
        assert not list(tmp_path.glob(".*"))

    def test_other_files_are_no_backups(self, tmp_path: Path, path_of: Path) -> None:
        path_of.write_text("a letter")
        with pytest.raises(StoreError, match="is no backup"):
            restore(path_of, f"sqlite:///{tmp_path / 'target.db'}")
        with pytest.raises(StoreError, match="cannot be read"):
            restore(tmp_path / "none", f"sqlite:///{tmp_path / 'target.db'}")

    def test_a_backup_of_the_other_kind_is_told_apart(self, tmp_path: Path, path_of: Path) -> None:
        source = sqlite_url(tmp_path / "source.db")
        backup(source, path_of)
        with pytest.raises(StoreError, match=r"the other kind.*filature db copy"):
            restore(path_of, "postgresql://nobody@localhost:1/none")

    def test_without_postgresql_s_programs_the_command_is_told(
        self, path_of: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "which", lambda _: None)
        with pytest.raises(StoreError, match=r"run: pg_dump --format=custom .* > FILE$") as told:
            backup("postgresql://me:sesame@host:5433/ledger", path_of)
        assert "--dbname=postgresql://me@host:5433/ledger" in told.value.message
        assert "sesame" not in told.value.message
        assert not path_of.exists()

    def test_a_failure_of_pg_dump_is_told(self, path_of: Path, tmp_path: Path) -> None:
        if shutil.which("pg_dump") is None:
            pytest.skip("no pg_dump here")
        with pytest.raises(StoreError, match=r"pg_dump failed.*connection"):
            backup(f"postgresql://me@/ledger?host={tmp_path}", path_of)
        assert list(tmp_path.iterdir()) == []


class Fresh:
    """Makes an empty database of the kind of another."""

    def __init__(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        self._tmp_path = tmp_path
        self._request = request
        self.made: list[tuple[PostgresServer, str]] = []

    def __call__(self, like: str) -> str:
        if like.startswith("sqlite"):
            folder = self._tmp_path / "fresh"
            folder.mkdir()
            return f"sqlite:///{folder / 'fresh.db'}"
        server: PostgresServer = self._request.getfixturevalue("postgres")
        self.made.append((server, server.create()))
        return self.made[-1][1]


@pytest.fixture
def fresh_of(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fresh]:
    fresh = Fresh(tmp_path, request)
    yield fresh
    for server, url in fresh.made:
        server.drop(url)


async def fill_with_one_account(url: str) -> Tables:
    store = await Store.open(url)
    await store.ledger.run(OpenAccount(client_account("bob")))
    await store.close()
    return stored(url)


async def opens(url: str) -> None:
    """As the only writer, with the money that was there."""
    store = await Store.open(url)
    assert store.ledger.available(ALICE) > 0
    await store.close()


class TestUpgrade:
    def test_it_makes_the_schema_where_there_is_none(self, empty_database_url: str) -> None:
        upgrade(empty_database_url)
        upgrade(empty_database_url)
        assert not any(stored(empty_database_url).values())

    def test_a_file_is_for_this_user_s_eyes(self, tmp_path: Path) -> None:
        path = tmp_path / "new.db"
        upgrade(f"sqlite:///{path}")
        assert path.stat().st_mode & 0o777 == 0o600

    async def test_a_database_in_use_is_refused(self, database_url: str) -> None:
        store = await Store.open(database_url)
        try:
            with pytest.raises(StoreError, match="in use"):
                await asyncio.to_thread(upgrade, database_url)
        finally:
            await store.close()

    def test_what_is_no_database_is_told(self, tmp_path: Path) -> None:
        path = tmp_path / "letter.db"
        path.write_text("a letter, and nothing that a database could be made of" * 100)
        with pytest.raises(StoreError, match="not a database"):
            upgrade(f"sqlite:///{path}")
        with pytest.raises(StoreError, match="cannot be used"):
            upgrade(f"postgresql://me@/ledger?host={tmp_path}")
        assert path.read_text().startswith("a letter")
        with pytest.raises(sqlite3.DatabaseError):
            sqlite3.connect(path).execute("SELECT * FROM transfers")
