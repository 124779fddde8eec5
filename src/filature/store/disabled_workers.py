"""Workers that an operator disabled: they get no requests until they are enabled again, also after a restart."""

from typing import Self

from sqlalchemy import Connection, delete, insert, select

from filature.store.reader import Reader
from filature.store.schema import disabled_workers
from filature.store.writer import GroupWriter


class DisabledWorkers:
    """Their names, held in memory. Changes are done when they are stored; after a StoreError make it again."""

    def __init__(self, writer: GroupWriter, names: set[str]) -> None:
        self._writer = writer
        self._names = names

    @classmethod
    async def load(cls, reader: Reader, writer: GroupWriter) -> Self:
        return cls(writer, await reader.read(_names))

    def __contains__(self, worker: str) -> bool:
        return worker in self._names

    def names(self) -> frozenset[str]:
        return frozenset(self._names)

    async def disable(self, worker: str) -> None:
        """One that is disabled already stays so."""
        row = {"worker": worker, "disabled_ms": self._writer.wall_ms()}

        def run(connection: Connection) -> None:
            connection.execute(delete(disabled_workers).where(disabled_workers.c.worker == worker))
            connection.execute(insert(disabled_workers).values(row))

        await self._writer.call(run)
        self._names.add(worker)

    async def enable(self, worker: str) -> None:
        """One that is not disabled stays so."""
        statement = delete(disabled_workers).where(disabled_workers.c.worker == worker)
        await self._writer.execute(statement)
        self._names.discard(worker)


def _names(connection: Connection) -> set[str]:
    return set(connection.execute(select(disabled_workers.c.worker)).scalars())
