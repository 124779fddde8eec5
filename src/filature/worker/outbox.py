"""Reports that no proxy has acknowledged yet, on disk: they survive the worker. What a report says is not read here.

While the disk cannot be written to they are delivered from memory; what was dealt with is deleted once it can.
"""

import asyncio
import contextlib
import fcntl
import json
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from filature.errors import StoreError
from filature.wire.control import REPORTS_MAX

KEPT_MAX: Final = 1_000_000
"""Reports for proxies that are away; above it new ones are dropped, and said so."""

# A row holds what was written at once, as JSON parted by commas: a row for each report would cost three times as much.
# No place is given twice: a delivery that is answered late may not take what was written since.
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS report_batches "
    "(seq INTEGER PRIMARY KEY AUTOINCREMENT, proxy TEXT NOT NULL, number INTEGER NOT NULL, lines TEXT NOT NULL)"
)
_PAGES: Final = "PRAGMA page_size = 32768"
"""Of a new file: a row has some hundred reports of half a KiB, and is written, read and deleted by the page."""
_BY_PROXY: Final = "CREATE INDEX IF NOT EXISTS report_batches_by_proxy ON report_batches (proxy)"
"""One proxy's reports are found without passing over those for another that has been away for days."""
_EARLIER: Final = (
    "INSERT INTO report_batches (proxy, number, lines) SELECT proxy, 1, body FROM reports ORDER BY seq",
    "DROP TABLE reports",
)
"""Of what an earlier version kept."""
_HAS_EARLIER: Final = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'reports'"
_COUNT: Final = "SELECT coalesce(sum(number), 0) FROM report_batches"
_INSERT: Final = "INSERT INTO report_batches (proxy, number, lines) VALUES (?, ?, ?)"
_OLDEST: Final = (
    "SELECT seq, number, lines FROM report_batches WHERE proxy = ? AND seq > ? ORDER BY seq"
)
_AGED: Final = (
    "DELETE FROM report_batches WHERE proxy = ? AND "
    "coalesce(json_extract('[' || lines || ']', '$[#-1].started_at'), 0) < ?"
)
"""By the latest report of each row."""
_BY_NUMBER: Final = "SELECT proxy, sum(number) FROM report_batches GROUP BY proxy"
_FORGET: Final = "DELETE FROM report_batches WHERE proxy = ? AND seq <= ?"


class Delivery(NamedTuple):
    """The oldest reports for a proxy: how many, and all of them as JSON, parted by commas.

    ``more``: whether others wait behind them. Those that are written are in the rows behind ``after``, up to ``last``;
    of those that are not, ``after`` is None and ``last`` the number of the last one.
    """

    number: int
    lines: str
    more: bool
    after: int | None
    last: int


_Fresh = dict[str, deque[tuple[int, str]]]
"""By proxy: the number of each report, and its JSON."""


class Outbox:
    """Reports by the proxy that they are for, in the order in which they were made.

    ``add`` costs no wait: what was added is written by ``flush``, which the worker calls ten times a second.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh: _Fresh = {}
        self._added = 0
        self._dealt: dict[str, int] = {}  # the last row for each proxy that was dealt with
        self._deleted: dict[str, int] = {}  # and the last that is deleted: not more than the former
        self._in_use = threading.Lock()  # the connection, which goes from thread to thread
        self._connection: sqlite3.Connection | None = None
        self._locked: BinaryIO | None = None
        self._count = 0  # with those that are not written yet
        self.kept_max = KEPT_MAX
        self.dropped = 0
        self.failing = False
        """Whether the last write failed."""

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
        place = self._path.with_suffix(".lock")
        place.touch(mode=0o600)  # whoever can open it can hold the lock
        locked = place.open("wb")
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

    def add(self, proxy: str, line: str) -> None:
        """``line`` is the report as JSON, with its ``id``."""
        if self._count >= self.kept_max:
            self.dropped += 1
            return
        self._count += 1
        self._keep(proxy, line)

    def _keep(self, proxy: str, line: str) -> None:
        self._added += 1
        fresh = self._fresh.get(proxy)
        if fresh is None:
            fresh = self._fresh[proxy] = deque()
        fresh.append((self._added, line))

    async def flush(self) -> None:
        """Write what was added since, delete what was dealt with.

        Raises StoreError; then both are kept, for the next call.
        """
        deleted = self._deleted
        dealt = {each: at for each, at in self._dealt.items() if at > deleted.get(each, 0)}
        if not self._fresh and not dealt:
            return
        fresh, self._fresh = self._fresh, {}
        try:
            await self._in_thread(self._write, fresh, dealt)
        except sqlite3.Error as error:
            for proxy, since in self._fresh.items():
                fresh.setdefault(proxy, deque()).extend(since)
            self._fresh = fresh
            self.failing = True
            raise StoreError(f"The outbox {self._path} cannot be written to: {error}") from None
        self.failing = False
        deleted.update(dealt)

    async def oldest(self, proxy: str) -> Delivery | None:
        """The next to deliver to a proxy: of the rows; where there are none, and none can be written, of those in
        memory. Raises StoreError.
        """
        try:
            found: Delivery = await self._in_thread(self._first, proxy, self._dealt.get(proxy, 0))
        except sqlite3.Error as error:
            if not self.failing:
                raise StoreError(f"The outbox {self._path} cannot be read: {error}") from None
        else:
            if found.number:
                more = found.more or (self.failing and proxy in self._fresh)
                return found._replace(more=more)
        return self._unwritten(proxy) if self.failing else None

    def _unwritten(self, proxy: str) -> Delivery | None:
        fresh = self._fresh.get(proxy)
        if not fresh:
            return None
        some = list(islice(fresh, REPORTS_MAX))
        lines = ",".join(line for _, line in some)
        return Delivery(len(some), lines, len(fresh) > len(some), None, some[-1][0])

    def forget(self, proxy: str, delivery: Delivery, ids: Collection[str]) -> int:
        """Those of a delivery that have ``ids`` were dealt with; how many they are.

        What is left of rows goes behind all others; what was written since it was taken from memory stays.
        """
        forget = self._forget_fresh if delivery.after is None else self._forget_rows
        gone = forget(proxy, delivery, ids)
        self._count -= gone
        return gone

    def _forget_rows(self, proxy: str, delivery: Delivery, ids: Collection[str]) -> int:
        if self._dealt.get(proxy, 0) != delivery.after:
            return 0  # it was delivered twice, and this is the later answer
        left = _left(delivery.lines, ids) if len(ids) < delivery.number else []
        if len(left) < delivery.number:
            self._dealt[proxy] = delivery.last
            for line in left:
                self._keep(proxy, line)
        return delivery.number - len(left)

    def _forget_fresh(self, proxy: str, delivery: Delivery, ids: Collection[str]) -> int:
        fresh = self._fresh.get(proxy, deque())
        delivered: list[tuple[int, str]] = []
        while fresh and fresh[0][0] <= delivery.last:
            delivered.append(fresh.popleft())
        left = [each for each in delivered if _left(each[1], ids)]
        fresh.extendleft(reversed(left))
        if not fresh:
            self._fresh.pop(proxy, None)
        return len(delivered) - len(left)

    async def forget_others(self, proxies: Collection[str], before_s: float) -> dict[str, int]:
        """Forget what was written for others than ``proxies`` and began before ``before_s``, in Unix time.

        What is left for others, by proxy. For the start, before anything is added. Raises StoreError.
        """
        try:
            left: dict[str, int] = await self._in_thread(self._age, proxies, before_s)
        except sqlite3.Error as error:
            raise StoreError(f"The outbox {self._path} cannot be used: {error}") from None
        return left

    async def _in_thread(self, function: Callable[..., Any], *values: object) -> Any:
        """What was begun is done before anything else, also when nobody waits for it any more.

        The thread is a daemon: where the disk hangs the process ends without it.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def tell(tell_done: Callable[[Any], None], told: Any) -> None:
            if not done.cancelled():
                tell_done(told)

        def alone() -> None:
            try:
                with self._in_use:
                    result = function(*values)
            except BaseException as error:  # noqa: BLE001 - whatever it is goes to whoever waits
                call = (done.set_exception, error)
            else:
                call = (done.set_result, result)
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
                loop.call_soon_threadsafe(tell, *call)

        threading.Thread(target=alone, name="outbox", daemon=True).start()
        return await asyncio.shield(done)

    # in a thread

    def _prepare(self) -> None:
        self._path.touch(mode=0o600)
        self._path.chmod(
            0o600
        )  # of an earlier one; the files that the database puts beside it have the same
        connection = self._connect()
        with _transaction(connection):
            connection.execute(_TABLE)
            connection.execute(_BY_PROXY)
            if connection.execute(_HAS_EARLIER).fetchone() is not None:
                for statement in _EARLIER:
                    connection.execute(statement)
        (self._count,) = connection.execute(_COUNT).fetchone()

    def _age(self, proxies: Collection[str], before_s: float) -> dict[str, int]:
        with self._guarded() as connection, _transaction(connection):
            others = [each for each, _ in connection.execute(_BY_NUMBER) if each not in proxies]
            connection.executemany(_AGED, [(each, before_s) for each in others])
            left = dict(connection.execute(_BY_NUMBER).fetchall())
        self._count = sum(left.values())
        return {each: number for each, number in left.items() if each not in proxies}

    def _connect(self) -> sqlite3.Connection:
        """Kept open: the last connection that closes writes the whole log back, and waits for the disk."""
        if self._connection is None:
            connection = sqlite3.connect(
                self._path, timeout=5, isolation_level=None, check_same_thread=False
            )
            self._connection = connection
            connection.execute(_PAGES)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _write(self, fresh: _Fresh, dealt: Mapping[str, int]) -> None:
        with self._guarded() as connection, _transaction(connection):
            for place in dealt.items():
                connection.execute(_FORGET, place)
            for proxy, reports in fresh.items():
                lines = [line for _, line in reports]
                for start in range(0, len(lines), REPORTS_MAX):
                    some = lines[start : start + REPORTS_MAX]
                    connection.execute(_INSERT, (proxy, len(some), ",".join(some)))

    def _first(self, proxy: str, after: int) -> Delivery:
        number, last, more = 0, after, False
        found: list[str] = []
        with self._guarded() as connection:
            rows = connection.execute(_OLDEST, (proxy, after))
            for seq, each, lines in rows:
                more = number + each > REPORTS_MAX
                if more:
                    break
                number, last = number + each, seq
                found.append(lines)
            rows.close()
        return Delivery(number, ",".join(found), more, after, last)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        """The connection, which is made anew after an error: a transaction that was under way ends with it."""
        try:
            yield self._connect()
        except BaseException:
            self._disconnect()
            raise


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """What fails is undone when the connection is closed."""
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")


def _left(lines: str, ids: Collection[str]) -> list[str]:
    """Those of some reports that have none of ``ids``."""
    reports = json.loads(f"[{lines}]")
    return [json.dumps(each) for each in reports if each["id"] not in ids]
