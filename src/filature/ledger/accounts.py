"""The chart of accounts and what an account holds. Nothing here moves money.

============  =========  ============================================================
``client:…``  credit     what a client has paid and not yet used; never below what is held
``worker:…``  credit     what a worker has earned and was not yet paid
``fees``      credit     the operator's share of the charges
``shortfall`` debit      what the operator bore because it came too late for the client
``treasury``  debit      the other side of all money that came in or went out
============  =========  ============================================================
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from filature.units import NANO_ZERO, AccountId, Nano


class AccountKind(StrEnum):
    """What an account is for. The value is what its id begins with."""

    CLIENT = "client"
    WORKER = "worker"
    FEES = "fees"
    SHORTFALL = "shortfall"
    TREASURY = "treasury"


FEES: Final = AccountId("fees")
SHORTFALL: Final = AccountId("shortfall")
TREASURY: Final = AccountId("treasury")
HOUSE_ACCOUNTS: Final = (FEES, SHORTFALL, TREASURY)
"""Those that every ledger has from the start."""


def client_account(name: str) -> AccountId:
    return AccountId(f"client:{name}")


def worker_account(name: str) -> AccountId:
    return AccountId(f"worker:{name}")


def kind_of(account: AccountId) -> AccountKind | None:
    """The kind that an id tells; None when it is no id of an account."""
    if account in HOUSE_ACCOUNTS:
        return AccountKind(account)
    prefix, _, name = account.partition(":")
    if name and prefix in ("client", "worker"):
        return AccountKind(prefix)
    return None


@dataclass(slots=True)
class Account:
    """An account's totals, in nano-credits since its opening, none of them negative.

    ``debits`` and ``credits`` are posted. ``held`` is what its open holds may still debit, and is
    zero for all but clients. Only ``State.apply`` changes an account.
    """

    id: AccountId
    kind: AccountKind
    debits: Nano = NANO_ZERO
    credits: Nano = NANO_ZERO
    held: Nano = NANO_ZERO

    @property
    def balance(self) -> Nano:
        """Credits less debits; below zero for ``treasury`` and ``shortfall`` as a rule."""
        return Nano(self.credits - self.debits)

    @property
    def available(self) -> Nano:
        """What can still be held or paid out."""
        return Nano(self.credits - self.debits - self.held)
