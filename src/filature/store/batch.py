"""What is committed together: rows that wait for the writer, and who waits for the commit."""

from collections.abc import Callable
from typing import Any, Final

from filature.ledger.outcomes import Effects
from filature.ledger.transfers import Transfer
from filature.units import AccountId, TransferId

Committed = Callable[[], None]
"""Called on the event loop after the commit returned."""


class UsageRow:
    """A usage record as it is stored: what is searched for, and ``line``, its JSON."""

    __slots__ = (
        "account",
        "id",
        "key_id",
        "line",
        "model",
        "outcome",
        "started_ms",
        "total_cost",
    )

    def __init__(
        self,
        id_: str,
        account: str,
        key_id: str | None,
        started_ms: int,
        model: str,
        outcome: str,
        total_cost: int,
        line: str,
    ) -> None:
        self.id = id_
        self.account = account
        self.key_id = key_id
        self.started_ms = started_ms
        self.model = model
        self.outcome = outcome
        self.total_cost = total_cost
        self.line = line

    def values(self) -> tuple[Any, ...]:
        """In the order of ``USAGE_COLUMNS``."""
        return (
            self.id,
            self.account,
            self.key_id,
            self.started_ms,
            self.model,
            str(self.outcome),  # as the driver takes it without asking what an enumeration is
            self.total_cost,
            self.line,
        )


USAGE_COLUMNS: Final = "id, account, key_id, started_ms, model, outcome, total_cost, record"
"""Those of ``usage_records`` that are written."""

TRANSFER_COLUMNS: Final = (
    "id, kind, debit, credit, amount, at_ms, fee, fee_bp, held, corrects, note"
)
"""Those of ``transfers`` that are written."""


def transfer_values(transfer: Transfer) -> tuple[Any, ...]:
    """A transfer in the order of ``TRANSFER_COLUMNS``."""
    return (
        transfer.id,
        str(transfer.kind),
        transfer.debit,
        transfer.credit,
        transfer.amount,
        transfer.at_ms,
        transfer.fee,
        transfer.fee_bp,
        transfer.held,
        transfer.corrects,
        transfer.note,
    )


class Batch:
    """Rows in the order in which they were decided. Balance changes are summed per account."""

    __slots__ = (
        "accounts",
        "also",
        "committed",
        "credits",
        "debits",
        "spending",
        "transfers",
        "usage",
    )

    def __init__(self) -> None:
        self.accounts: list[AccountId] = []
        self.transfers: dict[TransferId, Transfer] = {}
        self.debits: dict[AccountId, int] = {}
        self.credits: dict[AccountId, int] = {}
        self.usage: dict[str, UsageRow] = {}
        self.spending: dict[tuple[str, str], int] = {}
        self.also: list[tuple[str, tuple[Any, ...]]] = []  # SQL with ? for each parameter
        self.committed: list[Committed] = []

    def __bool__(self) -> bool:
        return bool(self.transfers or self.usage or self.accounts or self.also or self.committed)

    def add(self, effects: Effects) -> None:
        """What the ledger decided and has to be stored of it."""
        if effects.account is not None:
            self.accounts.append(effects.account)
        transfer = effects.transfer
        if transfer is None:
            return
        self.transfers[transfer.id] = transfer
        debits, credits_ = self.debits, self.credits
        for change in effects.changes:
            account = change.account
            debits[account] = debits.get(account, 0) + change.debits
            credits_[account] = credits_.get(account, 0) + change.credits

    def spend(self, key_id: str, period: str, amount: int) -> None:
        """More of a key's budget of that period is used up."""
        key = (key_id, period)
        self.spending[key] = self.spending.get(key, 0) + amount

    def balance_changes(self) -> list[tuple[str, int, int]]:
        return [(account, self.debits[account], self.credits[account]) for account in self.debits]
