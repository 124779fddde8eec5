"""Transfers: what moved, once, and never changes. Whether it may move is decided in ``decide_transfer.py``."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from filature.ledger.accounts import FEES, AccountKind
from filature.units import BASIS_POINTS_ONE, NANO_ZERO, AccountId, Nano, TransferId


class TransferKind(StrEnum):
    """Why money moved."""

    TOP_UP = "top-up"
    REFUND = "refund"
    CHARGE = "charge"
    LATE_CHARGE = "late-charge"
    """A charge that came when its hold was gone: the operator bears it."""
    PAYOUT = "payout"
    CORRECTION = "correction"
    """The reverse of a part of an earlier transfer, or of all of it."""


SIDES: Final = {
    TransferKind.TOP_UP: (AccountKind.TREASURY, AccountKind.CLIENT),
    TransferKind.REFUND: (AccountKind.CLIENT, AccountKind.TREASURY),
    TransferKind.CHARGE: (AccountKind.CLIENT, AccountKind.WORKER),
    TransferKind.LATE_CHARGE: (AccountKind.SHORTFALL, AccountKind.WORKER),
    TransferKind.PAYOUT: (AccountKind.WORKER, AccountKind.TREASURY),
}
"""The kinds of the accounts debited and credited. A correction has its original's, the other way round."""

CHARGES: Final = (TransferKind.CHARGE, TransferKind.LATE_CHARGE)
"""What has a hold's id, a fee, and may be zero: a request that cost nothing was settled all the same."""


class Leg(NamedTuple):
    """One entry of double entry: ``amount`` (nano-credits, above zero) out of one account into another."""

    debit: AccountId
    credit: AccountId
    amount: Nano


class Transfer(NamedTuple):
    """One row of the ledger. Amounts are nano-credits.

    Of a charge, ``debit`` gives ``amount``, of which ``fees`` gets ``fee`` and ``credit`` the
    rest. Of a charge's correction, ``credit`` is given ``amount`` back, ``fee`` of it out of ``fees``
    and the rest out of ``debit``. ``held`` and ``fee_bp`` (basis points) are those of a charge's hold.
    """

    id: TransferId
    kind: TransferKind
    debit: AccountId
    credit: AccountId
    amount: Nano
    at_ms: int
    """When it was decided, Unix time in milliseconds: for people. The ledger's order is that of the commands."""
    fee: Nano = NANO_ZERO
    fee_bp: int = 0
    held: Nano = NANO_ZERO
    corrects: TransferId | None = None
    note: str = ""

    def legs(self) -> Iterator[Leg]:
        """What it moves between two accounts each; legs of zero are left out."""
        rest = Nano(self.amount - self.fee)
        if rest:
            yield Leg(self.debit, self.credit, rest)
        if self.fee:
            if self.kind is TransferKind.CORRECTION:
                yield Leg(FEES, self.credit, self.fee)
            else:
                yield Leg(self.debit, FEES, self.fee)


def fee_of(charge: Nano, fee_bp: int) -> Nano:
    """The operator's share, rounded down. In Python's integers: the product may exceed int64, so never in SQL."""
    return Nano(charge * fee_bp // BASIS_POINTS_ONE)


def corrected_fee(original: Transfer, before: Nano, amount: Nano) -> Nano:
    """What of the fee goes back when ``amount`` more is corrected after ``before`` was.

    So chosen that what is left of the charge has the fee it would have had by itself. Zero of what is no charge.
    """
    left = Nano(original.amount - before)
    return Nano(fee_of(left, original.fee_bp) - fee_of(Nano(left - amount), original.fee_bp))
