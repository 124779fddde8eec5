"""What each worker's account was ever given and paid, added up from the ledger as it grows: each row is read once."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select

from filature.ledger.transfers import CHARGES, TransferKind
from filature.store.ledger_rows import last_seq
from filature.store.reader import Reader
from filature.store.schema import transfers
from filature.units import AccountId

ROWS_MAX: Final = 100_000
"""Of the ledger in one query, so that others get their turn."""
_WORKER: Final = "worker:"


@dataclass(slots=True)
class Totals:
    """Of a worker's account, nano-credits; none of them ever falls."""

    earned: int = 0
    """What it was given: its shares of charges, and payouts that came back."""
    paid: int = 0
    corrected: int = 0
    """What corrections of charges took back."""
    requests: int = 0
    """Charges, those of zero too."""
    transfers: int = 0


class EarningsTotals:
    """The totals of all workers, as far as the ledger was read: at ``advance``, up to its end."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._totals: dict[AccountId, Totals] = {}
        self._read_up_to = 0

    def of(self, account: AccountId) -> Totals:
        """As of the last ``advance``. To be read only."""
        return self._totals.get(account) or Totals()

    async def advance(self) -> None:
        """Take in what was stored since. Raises StoreError; then it goes on from there the next time."""
        last = await self._reader.read(last_seq)
        while self._read_up_to < last:
            first, end = self._read_up_to, min(last, self._read_up_to + ROWS_MAX)
            given, taken = await self._reader.read(partial(_read, first=first, end=end))
            self._read_up_to = end
            for row in given:
                totals = self._totals.setdefault(AccountId(row.account), Totals())
                totals.earned += int(row.amount)
                totals.transfers += row.number
                if row.kind in CHARGES:
                    totals.requests += row.number
            for row in taken:
                totals = self._totals.setdefault(AccountId(row.account), Totals())
                totals.transfers += row.number
                if row.kind == TransferKind.PAYOUT:
                    totals.paid += int(row.amount)
                else:
                    totals.corrected += int(row.amount)


def _read(connection: Connection, first: int, end: int) -> tuple[list[Row[Any]], list[Row[Any]]]:
    """What workers' accounts were credited and debited in the rows behind ``first`` up to ``end``.

    In one transfer the worker's side moves what is not the fee, whichever side it is.
    """
    table = transfers.c
    sides = []
    for side in (table.credit, table.debit):
        query = (
            select(
                side.label("account"),
                table.kind,
                func.count().label("number"),
                func.sum(table.amount - table.fee).label("amount"),
            )
            .where(table.seq > first, table.seq <= end, side.startswith(_WORKER))
            .group_by(side, table.kind)
        )
        sides.append(list(connection.execute(query)))
    return sides[0], sides[1]
