"""What can be asked of the ledger, as data. Amounts are nano-credits; ids and times are the caller's.

Each may be given any number of times: the id decides whether it is new. ``at_ms`` is Unix time in
milliseconds, is stored, and is not part of what makes two commands the same.
"""

from typing import NamedTuple

from filature.units import AccountId, HoldId, Nano, TransferId


class OpenAccount(NamedTuple):
    """A client's or a worker's account, before anything moves."""

    account: AccountId


class TopUp(NamedTuple):
    """Treasury → client."""

    id: TransferId
    client: AccountId
    amount: Nano
    at_ms: int
    note: str = ""


class Refund(NamedTuple):
    """Client → treasury, of what is not held."""

    id: TransferId
    client: AccountId
    amount: Nano
    at_ms: int
    note: str = ""


class Payout(NamedTuple):
    """Worker → treasury, of what it has."""

    id: TransferId
    worker: AccountId
    amount: Nano
    at_ms: int
    note: str = ""


class Correct(NamedTuple):
    """The reverse of ``amount`` of an earlier transfer ``corrects``, with its share of the fee.

    A worker that was paid out already may fall below zero by it and then earns that back first; a client
    never does. A correction is final: what was wrong with it is mended by new transfers.
    """

    id: TransferId
    corrects: TransferId
    amount: Nano
    at_ms: int
    note: str = ""


class ChargeLate(NamedTuple):
    """Shortfall → worker and fees: a charge whose hold is gone. ``held`` and ``fee_bp`` were the hold's."""

    hold: HoldId
    worker: AccountId
    amount: Nano
    held: Nano
    fee_bp: int
    at_ms: int


class OpenHold(NamedTuple):
    """Set ``amount`` of the client's money aside for the request of that id."""

    id: HoldId
    client: AccountId
    amount: Nano
    fee_bp: int
    expires_ms: int


class PostHold(NamedTuple):
    """Charge ``amount`` of the hold, to the worker and to fees; the rest returns. Zero is an end, too."""

    hold: HoldId
    worker: AccountId
    amount: Nano
    at_ms: int


class VoidHold(NamedTuple):
    """Let all of it go: the request costs nothing."""

    hold: HoldId


class ExpireHold(NamedTuple):
    """Let all of it go because its time is over: at ``now_ms``, on the clock of ``Hold.expires_ms``."""

    hold: HoldId
    now_ms: int


Command = (
    OpenAccount
    | TopUp
    | Refund
    | Payout
    | Correct
    | ChargeLate
    | OpenHold
    | PostHold
    | VoidHold
    | ExpireHold
)
