"""The stored usage records: found by id, listed, added up, and let go of when they are old."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import orjson
from sqlalchemy import Connection, Select, delete, func, select

from filature.errors import InvalidRequest, StoreError
from filature.store.reader import Reader
from filature.store.schema import usage_records
from filature.store.writer import CALL_S, GroupWriter
from filature.units import DAY_MS, AccountId

LIST_MAX: Final = 10_000
PURGED_AT_ONCE: Final = 1000
"""Rows deleted in one transaction, so that no batch of charges waits long for it."""
LOOKED_AT: Final = 10 * PURGED_AT_ONCE
"""Of the rows that are there the longest; behind them there is nothing old but what a wrong clock left."""

Group = Literal["account", "model", "day", "outcome"]


class UsageLog:
    """Queries on ``usage_records``. Charges write them (``EmbeddedLedger``), not this."""

    def __init__(self, reader: Reader, writer: GroupWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def get(self, request_id: str) -> tuple[AccountId, bytes] | None:
        """The account it belongs to, and the record's JSON. Raises StoreError, after CALL_S at the latest."""
        if not request_id.isprintable():
            return None  # no id of ours, and nothing that PostgreSQL could be asked for
        columns = select(usage_records.c.account, usage_records.c.record)
        query = columns.where(usage_records.c.id == request_id)
        try:
            async with asyncio.timeout(CALL_S):  # a client waits for it
                row = await self._reader.read(lambda connection: connection.execute(query).first())
        except TimeoutError:
            raise StoreError("The database did not answer in time.") from None
        return None if row is None else (AccountId(row.account), row.record.encode())

    async def list(
        self,
        *,
        account: AccountId | None = None,
        model: str | None = None,
        outcome: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int = 100,
        show: Callable[[str], Any] = orjson.loads,
    ) -> "tuple[list[Any], bool]":
        """Those that ended the latest first, and whether there are more than ``limit``.

        ``show`` makes of a record's JSON what is wanted, off the event loop, which it would hold up for ten
        thousand. Raises InvalidRequest on a limit out of bounds.
        """
        if not 1 <= limit <= LIST_MAX:
            raise InvalidRequest(f"limit must be 1 to {LIST_MAX}.", param="limit")
        table = usage_records.c
        query = select(table.record).order_by(table.seq.desc()).limit(limit + 1)
        query = _filtered(query, account, model, outcome, since_ms, until_ms)

        def read(connection: Connection) -> "list[Any]":
            return [show(record) for record in connection.execute(query).scalars()]

        records = await self._reader.read(read)
        return records[:limit], len(records) > limit

    async def sums(
        self,
        by: Group,
        *,
        account: AccountId | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Sequence[tuple[str | int, int, int]]:
        """Per group: its name (of a day its number since 1970-01-01), requests, nano-credits."""
        table = usage_records.c
        group = {
            "account": table.account,
            "model": table.model,
            "outcome": table.outcome,
            "day": table.started_ms // DAY_MS,
        }[by]
        query = (
            select(group.label("name"), func.count(), func.sum(table.total_cost))
            .group_by(group)
            .order_by(group)
        )
        query = _filtered(query, account, None, None, since_ms, until_ms)
        rows = await self._reader.read(lambda connection: connection.execute(query).all())
        return [(name, int(count), int(cost)) for name, count, cost in rows]

    async def purge(self, before_ms: int) -> int:
        """Delete records that began before; at most PURGED_AT_ONCE, and how many it were."""
        table = usage_records.c
        first = select(table.seq, table.started_ms).order_by(table.seq).limit(LOOKED_AT).subquery()
        old = select(first.c.seq).where(first.c.started_ms < before_ms).limit(PURGED_AT_ONCE)
        statement = delete(usage_records).where(table.seq.in_(old))

        def run(connection: Connection) -> int:
            return connection.execute(statement).rowcount

        return await self._writer.call(run)


def _filtered(
    query: Select[Any],
    account: AccountId | None,
    model: str | None,
    outcome: str | None,
    since_ms: int | None,
    until_ms: int | None,
) -> Select[Any]:
    table = usage_records.c
    for column, value in (
        (table.account, account),
        (table.model, model),
        (table.outcome, outcome),
    ):
        if value is not None:
            query = query.where(column == value)
    if since_ms is not None:
        query = query.where(table.started_ms >= since_ms)
    if until_ms is not None:
        query = query.where(table.started_ms < until_ms)
    return query
