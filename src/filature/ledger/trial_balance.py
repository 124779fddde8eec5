"""The trial balance: all accounts with their two sides, which must be equal. A report; it mends nothing."""

from collections.abc import Iterable
from dataclasses import dataclass

from filature.ledger.accounts import Account
from filature.ledger.holds import Hold


@dataclass(frozen=True, slots=True)
class TrialLine:
    """One account's totals in nano-credits: posted, and held apart from it."""

    name: str
    debits: int
    credits: int
    held_debits: int
    held_credits: int


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """The lines and their totals.

    What is held of clients is owed to nobody known until it is posted, so its credit side is one line of
    its own, ``open holds``, taken from the holds themselves.
    """

    lines: tuple[TrialLine, ...]
    total: TrialLine

    @property
    def is_balanced(self) -> bool:
        """Σ debits = Σ credits, posted and held apart."""
        total = self.total
        return total.debits == total.credits and total.held_debits == total.held_credits


def trial_balance(accounts: Iterable[Account], holds: Iterable[Hold]) -> TrialBalance:
    """From the cached totals of accounts, sorted by name, and the open holds."""
    lines = [
        TrialLine(account.id, account.debits, account.credits, account.held, 0)
        for account in sorted(accounts, key=lambda account: account.id)
    ]
    lines.append(TrialLine("open holds", 0, 0, 0, sum(hold.amount for hold in holds)))
    total = TrialLine(
        "total",
        sum(line.debits for line in lines),
        sum(line.credits for line in lines),
        sum(line.held_debits for line in lines),
        sum(line.held_credits for line in lines),
    )
    return TrialBalance(tuple(lines), total)
