"""Marks against workers, which survive a restart. What one is made for, and what follows, is decided elsewhere."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from sqlalchemy import Connection, delete, insert, select

from filature.store.reader import Reader
from filature.store.schema import worker_marks
from filature.store.writer import GroupWriter

SUSPENDED: Final = "suspended"
"""The kind of mark of a worker that gets no requests for what it did, for all its models."""


@dataclass(frozen=True, slots=True)
class Mark:
    """``detail`` is JSON, its maker's."""

    worker: str
    model: str
    kind: str
    at_ms: int
    detail: str


class Marks:
    """All of them, held in memory. Changes are done when they are stored; after a StoreError make it again."""

    def __init__(self, writer: GroupWriter, marks: Iterable[Mark]) -> None:
        self._writer = writer
        self._marks = {(mark.worker, mark.model, mark.kind): mark for mark in marks}

    @classmethod
    async def load(cls, reader: Reader, writer: GroupWriter) -> Self:
        return cls(writer, await reader.read(_read))

    def all(self) -> list[Mark]:
        """The oldest first."""
        return sorted(self._marks.values(), key=lambda mark: mark.at_ms)

    def of(self, worker: str) -> list[Mark]:
        return [mark for mark in self.all() if mark.worker == worker]

    async def put(self, mark: Mark) -> None:
        """One of its worker, model and kind that is there already is replaced."""
        key = (mark.worker, mark.model, mark.kind)
        row = {
            "worker": mark.worker,
            "model": mark.model,
            "kind": mark.kind,
            "at_ms": mark.at_ms,
            "detail": mark.detail,
        }
        table = worker_marks.c

        def run(connection: Connection) -> None:
            same = (
                (table.worker == mark.worker)
                & (table.model == mark.model)
                & (table.kind == mark.kind)
            )
            connection.execute(delete(worker_marks).where(same))
            connection.execute(insert(worker_marks).values(row))

        await self._writer.call(run)
        self._marks[key] = mark

    async def clear(self, worker: str, kind: str | None = None) -> None:
        """All of a worker's, or those of one kind."""
        table = worker_marks.c
        theirs = table.worker == worker
        if kind is not None:
            theirs &= table.kind == kind
        await self._writer.execute(delete(worker_marks).where(theirs))
        for key in [key for key in self._marks if key[0] == worker and kind in (None, key[2])]:
            del self._marks[key]


def _read(connection: Connection) -> list[Mark]:
    columns = ("worker", "model", "kind", "at_ms", "detail")
    query = select(*(worker_marks.c[name] for name in columns))
    return [Mark(*row) for row in connection.execute(query)]
