"""What the writer knows of how a batch is written to its database: statements, and how they are run."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from filature.ledger.transfers import Transfer
from filature.store.batch import Batch
from filature.store.hot_postgres import PostgresRows
from filature.store.hot_sqlite import SqliteRows

Work = list[tuple[str, Sequence[Any]]]
"""Statements in order, each with its parameters."""


class HotRows(Protocol):
    """One kind of database. ``driver`` is the driver's own connection."""

    def prepare(self, driver: Any) -> None:
        """Once for each connection."""

    def work(self, batch: Batch, at_ms: int) -> Work:
        """What writes ``batch``. On the event loop."""

    def write(self, driver: Any, work: Work) -> None:
        """All of it in one transaction. In the writer's thread."""

    def is_stored(self, driver: Any, transfer: Transfer) -> bool:
        """Whether this very transfer is there, not only one of that id."""


def hot_rows(kind: Literal["sqlite", "postgresql"]) -> HotRows:
    return SqliteRows() if kind == "sqlite" else PostgresRows()
