"""Queries off the event loop, on connections of their own: nothing here changes anything."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from filature.errors import StoreError
from filature.store.database import Database

READERS_MAX: Final = 2
READS_WAITING_MAX: Final = 1000
"""Queries asked for and not answered; above it new ones are refused."""

T = TypeVar("T")


class Reader:
    """Runs queries in threads. Raises StoreError where the database cannot be read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._threads = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="store-reader")
        self._waiting = 0

    async def read(self, function: Callable[[Connection], T]) -> T:
        """The result of ``function``, which must have read all it needs when it returns."""
        if self._waiting >= READS_WAITING_MAX:
            raise StoreError("Too many queries wait for the database.")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._read, function)
        finally:
            self._waiting -= 1

    def _read(self, function: Callable[[Connection], T]) -> T:
        try:
            with self._database.engine.connect() as connection:
                return function(connection)
        except DBAPIError as error:
            raise StoreError(f"The database cannot be read: {error.orig}") from None

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
