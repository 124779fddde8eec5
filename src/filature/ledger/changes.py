"""From a transfer to what it changes on accounts, and whether the accounts can bear it."""

from filature.ledger.accounts import FEES, AccountKind
from filature.ledger.outcomes import BalanceChange, Outcome
from filature.ledger.state import State
from filature.ledger.transfers import Transfer, TransferKind
from filature.units import NANO_MAX, NANO_ZERO, Nano


def changes_of(transfer: Transfer, *, released: Nano = NANO_ZERO) -> tuple[BalanceChange, ...]:
    """The changes of a transfer, one per account; ``released`` is the hold that ends with it.

    Written out per kind rather than summed over ``Transfer.legs``, by which it is checked.
    """
    amount, fee = transfer.amount, transfer.fee
    if not fee:
        return (
            BalanceChange(transfer.debit, amount, 0, -released),
            BalanceChange(transfer.credit, 0, amount, 0),
        )
    if transfer.kind is TransferKind.CORRECTION:
        return (
            BalanceChange(transfer.debit, amount - fee, 0, 0),
            BalanceChange(FEES, fee, 0, 0),
            BalanceChange(transfer.credit, 0, amount, 0),
        )
    return (
        BalanceChange(transfer.debit, amount, 0, -released),
        BalanceChange(transfer.credit, 0, amount - fee, 0),
        BalanceChange(FEES, 0, fee, 0),
    )


def refusal_of(state: State, changes: tuple[BalanceChange, ...]) -> Outcome | None:
    """Why the accounts cannot take these changes; None when they can.

    Debits and holds together stay within int64, so that an open hold can always be posted as far as
    its client is concerned.
    """
    for change in changes:
        account = state.accounts.get(change.account)
        if account is None:
            return Outcome.UNKNOWN_ACCOUNT
        credits_after = account.credits + change.credits
        used_after = account.debits + change.debits + account.held + change.held
        if credits_after > NANO_MAX or used_after > NANO_MAX:
            return Outcome.OVERFLOW
        if account.kind is AccountKind.CLIENT and used_after > credits_after:
            return Outcome.INSUFFICIENT
    return None
