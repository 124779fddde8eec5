"""Decisions on holds and on the charges they end in. Pure: the state is read only.

::

    OpenHold ──▶ open ──PostHold──▶ posted    one charge, with the hold's id
                  │ └───VoidHold──▶ voided    nothing is charged, ever
                  └────ExpireHold─▶ expired   the client is never charged; a ChargeLate may come
    (a crash)                      unknown    the same
"""

from typing import Any

from filature.ledger.accounts import SHORTFALL, AccountKind
from filature.ledger.changes import changes_of, refusal_of
from filature.ledger.checks import is_amount, is_share, wrong_account
from filature.ledger.commands import ChargeLate, ExpireHold, OpenHold, PostHold, VoidHold
from filature.ledger.holds import EndedHold, Hold, HoldEnd
from filature.ledger.outcomes import BalanceChange, Effects, Outcome, Result
from filature.ledger.state import State
from filature.ledger.transfers import Transfer, TransferKind, fee_of
from filature.units import HoldId, TransferId


def decide_open(state: State, command: OpenHold) -> Result:
    """``EXISTS`` is said of an open hold only; of one that ended, how."""
    given = _as_given(command)
    wrong = _no_integer((given.amount,), given.fee_bp)
    if wrong is not None:
        return Result(wrong)
    seen = _seen_hold(state, command)
    if seen is not None:
        return Result(seen)
    if not is_amount(command.amount, least=0):
        return Result(Outcome.INVALID_AMOUNT)
    if not is_share(command.fee_bp):
        return Result(Outcome.INVALID_FEE)
    wrong = wrong_account(state, command.client, AccountKind.CLIENT)
    if wrong is not None:
        return Result(wrong)
    changes = (BalanceChange(command.client, 0, 0, command.amount),)
    refusal = refusal_of(state, changes)
    if refusal is not None:
        return Result(refusal)
    hold = Hold(command.id, command.client, command.amount, command.fee_bp, command.expires_ms)
    return Result(Outcome.DONE, Effects(changes, opened=hold))


def decide_post(state: State, command: PostHold) -> Result:
    wrong = _no_integer((_as_given(command).amount,))
    if wrong is not None:
        return Result(wrong)
    hold = state.holds.get(command.hold)
    if hold is None:
        charge = state.transfer(TransferId(command.hold))
        if charge is None:
            return Result(_end_of(state, command.hold))
        same = (
            charge.kind is TransferKind.CHARGE
            and charge.credit == command.worker
            and charge.amount == command.amount
        )
        return Result(Outcome.EXISTS if same else Outcome.CONFLICT)
    if not is_amount(command.amount, least=0):
        return Result(Outcome.INVALID_AMOUNT)
    if command.amount > hold.amount:
        return Result(Outcome.EXCEEDS_HOLD)
    wrong = wrong_account(state, command.worker, AccountKind.WORKER)
    if wrong is not None:
        return Result(wrong)
    charge = Transfer(
        TransferId(hold.id),
        TransferKind.CHARGE,
        hold.client,
        command.worker,
        command.amount,
        command.at_ms,
        fee_of(command.amount, hold.fee_bp),
        hold.fee_bp,
        hold.amount,
    )
    changes = changes_of(charge, released=hold.amount)
    refusal = refusal_of(state, changes)
    if refusal is not None:
        return Result(refusal)
    ended = EndedHold(hold, HoldEnd.POSTED, command.amount)
    return Result(Outcome.DONE, Effects(changes, transfer=charge, ended=ended))


def decide_void(state: State, command: VoidHold) -> Result:
    hold = state.holds.get(command.hold)
    if hold is not None:
        return _released(hold, HoldEnd.VOIDED)
    outcome = _outcome_of_ended(state, command.hold)
    return Result(Outcome.EXISTS if outcome is Outcome.HOLD_VOIDED else outcome)


def decide_expire(state: State, command: ExpireHold) -> Result:
    hold = state.holds.get(command.hold)
    if hold is None:
        outcome = _outcome_of_ended(state, command.hold)
        return Result(Outcome.EXISTS if outcome is Outcome.HOLD_EXPIRED else outcome)
    if command.now_ms < hold.expires_ms:
        return Result(Outcome.NOT_DUE)
    return _released(hold, HoldEnd.EXPIRED)


def decide_late(state: State, command: ChargeLate) -> Result:
    """For what the hold's owner could not post any more. A request that was voided stays free.

    A void is remembered for a while only (``ENDED_HOLDS_MAX``); a store asks its records of requests first.
    """
    given = _as_given(command)
    wrong = _no_integer((given.amount, given.held), given.fee_bp)
    if wrong is not None:
        return Result(wrong)
    if command.hold in state.holds:
        return Result(Outcome.HOLD_OPEN)
    seen = state.transfer(TransferId(command.hold))
    if seen is not None:
        same = (
            seen.kind is TransferKind.LATE_CHARGE
            and seen.credit == command.worker
            and (seen.amount, seen.held, seen.fee_bp)
            == (command.amount, command.held, command.fee_bp)
        )
        return Result(Outcome.EXISTS if same else Outcome.CONFLICT)
    if _end_of(state, command.hold) is Outcome.HOLD_VOIDED:
        return Result(Outcome.HOLD_VOIDED)
    if not (is_amount(command.amount, least=0) and is_amount(command.held, least=0)):
        return Result(Outcome.INVALID_AMOUNT)
    if not is_share(command.fee_bp):
        return Result(Outcome.INVALID_FEE)
    if command.amount > command.held:
        return Result(Outcome.EXCEEDS_HOLD)
    wrong = wrong_account(state, command.worker, AccountKind.WORKER)
    if wrong is not None:
        return Result(wrong)
    return _late_charge(state, command)


def _late_charge(state: State, command: ChargeLate) -> Result:
    charge = Transfer(
        TransferId(command.hold),
        TransferKind.LATE_CHARGE,
        SHORTFALL,
        command.worker,
        command.amount,
        command.at_ms,
        fee_of(command.amount, command.fee_bp),
        command.fee_bp,
        command.held,
    )
    changes = changes_of(charge)
    refusal = refusal_of(state, changes)
    if refusal is not None:
        return Result(refusal)
    return Result(Outcome.DONE, Effects(changes, transfer=charge))


def _as_given(command: OpenHold | PostHold | ChargeLate) -> Any:
    """For ``_no_integer``: where a field is one of integers, compiled code makes 1 of True and raises for 1.5."""
    return command


def _no_integer(amounts: tuple[object, ...], share: object = 0) -> Outcome | None:
    """What is said of numbers that are no integers, before anything is looked up."""
    for amount in amounts:
        if type(amount) is not int:
            return Outcome.INVALID_AMOUNT
    return None if type(share) is int else Outcome.INVALID_FEE


def _released(hold: Hold, end: HoldEnd) -> Result:
    changes = (BalanceChange(hold.client, 0, 0, -hold.amount),)
    return Result(Outcome.DONE, Effects(changes, ended=EndedHold(hold, end)))


def _seen_hold(state: State, command: OpenHold) -> Outcome | None:
    """What is to be said when the id was used before; None when it is new."""
    content = (command.client, command.amount, command.fee_bp)
    hold = state.holds.get(command.id)
    if hold is not None:
        same = (hold.client, hold.amount, hold.fee_bp) == content
        return Outcome.EXISTS if same else Outcome.CONFLICT
    charge = state.transfer(TransferId(command.id))
    if charge is not None:
        return _seen_charge(charge, command)
    ended = state.ended.get(command.id)
    if ended is not None:
        hold = ended.hold
        same = (hold.client, hold.amount, hold.fee_bp) == content
        return _end_of(state, command.id) if same else Outcome.CONFLICT
    return None


def _seen_charge(charge: Transfer, command: OpenHold) -> Outcome:
    """As ``_seen_hold``. A late charge does not tell its client."""
    if (charge.held, charge.fee_bp) != (command.amount, command.fee_bp):
        return Outcome.CONFLICT
    if charge.kind is TransferKind.LATE_CHARGE:
        return Outcome.HOLD_EXPIRED
    same = charge.kind is TransferKind.CHARGE and charge.debit == command.client
    return Outcome.HOLD_POSTED if same else Outcome.CONFLICT


def _outcome_of_ended(state: State, hold: HoldId) -> Outcome:
    """How a hold that is not open ended, asked by what wanted to let it go."""
    transfer = state.transfer(TransferId(hold))
    if transfer is None:
        return _end_of(state, hold)
    if transfer.kind is TransferKind.CHARGE:
        return Outcome.HOLD_POSTED
    return Outcome.HOLD_EXPIRED if transfer.kind is TransferKind.LATE_CHARGE else Outcome.CONFLICT


def _end_of(state: State, hold: HoldId) -> Outcome:
    """How a hold without a charge ended, as far as that is remembered."""
    ended = state.ended.get(hold)
    if ended is None:
        return Outcome.UNKNOWN_HOLD
    return Outcome.HOLD_VOIDED if ended.end is HoldEnd.VOIDED else Outcome.HOLD_EXPIRED
