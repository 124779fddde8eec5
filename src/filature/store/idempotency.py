"""Idempotency keys: who claimed which, for which request, and what became of it.

A claim is one write to the database. It ends with its request: settled in the commit that charges,
or gone. A request whose process died leaves its claim: either a report settles the request and the key is
used up, or a retry takes the key over and the request cannot be charged to its client any more.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Table, delete, exists, select, update
from sqlalchemy.dialects import postgresql, sqlite

from filature.errors import StoreError
from filature.store.batch import UsageRow
from filature.store.schema import idempotency_keys, transfers, usage_records
from filature.store.writer import CALL_S, GroupWriter
from filature.units import DAY_MS, AccountId

KEPT_MS: Final = DAY_MS
"""A key is remembered for so long after it was claimed."""
ANSWER_BYTES_MAX: Final = 64 * 1024
"""Of an answer that is kept, to be given again."""
KEY_CHARS_MAX: Final = 255
PURGED_AT_ONCE: Final = 1000

_SETTLED: Final = (
    "UPDATE idempotency_keys SET state = 'settled', content_type = ?, answer = ? "
    "WHERE account = ? AND key = ? AND request_id = ?"
)
_GONE: Final = "DELETE FROM idempotency_keys WHERE account = ? AND key = ? AND request_id = ?"


class Claim(NamedTuple):
    """A key as somebody claimed it; ``request_id`` says who."""

    account: AccountId
    key: str
    request_id: str
    body_digest: bytes
    state: str = "running"
    content_type: str | None = None
    answer: bytes | None = None
    """Of a small answer that was not streamed."""
    record: str | None = None
    """The usage record's JSON of a request that was settled."""


Replaced = Callable[[str, int], UsageRow]
"""The record of a request whose key was taken over, of its id and when it claimed the key (Unix milliseconds)."""


class Idempotency:
    """The claims of one database."""

    def __init__(self, writer: GroupWriter, wall_ms: Callable[[], int]) -> None:
        self._writer = writer
        self._wall_ms = wall_ms
        self._left: dict[str, tuple[str, str]] = {}  # by request: account and key
        # by request that has let go of its key: set when that is committed
        self._releasing: dict[str, asyncio.Event] = {}

    async def claim(self, claim: Claim, replaced: Replaced) -> Claim:
        """Claim a key: what holds it now, which is ``claim`` itself when it was free, or left by a request
        with the same body, whose record ``replaced`` makes.

        Waits for a request that lets go of it: what is stored of that may be what is taken back. Raises StoreError, at
        once while nothing can be stored.
        """
        now_ms = self._wall_ms()

        def job(connection: Connection) -> Claim | asyncio.Event:
            holder = _claim(connection, claim, replaced, now_ms)
            return self._releasing.get(holder.request_id, holder)

        while True:
            if self._writer.failing is not None:
                raise StoreError
            holder = await self._writer.call(job)
            if isinstance(holder, Claim):
                return holder
            try:
                async with asyncio.timeout(CALL_S):
                    await holder.wait()
            except TimeoutError:
                raise StoreError from None

    def settled(self, claim: Claim, content_type: str, answer: bytes | None) -> None:
        """In the commit that charges; the answer is kept when it is small and whole."""
        if answer is not None and len(answer) > ANSWER_BYTES_MAX:
            answer = None
        kept = content_type if answer is not None else None
        self._writer.pending.also.append((_SETTLED, (kept, answer, *_place(claim))))

    def release(self, claim: Claim) -> None:
        """Its request costs nothing, or was never admitted: it may run again."""
        pending, released = self._writer.pending, asyncio.Event()

        def committed() -> None:
            self._releasing.pop(claim.request_id, None)
            released.set()

        pending.also.append((_GONE, _place(claim)))
        self._releasing[claim.request_id] = released
        pending.committed.append(committed)
        self._writer.submit()

    async def recover(self) -> None:
        """At start: a running claim's request died. Charged, it is settled; else it is left to whoever is first."""
        self._left = await self._writer.call(_recover)

    async def use_up(self, request_id: str) -> None:
        """The key that a request left, if it did, before its client is charged for it. Raises StoreError.

        After it a retry is told that the request was charged; where one came before, the request has a record.
        """
        place = self._left.get(request_id)
        if place is None:
            return
        table = idempotency_keys.c
        left = (table.account == place[0]) & (table.key == place[1]) & (table.state == "left")
        settled = update(idempotency_keys).where(left, table.request_id == request_id)
        await self._writer.execute(settled.values(state="settled"))
        self._left.pop(request_id, None)

    async def purge(self) -> int:
        """Forget keys that are old enough; at most PURGED_AT_ONCE, and how many it were."""
        before_ms = self._wall_ms() - KEPT_MS
        return await self._writer.call(lambda connection: _purge(connection, before_ms))


def _place(claim: Claim) -> tuple[str, str, str]:
    return claim.account, claim.key, claim.request_id


def _claim(connection: Connection, claim: Claim, replaced: Replaced, now_ms: int) -> Claim:
    table = idempotency_keys.c
    place = (table.account == claim.account) & (table.key == claim.key)
    connection.execute(
        delete(idempotency_keys).where(
            place, table.claimed_ms < now_ms - KEPT_MS, table.state != "running"
        )
    )
    running = {"request_id": claim.request_id, "claimed_ms": now_ms, "state": "running"}
    new = {"account": claim.account, "key": claim.key, "body_digest": claim.body_digest, **running}
    if _is_inserted(connection, idempotency_keys, new):
        return claim
    held = select(idempotency_keys, usage_records.c.record).outerjoin(
        usage_records, usage_records.c.id == table.request_id
    )
    row = connection.execute(held.where(place)).one()
    if row.state == "left" and bytes(row.body_digest) == claim.body_digest:
        columns = [column.name for column in usage_records.c if column.name != "seq"]
        record = replaced(row.request_id, row.claimed_ms).values()
        _is_inserted(connection, usage_records, dict(zip(columns, record, strict=True)))
        connection.execute(update(idempotency_keys).where(place).values(running))
        return claim
    return Claim(
        AccountId(row.account),
        row.key,
        row.request_id,
        bytes(row.body_digest),
        row.state,
        row.content_type,
        None if row.answer is None else bytes(row.answer),
        row.record,
    )


def _is_inserted(connection: Connection, table: Table, row: dict[str, Any]) -> bool:
    """Unless a row with its key is there."""
    insert: Any = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert
    options = {"preserve_rowcount": True}  # psycopg's is not looked at after an INSERT otherwise
    statement = insert(table).values(row).on_conflict_do_nothing()
    return connection.execute(statement, execution_options=options).rowcount == 1


def _recover(connection: Connection) -> dict[str, tuple[str, str]]:
    table = idempotency_keys.c
    charged = exists().where(transfers.c.id == table.request_id)
    running = table.state == "running"
    connection.execute(update(idempotency_keys).where(running, charged).values(state="settled"))
    connection.execute(update(idempotency_keys).where(running).values(state="left"))
    left = select(table.request_id, table.account, table.key).where(table.state == "left")
    return {row.request_id: (row.account, row.key) for row in connection.execute(left)}


def _purge(connection: Connection, before_ms: int) -> int:
    table = idempotency_keys.c
    old = (
        select(table.account, table.key)
        .where(table.claimed_ms < before_ms, table.state != "running")
        .limit(PURGED_AT_ONCE)
    )
    rows = connection.execute(old).all()
    for account, key in rows:
        connection.execute(
            delete(idempotency_keys).where(table.account == account, table.key == key)
        )
    return len(rows)
