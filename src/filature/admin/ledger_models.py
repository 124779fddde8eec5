"""The JSON of accounts, transfers and what is found when a ledger is checked."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from filature.admin.amounts import both, time_of
from filature.admin.models import Asked, Credits, Id, NanoCredits, OneLine, Result
from filature.ledger.accounts import Account
from filature.ledger.transfers import Transfer
from filature.ledger.trial_balance import TrialLine


class AccountAsked(Asked):
    """``POST /admin/v1/accounts``."""

    name: str
    kind: Literal["client", "worker"] = "client"


class MovementAsked(Asked):
    """A top-up, a refund, a payout or a correction. Give one of the two amounts."""

    amount: Credits | None = None
    amount_nano: NanoCredits | None = None
    id: Id | None = Field(
        None,
        description="The transfer's id, which makes the request safe to repeat; made when left out",
    )
    note: OneLine = ""


class AccountShown(BaseModel):
    """An account's totals. ``spent`` is all that was ever debited."""

    object: Literal["account"] = "account"
    id: str
    name: str
    kind: str
    balance: str
    balance_nano: int
    held: str
    held_nano: int
    available: str
    available_nano: int
    debits: str
    debits_nano: int
    credits: str
    credits_nano: int
    holds: int = Field(description="Requests that money is held for now")
    result: Result | None = None

    @classmethod
    def of(cls, account: Account, holds: int, result: Result | None = None) -> Self:
        amounts: dict[str, Any] = both(
            balance=account.balance,
            held=account.held,
            available=account.available,
            debits=account.debits,
            credits=account.credits,
        )
        name = account.id.partition(":")[2] or account.id
        return cls(
            id=account.id, name=name, kind=account.kind.value, holds=holds, result=result, **amounts
        )


class TransferShown(BaseModel):
    """A row of the ledger."""

    object: Literal["transfer"] = "transfer"
    seq: int | None = None
    id: str
    kind: str
    debit: str
    credit: str
    amount: str
    amount_nano: int
    fee: str
    fee_nano: int
    fee_bp: int
    held: str
    held_nano: int
    at: str
    at_ms: int
    corrects: str | None
    note: str

    @classmethod
    def of(cls, transfer: Transfer, seq: int | None = None) -> Self:
        amounts: dict[str, Any] = both(amount=transfer.amount, fee=transfer.fee, held=transfer.held)
        return cls(
            seq=seq,
            id=transfer.id,
            kind=transfer.kind.value,
            debit=transfer.debit,
            credit=transfer.credit,
            fee_bp=transfer.fee_bp,
            at=time_of(transfer.at_ms),
            at_ms=transfer.at_ms,
            corrects=transfer.corrects,
            note=transfer.note,
            **amounts,
        )


class MovementShown(BaseModel):
    """What became of a top-up, refund or payout, and the account after it."""

    object: Literal["movement"] = "movement"
    result: Result
    id: str
    amount: str
    amount_nano: int
    account: AccountShown


class ViolationShown(BaseModel):
    """One thing that is wrong."""

    invariant: str
    subject: str
    message: str


class CheckShown(BaseModel):
    """What was looked at and what is wrong: nothing, of a sound ledger."""

    object: Literal["ledger_check"] = "ledger_check"
    ok: bool
    accounts: int
    transfers: int
    holds: int
    usage_records: int
    violations: list[ViolationShown]
    violations_left_out: int = 0


class BalanceLine(BaseModel):
    """One account's two sides: posted, and held apart from it."""

    name: str
    debits: str
    debits_nano: int
    credits: str
    credits_nano: int
    held_debits: str
    held_debits_nano: int
    held_credits: str
    held_credits_nano: int

    @classmethod
    def of(cls, line: TrialLine) -> Self:
        amounts: dict[str, Any] = both(
            debits=line.debits,
            credits=line.credits,
            held_debits=line.held_debits,
            held_credits=line.held_credits,
        )
        return cls(name=line.name, **amounts)


class BalanceShown(BaseModel):
    """The trial balance."""

    object: Literal["trial_balance"] = "trial_balance"
    balanced: bool
    lines: list[BalanceLine]
    total: BalanceLine
