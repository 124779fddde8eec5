"""Queries off the event loop, on connections of their own: nothing here changes anything."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from filature.errors import StoreError
from filature.store.database import Database

READERS_MAX: Final = 2
READS_WAITING_MAX: Final = 1000
"""Queries asked for and not answered; above it new ones are refused."""
CLOSE_S: Final = 1.0
"""For each thread to end what it reads, at the end."""

T = TypeVar("T")


class Reader:
    """Runs queries in threads. Raises StoreError where the database cannot be read.

    The threads are daemons: where the database does not answer the process ends without them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"store-reader-{number}", daemon=True)
            for number in range(READERS_MAX)
        ]
        for thread in self._threads:
            thread.start()

    async def read(self, function: Callable[[Connection], T]) -> T:
        """The result of ``function``, which must have read all it needs when it returns."""
        if self._waiting >= READS_WAITING_MAX:
            raise StoreError("Too many queries wait for the database.")
        self._must_be_open()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def tell(set_it: Callable[[Any], None], told: object) -> None:
            self._waiting -= 1
            if not future.done():  # else nobody waits for it any more
                set_it(told)

        def job() -> None:
            call: tuple[Callable[[Any], None], object]
            try:
                call = future.set_result, None if future.cancelled() else self._read(function)
            except Exception as error:  # noqa: BLE001 - whatever it is goes to whoever waits
                call = future.set_exception, error
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
                loop.call_soon_threadsafe(tell, *call)

        self._waiting += 1
        self._jobs.put(job)
        return await future

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _read(self, function: Callable[[Connection], T]) -> T:
        self._must_be_open()
        try:
            with self._database.engine.connect() as connection:
                return function(connection)
        except DBAPIError as error:
            raise StoreError(f"The database cannot be read: {error.orig}") from None

    def _must_be_open(self) -> None:
        if self._closed:
            raise StoreError("The database is closed.")

    def close(self) -> None:
        """What is read may end, within CLOSE_S; what waits gets a StoreError."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(CLOSE_S)
