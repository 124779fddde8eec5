"""Decisions on money that moves at once: in, out, back. Pure: the state is read only."""

from filature.ledger.accounts import TREASURY, AccountKind
from filature.ledger.changes import changes_of, refusal_of
from filature.ledger.checks import is_amount, wrong_account
from filature.ledger.commands import Correct, Payout, Refund, TopUp
from filature.ledger.outcomes import Effects, Outcome, Result
from filature.ledger.state import State
from filature.ledger.transfers import Transfer, TransferKind, corrected_fee
from filature.units import AccountId, HoldId, TransferId


def decide_top_up(state: State, command: TopUp) -> Result:
    return _decide(state, command, TransferKind.TOP_UP, TREASURY, command.client)


def decide_refund(state: State, command: Refund) -> Result:
    return _decide(state, command, TransferKind.REFUND, command.client, TREASURY)


def decide_payout(state: State, command: Payout) -> Result:
    return _decide(state, command, TransferKind.PAYOUT, command.worker, TREASURY)


def decide_correct(state: State, command: Correct) -> Result:
    """Of a charge, so much of the fee goes back that the rest has the fee of a charge of its size."""
    seen = state.transfer(command.id)
    if seen is not None:
        same = (
            seen.kind is TransferKind.CORRECTION
            and seen.corrects == command.corrects
            and (seen.amount, seen.note) == (command.amount, command.note)
        )
        return Result(Outcome.EXISTS if same else Outcome.CONFLICT)
    if _is_hold(state, command.id):
        return Result(Outcome.CONFLICT)
    if not is_amount(command.amount, least=1):
        return Result(Outcome.INVALID_AMOUNT)
    original = state.transfer(command.corrects)
    if original is None:
        return Result(Outcome.UNKNOWN_TRANSFER)
    if original.kind is TransferKind.CORRECTION:
        return Result(Outcome.NOT_CORRECTABLE)
    before = state.corrected(original.id)
    if command.amount > original.amount - before:
        return Result(Outcome.EXCEEDS_TRANSFER)
    correction = Transfer(
        command.id,
        TransferKind.CORRECTION,
        original.credit,
        original.debit,
        command.amount,
        command.at_ms,
        corrected_fee(original, before, command.amount),
        corrects=original.id,
        note=command.note,
    )
    return _moved(state, correction)


def _decide(
    state: State,
    command: TopUp | Refund | Payout,
    kind: TransferKind,
    debit: AccountId,
    credit: AccountId,
) -> Result:
    """A transfer between the treasury and someone: new, seen before, or refused."""
    transfer = Transfer(
        command.id, kind, debit, credit, command.amount, command.at_ms, note=command.note
    )
    seen = state.transfer(transfer.id)
    if seen is not None:
        return Result(Outcome.EXISTS if _is_same(seen, transfer) else Outcome.CONFLICT)
    if _is_hold(state, transfer.id):
        return Result(Outcome.CONFLICT)
    if not is_amount(transfer.amount, least=1):
        return Result(Outcome.INVALID_AMOUNT)
    of_worker = kind is TransferKind.PAYOUT
    theirs = credit if debit == TREASURY else debit
    wrong = wrong_account(state, theirs, AccountKind.WORKER if of_worker else AccountKind.CLIENT)
    if wrong is not None:
        return Result(wrong)
    if of_worker and transfer.amount > state.accounts[theirs].balance:
        return Result(Outcome.INSUFFICIENT)
    return _moved(state, transfer)


def _moved(state: State, transfer: Transfer) -> Result:
    changes = changes_of(transfer)
    refusal = refusal_of(state, changes)
    if refusal is not None:
        return Result(refusal)
    return Result(Outcome.DONE, Effects(changes, transfer=transfer))


def _is_hold(state: State, transfer: TransferId) -> bool:
    """Whether the id is that of a hold, which alone may be charged under it."""
    return HoldId(transfer) in state.holds or HoldId(transfer) in state.ended


def _is_same(seen: Transfer, asked: Transfer) -> bool:
    """All but the time."""
    return (seen.kind, seen.debit, seen.credit, seen.amount, seen.note) == (
        asked.kind,
        asked.debit,
        asked.credit,
        asked.amount,
        asked.note,
    )
