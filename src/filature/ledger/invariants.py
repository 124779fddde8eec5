"""What must be true of a ledger, checked over rows from anywhere. Each check only tells; none mends.

Every check takes iterables of rows, reads each once and keeps none that it will not need, and yields what it
finds wrong: nothing, for a sound ledger. They share no arithmetic with the decisions: balances are added up
from ``Transfer.legs``.
"""

from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from filature.ledger.accounts import FEES, SHORTFALL, TREASURY, Account, AccountKind, kind_of
from filature.ledger.holds import EndedHold, Hold, HoldEnd
from filature.ledger.transfers import Transfer
from filature.ledger.trial_balance import trial_balance
from filature.ledger.wellformed import TransferReader
from filature.units import NANO_MAX, AccountId, HoldId, TransferId


class Invariant(StrEnum):
    """The names of what is checked."""

    SIDES_EQUAL = "debits equal credits"
    NEVER_NEGATIVE = "no client is below zero"
    ONE_OUTCOME = "every request has one outcome"
    CHARGES_ARRIVE = "what is charged is earned"
    BALANCES = "cached balances equal recomputed ones"
    HOLDS = "what is held equals the open holds"
    WELL_FORMED = "rows are well formed"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: which rule, of what (an id, or ``ledger``), and how."""

    invariant: Invariant
    subject: str
    message: str


def check_ledger(
    accounts: Collection[Account],
    transfers: Iterable[Transfer],
    holds: Collection[Hold] = (),
    ended: Collection[EndedHold] = (),
    corrected: Container[TransferId] | None = None,
) -> list[Violation]:
    """All checks. ``transfers`` in the order in which they were decided; holds as far as they are known.

    ``corrected``, as for ``TransferReader``: with it the transfers may be more than memory has room for.
    """
    check = TransferCheck(corrected)
    of_holds = {TransferId(hold.id) for hold in holds}
    of_holds |= {TransferId(each.hold.id) for each in ended}
    charges: list[Transfer] = []
    found = [
        *check_accounts(accounts),
        *check_sides(accounts, holds),
        *check_holds(accounts, holds),
    ]
    for transfer in transfers:
        found += check.read(transfer)
        if transfer.id in of_holds:
            charges.append(transfer)
    return [*found, *check.end(accounts), *check_one_outcome(charges, holds, ended)]


def check_sides(accounts: Iterable[Account], holds: Iterable[Hold]) -> Iterator[Violation]:
    """Σ debits = Σ credits, posted and held apart."""
    balance = trial_balance(accounts, holds)
    if not balance.is_balanced:
        yield Violation(Invariant.SIDES_EQUAL, "ledger", f"the totals differ: {balance.total}")


def check_accounts(accounts: Iterable[Account]) -> Iterator[Violation]:
    """Names, bounds, and balance − held ≥ 0 of every client."""
    seen = set()
    for account in accounts:
        if account.id in seen:
            yield Violation(Invariant.WELL_FORMED, account.id, "the account is there twice")
        seen.add(account.id)
        if account.kind is not kind_of(account.id):
            yield Violation(Invariant.WELL_FORMED, account.id, f"it is called a {account.kind}")
        totals = (account.debits, account.credits, account.held)
        if min(totals) < 0 or max(account.debits + account.held, account.credits) > NANO_MAX:
            yield Violation(Invariant.WELL_FORMED, account.id, f"out of bounds: {totals}")
        if account.kind is AccountKind.CLIENT:
            if account.available < 0:
                message = f"balance {account.balance}, held {account.held}"
                yield Violation(Invariant.NEVER_NEGATIVE, account.id, message)
        elif account.held:
            yield Violation(Invariant.HOLDS, account.id, "only a client's money is held")


def check_holds(accounts: Iterable[Account], holds: Iterable[Hold]) -> Iterator[Violation]:
    """``Account.held`` is the sum of the account's open holds, and no hold is there twice."""
    held: defaultdict[AccountId, int] = defaultdict(int)
    seen: set[HoldId] = set()
    for hold in holds:
        if hold.id in seen or not 0 <= hold.amount <= NANO_MAX:
            yield Violation(Invariant.HOLDS, hold.id, f"is there twice, or out of bounds: {hold}")
        seen.add(hold.id)
        held[hold.client] += hold.amount
    for account in accounts:
        of_holds = held.pop(account.id, 0)
        if account.held != of_holds:
            message = f"holds of {of_holds} are open, {account.held} is held"
            yield Violation(Invariant.HOLDS, account.id, message)
    for unknown in held:
        yield Violation(Invariant.HOLDS, unknown, "holds of an account that is not there")


class TransferCheck:
    """Transfers, ``read`` one after another in the order in which they were decided, and at the ``end`` their sums."""

    def __init__(self, corrected: Container[TransferId] | None = None) -> None:
        self._rows = TransferReader(corrected)
        self._debits: defaultdict[AccountId, int] = defaultdict(int)
        self._credits: defaultdict[AccountId, int] = defaultdict(int)
        self._told: set[AccountId] = set()
        self._paid_in = 0
        self._paid_out = 0

    def read(self, transfer: Transfer) -> Iterator[Violation]:
        """The row by itself and against what it corrects; and no client's balance is below zero after it."""
        for message in self._rows.read(transfer):
            yield Violation(Invariant.WELL_FORMED, transfer.id, message)
        debits, credits_, debited = self._debits, self._credits, transfer.debit
        for leg in transfer.legs():
            debits[leg.debit] += leg.amount
            credits_[leg.credit] += leg.amount
        if TREASURY in (debited, transfer.credit):
            amount = transfer.amount if debited == TREASURY else -transfer.amount
            if _is_client(debited) or _is_client(transfer.credit):
                self._paid_in += amount
            else:
                self._paid_out -= amount
        balance = credits_.get(debited, 0) - debits.get(debited, 0)
        if balance < 0 and debited not in self._told and _is_client(debited):
            self._told.add(debited)
            message = f"fell to {balance} by transfer {transfer.id}"
            yield Violation(Invariant.NEVER_NEGATIVE, debited, message)

    def end(self, accounts: Collection[Account]) -> Iterator[Violation]:
        """The cached debits and credits are those that the transfers add up to, and what is charged is earned."""
        known = set()
        for account in accounts:
            known.add(account.id)
            recomputed = (self._debits.get(account.id, 0), self._credits.get(account.id, 0))
            if (account.debits, account.credits) != recomputed:
                message = f"debits and credits {(account.debits, account.credits)}, recomputed {recomputed}"
                yield Violation(Invariant.BALANCES, account.id, message)
        for unknown in sorted((self._debits.keys() | self._credits.keys()) - known):
            yield Violation(
                Invariant.BALANCES, unknown, "transfers of an account that is not there"
            )
        yield from self._check_charges_arrive(accounts)

    def _check_charges_arrive(self, accounts: Iterable[Account]) -> Iterator[Violation]:
        """Σ client charges + Σ shortfall = Σ worker earnings + Σ fees.

        Charges are what clients paid in less what they have; earnings what workers have and were paid out.
        """
        clients = workers = shortfall = fees = 0
        for account in accounts:
            if account.kind is AccountKind.CLIENT:
                clients += account.balance
            elif account.kind is AccountKind.WORKER:
                workers += account.balance
            elif account.id == SHORTFALL:
                shortfall -= account.balance
            elif account.id == FEES:
                fees += account.balance
        charged, earned = self._paid_in - clients, workers + self._paid_out
        if charged + shortfall != earned + fees:
            message = f"charged {charged} + shortfall {shortfall} ≠ earned {earned} + fees {fees}"
            yield Violation(Invariant.CHARGES_ARRIVE, "ledger", message)


def check_one_outcome(
    transfers: Iterable[Transfer], holds: Iterable[Hold], ended: Iterable[EndedHold]
) -> Iterator[Violation]:
    """Holds are open or ended, once; posted ones have their charge, others none against the client.

    Of a charge without an ended hold nothing is said: holds may have been forgotten.
    """
    rows: dict[TransferId, Transfer] = {transfer.id: transfer for transfer in transfers}
    is_open = {hold.id for hold in holds}
    seen: set[HoldId] = set()
    for hold_id in is_open:
        if TransferId(hold_id) in rows:
            yield Violation(Invariant.ONE_OUTCOME, hold_id, "open and charged")
    for each in ended:
        hold = each.hold
        if hold.id in seen or hold.id in is_open:
            yield Violation(Invariant.ONE_OUTCOME, hold.id, "it ended twice, or ended and is open")
        seen.add(hold.id)
        message = _wrong_end(each, rows.get(TransferId(hold.id)))
        if message:
            yield Violation(Invariant.ONE_OUTCOME, hold.id, message)


def _wrong_end(ended: EndedHold, transfer: Transfer | None) -> str:
    """What is wrong between a hold's end and the transfer of its id; empty when nothing is."""
    hold = ended.hold
    if ended.end is HoldEnd.POSTED:
        if not 0 <= ended.posted <= hold.amount:
            return f"{ended.posted} was posted of {hold.amount}"
        if transfer is None or transfer.debit != hold.client or transfer.amount != ended.posted:
            return f"posted, but the transfer is {transfer}"
        return ""
    if ended.posted:
        return f"{ended.end}, but {ended.posted} was posted"
    if transfer is None or (ended.end is HoldEnd.EXPIRED and transfer.debit == SHORTFALL):
        return ""
    return f"{ended.end}, but there is {transfer}"


def _is_client(account: AccountId) -> bool:
    return kind_of(account) is AccountKind.CLIENT
