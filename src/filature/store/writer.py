"""Group commit: one thread writes whatever waits as soon as it is free. No timer, nothing is decided here."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Executable
from sqlalchemy.exc import DBAPIError

from filature.errors import StoreError
from filature.store.batch import Batch
from filature.store.database import Database, WriterLock, take_session_lock
from filature.store.hot_rows import Work, hot_rows

TURNS_MAX: Final = 2
"""Turns of the loop in which a batch may grow before it is handed over. A turn waits for nothing, and the first that
brings nothing more ends it: under load what is ready is committed together, and an idle loop goes round once more."""
RETRY_S: Final = 0.5
"""Between two tries to commit a batch that could not be."""
STUCK_S: Final = 5.0
"""Of waiting for the database to take a batch, from which on it counts as one that cannot be written to. Less than an
answer waits for its charge; as long as SQLite waits for another process, and a connection to PostgreSQL to be made."""
CLOSE_S: Final = 10.0
"""For what waits to be committed at the end, and for the thread to stop."""
CALL_S: Final = 30.0
"""For a transaction that is not a batch."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class GroupWriter:
    """The only writer of a database.

    ``pending`` is the batch that things are added to; whoever did calls ``submit``, which hands it
    over once the thread is free. A batch that cannot be committed is tried again until it can: nothing
    later goes before it. Meanwhile ``failing`` says why, and nobody should add what can be refused.
    """

    def __init__(self, database: Database, wall_ms: Callable[[], int]) -> None:
        self._database = database
        self.wall_ms = wall_ms
        self._lock = WriterLock(database)
        self._rows = hot_rows(database.kind)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._hot: Any = None  # the raw connection of batches; the thread's own
        self._writing: Batch | None = None
        self._seen: Batch | None = None  # being written when somebody looked last, since then
        self._seen_s = 0.0
        self._count = 0  # requests that were in ``pending`` a turn ago
        self._turns = 0
        self._thread: threading.Thread | None = None
        self.pending = Batch()
        self.is_idle = True
        """Whether nothing is written or about to be: else what is added to ``pending`` needs no ``submit``."""
        self.failing: str | None = None
        self.on_committed: Callable[[Batch], None] = _nothing
        self.batches = 0
        self.transfers = 0
        self.batch_transfers_max = 0

    async def open(self) -> None:
        """Take the lock, bring the schema up to date, start the thread. Raises StoreError."""
        self._loop = asyncio.get_running_loop()
        self._lock.take()
        try:
            await asyncio.to_thread(self._open)
        except BaseException:
            self._disconnect()
            self._lock.release()
            raise
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        if self._database.kind == "postgresql":
            self._connect()  # its session holds the lock under which the schema is changed
            self._database.upgrade()
        else:
            self._database.upgrade()
            self._database.path.chmod(0o600)
            self._connect()

    async def close(self) -> None:
        """Commit what waits, within CLOSE_S, and stop. What could not be committed is lost, and said."""
        end = self._loop.time() + CLOSE_S
        while (self._writing or self.pending) and self._loop.time() < end:
            self.submit()
            if self._writing is None and not self.pending:
                break
            await asyncio.sleep(0.01)
        if self.batches:
            log.info(
                "the ledger took %d transfers in %d commits, at most %d in one",
                self.transfers,
                self.batches,
                self.batch_transfers_max,
            )
        left = self._writing or self.pending
        if left:
            log.error(
                "%d transfers and %d usage records could not be committed: %s",
                len(left.transfers),
                len(left.usage),
                self.failing or "the database does not answer",
            )
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join, CLOSE_S)
            if thread.is_alive():
                return  # it hangs in the database: whoever touches that does, too, until the process is gone
        self._disconnect()
        self._lock.release()

    # on the event loop

    def submit(self) -> None:
        """Have ``pending`` committed, a few turns of the loop later: see TURNS_MAX."""
        if self.is_idle:
            self.is_idle = False
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self.is_idle = not self.pending
        if self.is_idle:
            return
        count = len(self.pending.usage)
        if count > self._count and self._turns < TURNS_MAX:
            self._count = count
            self._turns += 1
            self._loop.call_soon(self._hand_over)
            return
        self._count = self._turns = 0
        batch, self.pending = self.pending, Batch()
        self._writing = batch
        self._write(batch, again=False)

    def _write(self, batch: Batch, *, again: bool) -> None:
        work = self._rows.work(batch, self.wall_ms())
        self._jobs.put(lambda: self._commit(batch, work, again=again))

    def _on_committed(self, batch: Batch) -> None:
        self._writing = None
        if self.failing is not None:
            log.warning("the ledger can be written to again")
            self.failing = None
        self.batches += 1
        count = len(batch.transfers)
        self.transfers += count
        self.batch_transfers_max = max(self.batch_transfers_max, count)
        self.on_committed(batch)
        self._hand_over()
        for committed in batch.committed:
            committed()

    def _on_failed(self, batch: Batch, reason: str) -> None:
        self._say_failing(reason)
        self._loop.call_later(RETRY_S, self._again, batch)

    def _say_failing(self, reason: str) -> None:
        if self.failing is None:
            log.error("the ledger cannot be written to: %s", reason)
        self.failing = reason

    def look(self, now_s: float) -> None:
        """To be called now and then: a database that does not answer fails as one that refuses does.

        ``now_s``: of a clock that only grows, in seconds.
        """
        batch = self._writing
        if batch is None or batch is not self._seen:
            self._seen, self._seen_s = batch, now_s
        elif self.failing is None and now_s - self._seen_s >= STUCK_S:
            self._say_failing(f"the database has not answered for {STUCK_S:.0f} s")

    def _again(self, batch: Batch) -> None:
        if self._thread is not None:
            self._write(batch, again=True)

    async def call(self, function: Callable[[Connection], T]) -> T:
        """The result of ``function`` in a transaction of its own. Raises StoreError, or what it raises."""
        future: asyncio.Future[T] = self._loop.create_future()

        def job() -> None:
            try:
                result = self._in_transaction(function)
            except DBAPIError as error:
                self._tell(
                    future, None, StoreError(f"The ledger cannot be written to: {error.orig}")
                )
            except Exception as error:  # noqa: BLE001 - whatever it is goes to whoever waits
                self._tell(future, None, error)
            else:
                self._tell(future, result, None)

        self._jobs.put(job)
        try:
            async with asyncio.timeout(
                CALL_S
            ):  # wait_for would swallow a cancellation now and then
                return await future
        except TimeoutError:
            raise StoreError("The ledger did not answer in time.") from None

    async def execute(self, *statements: Executable) -> None:
        """``statements`` in a transaction of their own. Raises StoreError."""

        def run(connection: Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        await self.call(run)

    # in the thread

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _tell(self, future: "asyncio.Future[T]", result: Any, error: Exception | None) -> None:
        def tell() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self._loop.call_soon_threadsafe(tell)

    def _in_transaction(self, function: Callable[[Connection], T]) -> T:
        with self._database.engine.begin() as connection:
            return function(connection)

    def _commit(self, batch: Batch, work: Work, *, again: bool) -> None:
        try:
            if self._hot is None:
                self._connect()
            if not (again and self._is_stored(batch)):
                self._rows.write(self._hot.driver_connection, work)
        except Exception as error:  # noqa: BLE001 - whatever it is, the batch is kept and tried again
            self._disconnect()
            reason = f"{type(error).__name__}: {error}"
            self._loop.call_soon_threadsafe(self._on_failed, batch, reason)
        else:
            self._loop.call_soon_threadsafe(self._on_committed, batch)

    def _is_stored(self, batch: Batch) -> bool:
        """Whether a commit happened of which that was not heard. What has no transfers may be written again."""
        first = next(iter(batch.transfers.values()), None)
        return first is not None and self._rows.is_stored(self._hot.driver_connection, first)

    def _connect(self) -> None:
        try:
            self._hot = self._database.engine.raw_connection()
        except (DBAPIError, self._database.engine.dialect.loaded_dbapi.Error) as error:
            # the pool lets the driver's own error through here
            raise StoreError(f"{self._database.name} cannot be used: {error}") from None
        if self._database.kind == "postgresql":
            take_session_lock(self._database, self._hot.driver_connection)
        self._rows.prepare(self._hot.driver_connection)

    def _disconnect(self) -> None:
        hot, self._hot = self._hot, None
        if hot is not None:
            hot.invalidate()  # closed, and with it a transaction that was under way


def _nothing(batch: Batch) -> None:
    """Until somebody wants to know."""
