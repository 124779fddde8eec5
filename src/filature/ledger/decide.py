"""The one door to all decisions: a state and a command in, an outcome and its effects out. Pure."""

from collections.abc import Callable
from typing import Any, Final

from filature.ledger.accounts import AccountKind, kind_of
from filature.ledger.commands import (
    ChargeLate,
    Command,
    Correct,
    ExpireHold,
    OpenAccount,
    OpenHold,
    Payout,
    PostHold,
    Refund,
    TopUp,
    VoidHold,
)
from filature.ledger.decide_hold import (
    decide_expire,
    decide_late,
    decide_open,
    decide_post,
    decide_void,
)
from filature.ledger.decide_transfer import (
    decide_correct,
    decide_payout,
    decide_refund,
    decide_top_up,
)
from filature.ledger.outcomes import Effects, Outcome, Result
from filature.ledger.state import State
from filature.units import TransferId


def decide(state: State, command: Command) -> Result:
    """What comes of the command on this state. Nothing has happened until the effects are applied."""
    return _DECISIONS[type(command)](state, command)


def transfer_ids_read(state: State, command: Command) -> tuple[TransferId, ...]:
    """The transfers about which the decision asks the history, the last of them for its corrections, too.

    For a store that has to look them up before. None for the post of an open hold.
    """
    match command:
        case OpenAccount():
            return ()
        case OpenHold(id=hold):
            return () if hold in state.holds else (TransferId(hold),)
        case PostHold(hold=hold) | VoidHold(hold=hold) | ExpireHold(hold=hold):
            return () if hold in state.holds else (TransferId(hold),)
        case ChargeLate(hold=hold):
            return () if hold in state.holds else (TransferId(hold),)
        case Correct():
            return (command.id, command.corrects)
        case TopUp() | Refund() | Payout():
            return (command.id,)


def _decide_account(state: State, command: OpenAccount) -> Result:
    if command.account in state.accounts:
        return Result(Outcome.EXISTS)
    if kind_of(command.account) not in (AccountKind.CLIENT, AccountKind.WORKER):
        return Result(Outcome.WRONG_ACCOUNT)
    return Result(Outcome.DONE, Effects(account=command.account))


_DECISIONS: Final[dict[type, Callable[[State, Any], Result]]] = {
    OpenAccount: _decide_account,
    OpenHold: decide_open,
    PostHold: decide_post,
    VoidHold: decide_void,
    ExpireHold: decide_expire,
    ChargeLate: decide_late,
    TopUp: decide_top_up,
    Refund: decide_refund,
    Payout: decide_payout,
    Correct: decide_correct,
}
