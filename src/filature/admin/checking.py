"""Whether a store's ledger is sound: what is stored, what the process holds in memory, and both beside each other.

The rules are ``ledger.invariants``'. What is here is when to look, while requests go on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select

from filature.errors import StoreError
from filature.ledger.accounts import Account
from filature.ledger.invariants import (
    Invariant,
    Violation,
    check_accounts,
    check_holds,
    check_ledger,
    check_sides,
)
from filature.ledger.transfers import Transfer, TransferKind
from filature.relay.outcome import Outcome
from filature.store.embedded import EmbeddedLedger
from filature.store.ledger_rows import read_accounts, read_corrected, read_transfers
from filature.store.schema import transfers, usage_records
from filature.store.store import Store
from filature.units import AccountId, HoldId, TransferId

_FETCHED = 1000
_FREE: Final = frozenset(outcome.value for outcome in Outcome if not outcome.is_charged)
Totals = dict[AccountId, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Report:
    """What was looked at, and what is wrong."""

    accounts: int
    transfers: int
    holds: int
    usage_records: int
    violations: list[Violation]


class _Stored(NamedTuple):
    totals: Totals
    transfers: int
    usage_records: int
    violations: list[Violation]


async def check_store(store: Store) -> Report:
    """All invariants, over everything stored and the open holds. Raises StoreError when it cannot be read.

    An account's totals only grow. So those in memory before everything was stored, those stored, and
    those in memory after they were read must not fall; where nothing happened meanwhile they are equal.
    """
    ledger = store.ledger
    if ledger.failing is not None:
        raise StoreError(f"The ledger cannot be written to now: {ledger.failing}")
    before = _totals(ledger)
    await ledger.flush()
    stored = await store.reader.read(_check_stored)
    open_holds = [hold.id for hold in ledger.state.holds.values()]
    charged = await store.reader.read(lambda connection: _charged(connection, open_holds))
    violations = [
        *stored.violations,
        *_check_memory(ledger, charged),
        *_check_between(before, stored.totals, "memory", "the database"),
        *_check_between(stored.totals, _totals(ledger), "the database", "memory"),
    ]
    return Report(
        accounts=len(stored.totals),
        transfers=stored.transfers,
        holds=len(ledger.state.holds),
        usage_records=stored.usage_records,
        violations=violations,
    )


def _totals(ledger: EmbeddedLedger) -> Totals:
    accounts = ledger.state.accounts.values()
    return {account.id: (account.debits, account.credits) for account in accounts}


def _check_stored(connection: Connection) -> _Stored:
    """What is stored at one moment."""
    if connection.dialect.name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ")
    accounts: list[Account] = read_accounts(connection)
    corrected = read_corrected(connection)
    number = 0

    def counted() -> Iterator[Transfer]:
        nonlocal number
        for transfer in read_transfers(connection):
            number += 1
            yield transfer

    violations = check_ledger(accounts, counted(), corrected=corrected)
    usage_records = 0
    for count, found in _check_usage(connection, corrected):
        usage_records += count
        violations += found
    return _Stored(
        {account.id: (account.debits, account.credits) for account in accounts},
        number,
        usage_records,
        violations,
    )


def _check_usage(
    connection: Connection, corrected: dict[TransferId, int]
) -> Iterator[tuple[int, list[Violation]]]:
    """Whether each usage record that is kept tells the cost that was charged, and nobody paid for an outcome that is
    free; some at a time, and how many.

    A charge that was corrected may be told as it was, or as what is left of it.
    """
    table, charge = usage_records.c, transfers.c
    is_charge = (charge.id == table.id) & (charge.kind == TransferKind.CHARGE)
    query = select(
        table.id, table.account, table.outcome, table.total_cost, charge.amount, charge.debit
    ).select_from(usage_records.outerjoin(transfers, is_charge))
    result = connection.execute(query, execution_options={"yield_per": _FETCHED})
    for rows in result.partitions():
        wrong = []
        for row in rows:
            message = _wrong_usage(row, corrected)
            if message:
                wrong.append(Violation(Invariant.ONE_OUTCOME, row.id, message))
        yield len(rows), wrong


def _wrong_usage(row: Any, corrected: dict[TransferId, int]) -> str:
    cost = row.total_cost
    if row.amount is None:
        return f"its usage record says {cost}, and nothing was charged" if cost else ""
    left = row.amount - corrected.get(row.id, 0)
    if not left <= cost <= row.amount:
        return f"its usage record says {cost}, {left} was charged"
    if row.account != row.debit:
        return f"its usage record is of {row.account}, {row.debit} was charged"
    if left and row.outcome in _FREE:
        return f"its usage record says {row.outcome}, which costs nothing, and {left} was charged"
    return ""


def _charged(connection: Connection, holds: list[HoldId]) -> set[str]:
    """Those of the holds whose charge is stored."""
    found: set[str] = set()
    for start in range(0, len(holds), _FETCHED):
        some = holds[start : start + _FETCHED]
        found.update(
            connection.execute(select(transfers.c.id).where(transfers.c.id.in_(some))).scalars()
        )
    return found


def _check_memory(ledger: EmbeddedLedger, charged: set[str]) -> Iterator[Violation]:
    """Balances and open holds as they are now; no hold is open whose charge was stored before."""
    accounts = list(ledger.state.accounts.values())
    holds = list(ledger.state.holds.values())
    yield from check_accounts(accounts)
    yield from check_sides(accounts, holds)
    yield from check_holds(accounts, holds)
    for hold in holds:
        if hold.id in charged:
            yield Violation(Invariant.ONE_OUTCOME, HoldId(hold.id), "open and charged")


def _check_between(
    earlier: Totals, later: Totals, earlier_name: str, later_name: str
) -> Iterator[Violation]:
    """Debits and credits never fall from one look to the next."""
    for account, (debits, credits_) in earlier.items():
        found = later.get(account)
        if found is None:
            message = f"it is in {earlier_name} and not in {later_name}"
            yield Violation(Invariant.BALANCES, account, message)
        elif found[0] < debits or found[1] < credits_:
            message = (
                f"debits and credits {(debits, credits_)} in {earlier_name}, then {found} in "
                f"{later_name}"
            )
            yield Violation(Invariant.BALANCES, account, message)
