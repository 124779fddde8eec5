"""Checks of a command's own numbers and accounts that several decisions share. They read, and change nothing."""

from filature.ledger.accounts import AccountKind, kind_of
from filature.ledger.outcomes import Outcome
from filature.ledger.state import State
from filature.units import BASIS_POINTS_ONE, NANO_MAX, AccountId


def is_amount(amount: object, *, least: int) -> bool:
    """Whether it is an amount: an int (no bool, no float) from ``least`` to int64's highest."""
    return type(amount) is int and least <= amount <= NANO_MAX


def is_share(basis_points: object) -> bool:
    """Whether it is a share: an int of 0 to 10,000 basis points."""
    return type(basis_points) is int and 0 <= basis_points <= BASIS_POINTS_ONE


def wrong_account(state: State, account: AccountId, kind: AccountKind) -> Outcome | None:
    """Why it is no open account of that kind; None when it is."""
    there = state.accounts.get(account)
    if there is not None and there.kind is kind:
        return None
    return Outcome.UNKNOWN_ACCOUNT if kind_of(account) is kind else Outcome.WRONG_ACCOUNT
