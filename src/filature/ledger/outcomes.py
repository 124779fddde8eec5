"""What comes of a command: an outcome, and the rows it leaves. Business outcomes are data, never exceptions."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from filature.ledger.holds import EndedHold, Hold
from filature.ledger.transfers import Transfer
from filature.units import AccountId


class Outcome(StrEnum):
    """How a command ended. Only ``DONE`` has effects."""

    DONE = "done"
    EXISTS = "exists"
    """The same was done before: as good as done, and nothing happened now."""
    CONFLICT = "conflict"
    """The id is taken by something else."""

    INVALID_AMOUNT = "invalid_amount"
    """Not an integer, below the least (1; of holds and charges 0) or above int64."""
    INVALID_FEE = "invalid_fee"
    """Not between 0 and 10,000 basis points."""
    UNKNOWN_ACCOUNT = "unknown_account"
    WRONG_ACCOUNT = "wrong_account"
    """Of another kind than the command is for, or not an account's name."""
    INSUFFICIENT = "insufficient"
    """The account has less than that, after what is held."""
    OVERFLOW = "overflow"
    """A total would leave int64."""

    UNKNOWN_HOLD = "unknown_hold"
    """Never opened, or forgotten in a crash: it counts as voided."""
    HOLD_OPEN = "hold_open"
    HOLD_POSTED = "hold_posted"
    HOLD_VOIDED = "hold_voided"
    HOLD_EXPIRED = "hold_expired"
    EXCEEDS_HOLD = "exceeds_hold"
    NOT_DUE = "not_due"
    """Its time is not over yet."""

    UNKNOWN_TRANSFER = "unknown_transfer"
    NOT_CORRECTABLE = "not_correctable"
    """It is a correction itself."""
    EXCEEDS_TRANSFER = "exceeds_transfer"
    """More than what other corrections left of it."""


# Each request makes some of these, so they are structs, and their __init__ is spelt out: that of a dataclass stays
# interpreted. Nobody changes them.


@dataclass(slots=True)
class BalanceChange:
    """What is added to an account's totals, nano-credits. ``held`` may be negative and is not stored."""

    account: AccountId
    debits: int
    credits: int
    held: int

    def __init__(self, account: AccountId, debits: int, credits: int, held: int) -> None:  # noqa: A002
        self.account = account
        self.debits = debits
        self.credits = credits
        self.held = held


@dataclass(slots=True)
class Effects:
    """The rows that a command leaves; each account is changed at most once.

    To be stored: ``account`` (opened, empty), ``transfer``, and of ``changes`` debits and credits.
    """

    changes: tuple[BalanceChange, ...]
    transfer: Transfer | None
    opened: Hold | None
    ended: EndedHold | None
    account: AccountId | None

    def __init__(
        self,
        changes: tuple[BalanceChange, ...] = (),
        transfer: Transfer | None = None,
        opened: Hold | None = None,
        ended: EndedHold | None = None,
        account: AccountId | None = None,
    ) -> None:
        self.changes = changes
        self.transfer = transfer
        self.opened = opened
        self.ended = ended
        self.account = account

    @property
    def is_durable(self) -> bool:
        """Whether there is anything that has to be stored."""
        return self.transfer is not None or self.account is not None


NO_EFFECTS: Final = Effects()


@dataclass(slots=True)
class Result:
    """An outcome and its effects, which are ``NO_EFFECTS`` unless it is ``DONE``."""

    outcome: Outcome
    effects: Effects

    def __init__(self, outcome: Outcome, effects: Effects = NO_EFFECTS) -> None:
        self.outcome = outcome
        self.effects = effects
