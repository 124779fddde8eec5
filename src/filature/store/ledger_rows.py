"""The ledger's rows as its own types, read with a connection. Balances and transfers, nothing of holds."""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection, Row, func, or_, select

from filature.ledger.accounts import Account, AccountKind
from filature.ledger.transfers import Transfer, TransferKind
from filature.store.schema import ledger_accounts, transfers
from filature.units import AccountId, Nano, TransferId

_FETCHED: Final = 1000
"""Rows taken from the database at a time."""


def read_accounts(connection: Connection) -> list[Account]:
    """All accounts with their stored totals, by name."""
    rows = connection.execute(select(ledger_accounts).order_by(ledger_accounts.c.id))
    return [
        Account(
            AccountId(row.id),
            AccountKind(row.kind),
            Nano(row.debits),
            Nano(row.credits),
        )
        for row in rows
    ]


def read_transfers(connection: Connection) -> Iterator[Transfer]:
    """All transfers, in the order in which they were decided."""
    return (transfer for _, transfer in numbered_transfers(connection))


def numbered_transfers(
    connection: Connection,
    *,
    account: AccountId | None = None,
    after_seq: int = 0,
    limit: int | None = None,
) -> Iterator[tuple[int, Transfer]]:
    """As ``read_transfers``, each with its number, from which to read on; those that touch ``account``, or all."""
    query = select(transfers).where(transfers.c.seq > after_seq).order_by(transfers.c.seq)
    if account is not None:
        query = query.where(or_(transfers.c.debit == account, transfers.c.credit == account))
    if limit is not None:
        query = query.limit(limit)
    options = {"yield_per": _FETCHED}
    for row in connection.execute(query, execution_options=options):
        yield row.seq, _transfer(row)


def last_seq(connection: Connection) -> int:
    """The number of the latest transfer; 0: there is none."""
    return connection.execute(select(func.max(transfers.c.seq))).scalar() or 0


def read_transfer(connection: Connection, transfer: TransferId) -> Transfer | None:
    row = connection.execute(select(transfers).where(transfers.c.id == transfer)).first()
    return None if row is None else _transfer(row)


def read_corrections(connection: Connection, transfer: TransferId) -> list[Transfer]:
    """The transfers that correct it."""
    query = select(transfers).where(transfers.c.corrects == transfer).order_by(transfers.c.seq)
    return [_transfer(row) for row in connection.execute(query)]


def read_corrected(connection: Connection) -> dict[TransferId, int]:
    """The transfers that others correct, each with how much of it, nano-credits."""
    table = transfers.c
    query = select(table.corrects, table.amount).where(table.corrects.is_not(None))
    corrected: dict[TransferId, int] = {}
    for row in connection.execute(query):
        corrected[row.corrects] = corrected.get(row.corrects, 0) + row.amount
    return corrected


def _transfer(row: Row[Any]) -> Transfer:
    return Transfer(
        id=TransferId(row.id),
        kind=TransferKind(row.kind),
        debit=AccountId(row.debit),
        credit=AccountId(row.credit),
        amount=Nano(row.amount),
        at_ms=row.at_ms,
        fee=Nano(row.fee),
        fee_bp=row.fee_bp,
        held=Nano(row.held),
        corrects=None if row.corrects is None else TransferId(row.corrects),
        note=row.note,
    )
