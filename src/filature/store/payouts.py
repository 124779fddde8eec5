"""Payouts: those that workers asked for, and those that the ledger has. Whether one is paid is decided elsewhere."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, func, insert, select, update

from filature.errors import Conflict, NotFound
from filature.ledger.transfers import TransferKind
from filature.store.reader import Reader
from filature.store.schema import payout_requests, transfers
from filature.store.writer import GroupWriter
from filature.units import Nano, TransferId

OPEN_MAX: Final = 100
"""Requests of one worker that are neither paid nor refused."""
_TRANSFER: Final = "payout-request:"

State = Literal["open", "paid", "refused"]


def transfer_of(request_id: str) -> TransferId:
    """The id of the ledger's transfer that pays a request: of one for each, so that it is paid once."""
    return TransferId(_TRANSFER + request_id)


def request_of(transfer: TransferId) -> str | None:
    """The id of the request that a transfer pays."""
    return transfer.removeprefix(_TRANSFER) if transfer.startswith(_TRANSFER) else None


@dataclass(frozen=True, slots=True)
class PayoutRequest:
    """What a worker asked to be paid. ``ended_ms``: when it was paid or refused."""

    id: str
    worker: str
    amount: Nano
    at_ms: int
    state: State = "open"
    ended_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Payout:
    """A payout in the ledger. ``returned`` is what corrections took back of it."""

    id: TransferId
    account: str
    amount: Nano
    returned: Nano
    at_ms: int
    note: str


class PayoutRequests:
    """The stored requests. Each change is a transaction of its own; raises StoreError when it cannot be stored."""

    def __init__(self, reader: Reader, writer: GroupWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def add(self, request_id: str, worker: str, amount: Nano, most: Nano) -> PayoutRequest:
        """Store a request, or find the same one. Raises Conflict when the id is another's, or when all that
        the worker asked for and was not answered is more than ``most``."""
        asked = PayoutRequest(request_id, worker, amount, self._writer.wall_ms())
        return await self._writer.call(lambda connection: _found_or_added(connection, asked, most))

    async def get(self, request_id: str) -> PayoutRequest:
        """Raises NotFound."""
        found = await self._reader.read(lambda connection: _read(connection, request_id))
        if found is None:
            raise _not_found(request_id)
        return found

    async def list(
        self, worker: str | None = None, states: tuple[State, ...] = ("open", "paid", "refused")
    ) -> "list[PayoutRequest]":
        """In the order in which they were made."""
        table = payout_requests.c
        query = select(payout_requests).where(table.state.in_(states))
        if worker is not None:
            query = query.where(table.worker == worker)
        query = query.order_by(table.at_ms, table.id)

        def read(connection: Connection) -> "list[PayoutRequest]":
            return [_request(row) for row in connection.execute(query)]

        return await self._reader.read(read)

    async def end(self, request_id: str, state: Literal["paid", "refused"]) -> PayoutRequest:
        """Once; one that ended so before stays as it is. Raises NotFound, or Conflict when it ended otherwise."""
        now_ms = self._writer.wall_ms()
        return await self._writer.call(lambda c: _ended(c, request_id, state, now_ms))


async def read_payouts(
    reader: Reader, account: str | None = None, transfer: TransferId | None = None
) -> list[Payout]:
    """All, those of one worker's account, or one; in the order of the ledger."""
    corrections = transfers.alias()
    returned = (
        select(func.coalesce(func.sum(corrections.c.amount), 0))
        .where(corrections.c.corrects == transfers.c.id)
        .scalar_subquery()
    )
    query = select(transfers, returned.label("returned")).order_by(transfers.c.seq)
    query = query.where(transfers.c.kind == TransferKind.PAYOUT)
    if account is not None:
        query = query.where(transfers.c.debit == account)
    if transfer is not None:
        query = query.where(transfers.c.id == transfer)

    def read(connection: Connection) -> list[Payout]:
        return [
            Payout(
                TransferId(row.id),
                row.debit,
                Nano(row.amount),
                Nano(int(row.returned)),
                row.at_ms,
                row.note,
            )
            for row in connection.execute(query)
        ]

    return await reader.read(read)


def _found_or_added(connection: Connection, asked: PayoutRequest, most: Nano) -> PayoutRequest:
    """In one transaction of the only writer: nothing is asked for meanwhile."""
    found = _read(connection, asked.id)
    if found is not None:
        if (found.worker, found.amount) != (asked.worker, asked.amount):
            raise Conflict(
                "There is another payout request with this id.",
                param="id",
                code="payout_request_id_taken",
            )
        return found
    table = payout_requests.c
    query = select(func.count(), func.coalesce(func.sum(table.amount), 0))
    of_worker = (table.worker == asked.worker) & (table.state == "open")
    count, total = connection.execute(query.where(of_worker)).one()
    if count >= OPEN_MAX:
        raise Conflict(f"{OPEN_MAX} payout requests are open already.", code="payout_requests_max")
    if int(total) + asked.amount > most:
        raise Conflict(
            "That is more than was earned and neither paid nor asked for yet.",
            param="amount",
            code="insufficient_funds",
        )
    connection.execute(
        insert(payout_requests).values(
            id=asked.id,
            worker=asked.worker,
            amount=asked.amount,
            at_ms=asked.at_ms,
            state=asked.state,
        )
    )
    return asked


def _ended(
    connection: Connection, request_id: str, state: Literal["paid", "refused"], now_ms: int
) -> PayoutRequest:
    found = _read(connection, request_id)
    if found is None:
        raise _not_found(request_id)
    if found.state == state:
        return found
    if found.state != "open":
        raise Conflict(f"The payout request was {found.state}.", code=f"payout_{found.state}")
    which = payout_requests.c.id == request_id
    connection.execute(update(payout_requests).where(which).values(state=state, ended_ms=now_ms))
    return PayoutRequest(request_id, found.worker, found.amount, found.at_ms, state, now_ms)


def _read(connection: Connection, request_id: str) -> PayoutRequest | None:
    query = select(payout_requests).where(payout_requests.c.id == request_id)
    row = connection.execute(query).first()
    return None if row is None else _request(row)


def _request(row: Row[Any]) -> PayoutRequest:
    return PayoutRequest(row.id, row.worker, Nano(row.amount), row.at_ms, row.state, row.ended_ms)


def _not_found(request_id: str) -> NotFound:
    return NotFound(
        f"There is no payout request {request_id[:128]!r}.",
        param="request",
        code="payout_request_not_found",
    )
