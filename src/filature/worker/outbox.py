"""Reports that no proxy has acknowledged yet, on disk: they survive the worker. What a report says is not read here."""

import asyncio
import contextlib
import fcntl
import json
import sqlite3
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from filature.errors import StoreError
from filature.wire.control import REPORTS_MAX

KEPT_MAX: Final = 1_000_000
"""Reports for a proxy that is away; above it new ones are dropped, and said so."""

# Few statements, whatever the number of rows: the driver lets go of the interpreter once a row or statement and has
# to ask for it back, against a busy loop.
_CHUNKS: Final = (256, 64, 16, 4, 1)
_INSERTS: Final = [
    (
        rows,
        "INSERT INTO reports (proxy, id, body) VALUES "  # noqa: S608 - question marks alone
        + ", ".join(["(?, ?, ?)"] * rows),
    )
    for rows in _CHUNKS
]
_OLDEST: Final = (
    "SELECT count(*), max(seq), group_concat(body, ',') FROM "
    "(SELECT seq, body FROM reports WHERE proxy = ? ORDER BY seq LIMIT ?)"
)
_FORGET: Final = "DELETE FROM reports WHERE seq <= ? AND proxy = ?"
_FORGET_SOME: Final = (
    "DELETE FROM reports WHERE seq <= ? AND proxy = ? AND id IN (SELECT value FROM json_each(?))"
)


class Delivery(NamedTuple):
    """The oldest reports for a proxy: how many, the last one's place, and all of them as JSON, parted by commas."""

    number: int
    last: int
    lines: str


class Outbox:
    """Reports by the proxy that they are for, in the order in which they were made.

    ``add`` costs no wait: what was added is written by ``flush``, which the worker calls ten times a second.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh: list[tuple[str, str, str]] = []
        self._in_use = threading.Lock()  # the connection, which goes from thread to thread
        self._connection: sqlite3.Connection | None = None
        self._locked: BinaryIO | None = None
        self._count = 0  # with those that are not written yet
        self.dropped = 0

    async def open(self) -> None:
        """Raises StoreError, also where another process has it."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock()
            await self._in_thread(self._prepare)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"The outbox {self._path} cannot be used: {error}") from None

    async def close(self) -> None:
        """``flush`` first."""
        await self._in_thread(self._disconnect)
        if self._locked is not None:
            self._locked.close()
            self._locked = None

    def _lock(self) -> None:
        """For as long as this process lives: reports of two workers would be delivered in one's name."""
        locked = self._path.with_suffix(".lock").open("wb")
        try:
            fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            locked.close()
            raise StoreError(
                f"Another worker runs with {self._path.parent}: give each a --data-dir of its own."
            ) from None
        self._locked = locked

    def __len__(self) -> int:
        return self._count

    def add(self, proxy: str, id_: str, line: str) -> None:
        """``line`` is the report as JSON."""
        if self._count >= KEPT_MAX:
            self.dropped += 1
            return
        self._count += 1
        self._fresh.append((proxy, id_, line))

    async def flush(self) -> None:
        """Write what was added since. Raises StoreError; then it is kept, and written at the next call."""
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, []
        try:
            await self._in_thread(self._insert, fresh)
        except sqlite3.Error as error:
            self._fresh = fresh + self._fresh
            raise StoreError(f"The outbox {self._path} cannot be written to: {error}") from None

    async def oldest(self, proxy: str) -> Delivery | None:
        """The next to deliver to a proxy. Raises StoreError."""
        try:
            row = await self._in_thread(self._first_row, _OLDEST, proxy, REPORTS_MAX)
        except sqlite3.Error as error:
            raise StoreError(f"The outbox {self._path} cannot be read: {error}") from None
        return Delivery(*row) if row[0] else None

    async def forget(self, proxy: str, delivery: Delivery, ids: Collection[str]) -> int:
        """Those of a delivery that have ``ids`` were dealt with; how many they are. Raises StoreError."""
        statement, values = _FORGET, [delivery.last, proxy]
        if len(ids) < delivery.number:
            statement, values = _FORGET_SOME, [delivery.last, proxy, json.dumps(list(ids))]
        try:
            gone: int = await self._in_thread(self._run, statement, *values)
        except sqlite3.Error as error:
            raise StoreError(f"The outbox {self._path} cannot be written to: {error}") from None
        self._count -= gone
        return gone

    async def _in_thread(self, function: Callable[..., Any], *values: object) -> Any:
        """What was begun is done before anything else, also when nobody waits for it any more."""

        def alone() -> Any:
            with self._in_use:
                return function(*values)

        return await asyncio.shield(asyncio.to_thread(alone))

    # in a thread

    def _prepare(self) -> None:
        connection = self._connect()
        connection.execute(
            "CREATE TABLE IF NOT EXISTS reports (seq INTEGER PRIMARY KEY AUTOINCREMENT, "
            "proxy TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL)"
        )
        (self._count,) = connection.execute("SELECT count(*) FROM reports").fetchone()
        self._path.chmod(0o600)

    def _connect(self) -> sqlite3.Connection:
        """Kept open: the last connection that closes writes the whole log back, and waits for the disk."""
        if self._connection is None:
            connection = sqlite3.connect(
                self._path, timeout=5, isolation_level=None, check_same_thread=False
            )
            self._connection = connection
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _insert(self, rows: list[tuple[str, str, str]]) -> None:
        values = [value for row in rows for value in row]
        self._run("BEGIN IMMEDIATE")
        at, end = 0, len(values)
        for chunk, statement in _INSERTS:
            while end - at >= 3 * chunk:
                self._run(statement, *values[at : at + 3 * chunk])
                at += 3 * chunk
        self._run("COMMIT")

    def _run(self, statement: str, *values: object) -> int:
        """How many rows it changed."""
        try:
            return self._connect().execute(statement, values).rowcount
        except sqlite3.Error:
            self._disconnect()
            raise

    def _first_row(self, query: str, *values: object) -> Any:
        try:
            return self._connect().execute(query, values).fetchone()
        except sqlite3.Error:
            self._disconnect()
            raise
