"""How long workers were there, by day: ready, and idle while they were; and what they refused. It only adds up."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from filature.store.reader import Reader
from filature.store.schema import worker_days
from filature.store.writer import GroupWriter


@dataclass(slots=True)
class WorkerDay:
    """A worker on one day (its number since 1970, by UTC). Times are milliseconds."""

    worker: str
    day: int
    ready_ms: int = 0
    """In which it took requests."""
    idle_ms: int = 0
    """Of these, in which it had none."""
    refused: int = 0
    """Requests that it sent back, since it was full."""


class WorkerDays:
    """The stored ones."""

    def __init__(self, reader: Reader, writer: GroupWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def add(self, days: Iterable[WorkerDay]) -> None:
        """On top of what is stored, all or nothing. Raises StoreError."""
        rows = list(days)
        if rows:
            await self._writer.call(lambda connection: _add(connection, rows))

    async def list(self, worker: str, since_day: int) -> list[WorkerDay]:
        """The earliest first."""
        table = worker_days.c
        query = (
            select(table.worker, table.day, table.ready_ms, table.idle_ms, table.refused)
            .where(table.worker == worker, table.day >= since_day)
            .order_by(table.day)
        )
        return await self._reader.read(
            lambda connection: [WorkerDay(*row) for row in connection.execute(query)]
        )


def _add(connection: Connection, rows: Iterable[WorkerDay]) -> None:
    table = worker_days.c
    for row in rows:
        added = (
            update(worker_days)
            .where(table.worker == row.worker, table.day == row.day)
            .values(
                ready_ms=table.ready_ms + row.ready_ms,
                idle_ms=table.idle_ms + row.idle_ms,
                refused=table.refused + row.refused,
            )
        )
        if connection.execute(added).rowcount == 0:
            connection.execute(
                insert(worker_days).values(
                    worker=row.worker,
                    day=row.day,
                    ready_ms=row.ready_ms,
                    idle_ms=row.idle_ms,
                    refused=row.refused,
                )
            )
