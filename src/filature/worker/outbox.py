"""Reports that no proxy has acknowledged yet, on disk: they survive the worker. What a report says is not read here."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from filature.errors import StoreError
from filature.wire.control import REPORTS_MAX

KEPT_MAX: Final = 1_000_000
"""Reports for a proxy that is away; above it new ones are dropped, and said so."""


class Outbox:
    """Reports by the proxy that they are for, in the order in which they were made.

    ``add`` costs no wait: what was added is written by ``flush``, which the worker calls ten times a second.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh: list[tuple[str, str, str]] = []
        self._writing = asyncio.Lock()
        self._count = 0
        self.dropped = 0

    async def open(self) -> None:
        """Raises StoreError."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            await asyncio.to_thread(self._prepare)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"The outbox {self._path} cannot be used: {error}") from None

    def _prepare(self) -> None:
        with contextlib.closing(self._connect()) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS reports (seq INTEGER PRIMARY KEY AUTOINCREMENT, "
                "proxy TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL)"
            )
            connection.commit()
            (self._count,) = connection.execute("SELECT count(*) FROM reports").fetchone()
        self._path.chmod(0o600)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    def __len__(self) -> int:
        return self._count + len(self._fresh)

    def add(self, proxy: str, id_: str, line: str) -> None:
        """``line`` is the report as JSON."""
        if len(self) >= KEPT_MAX:
            self.dropped += 1
            return
        self._fresh.append((proxy, id_, line))

    async def flush(self) -> None:
        """Write what was added since. Raises StoreError; then it is kept, and written at the next call."""
        if not self._fresh:
            return
        async with self._writing:
            fresh, self._fresh = self._fresh, []
            try:
                await asyncio.to_thread(self._insert, fresh)
            except sqlite3.Error as error:
                self._fresh = fresh + self._fresh
                raise StoreError(f"The outbox {self._path} cannot be written to: {error}") from None
            self._count += len(fresh)

    async def oldest(self, proxy: str) -> list[tuple[int, str, str]]:
        """The next to deliver to a proxy: the place, id and JSON of each."""
        async with self._writing:
            return await asyncio.to_thread(self._select, proxy)

    async def forget(self, places: list[int]) -> None:
        async with self._writing:
            await asyncio.to_thread(self._delete, places)
            self._count -= len(places)

    def _insert(self, rows: list[tuple[str, str, str]]) -> None:
        with contextlib.closing(self._connect()) as connection, connection:
            connection.executemany("INSERT INTO reports (proxy, id, body) VALUES (?, ?, ?)", rows)

    def _select(self, proxy: str) -> list[tuple[int, str, str]]:
        query = "SELECT seq, id, body FROM reports WHERE proxy = ? ORDER BY seq LIMIT ?"
        with contextlib.closing(self._connect()) as connection:
            return connection.execute(query, (proxy, REPORTS_MAX)).fetchall()

    def _delete(self, places: list[int]) -> None:
        with contextlib.closing(self._connect()) as connection, connection:
            connection.executemany("DELETE FROM reports WHERE seq = ?", [(seq,) for seq in places])
