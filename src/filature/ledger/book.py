"""The ledger of one writer: commands in, results out, one after another. It stores nothing itself."""

from collections.abc import Iterable, Iterator

from filature.errors import InternalError
from filature.ledger.accounts import HOUSE_ACCOUNTS, Account, kind_of
from filature.ledger.changes import changes_of, refusal_of
from filature.ledger.commands import Command, ExpireHold
from filature.ledger.decide import decide
from filature.ledger.outcomes import Effects, Outcome, Result
from filature.ledger.state import ENDED_HOLDS_MAX, History, State
from filature.ledger.transfers import Transfer
from filature.units import AccountId, TransferId


class Ledger:
    """Decides and applies. ``state`` is there to be read.

    ``accounts`` are the stored ones with their balances, which the ledger then owns and changes. ``history``
    finds the stored transfers; without it the ledger must be given all of them, by ``replay``.
    """

    def __init__(
        self,
        accounts: Iterable[Account] = (),
        *,
        history: History | None = None,
        ended_holds_max: int = ENDED_HOLDS_MAX,
    ) -> None:
        self.state = State(accounts, history=history, ended_holds_max=ended_holds_max)

    def run(self, command: Command) -> Result:
        """Decide and let it happen. What the result's effects say is to be stored (see the package)."""
        result = decide(self.state, command)
        if result.outcome is Outcome.DONE:
            self.state.apply(result.effects)
        return result

    def expire(self, now_ms: int) -> Iterator[Result]:
        """Expire all holds that are due, each when its result is taken."""
        for hold in list(self.state.due(now_ms)):
            yield self.run(ExpireHold(hold, now_ms))

    def forget(self, transfers: Iterable[TransferId]) -> None:
        """Let go of transfers that were committed and that the history finds from now on."""
        self.state.forget(transfers)


def replay(
    accounts: Iterable[AccountId],
    transfers: Iterable[Transfer],
    *,
    history: History | None = None,
) -> Ledger:
    """The ledger after these transfers, in their order, from nothing: no hold is open.

    Accounts are given by name, the house's among them or not. All transfers are kept in memory, to be
    forgotten where there is a ``history`` that finds them. Raises InternalError when what was
    stored cannot have come from a ledger; ``invariants.py`` tells more about what is wrong.
    """
    ledger = Ledger(history=history)
    state = ledger.state
    for account in accounts:
        if account in HOUSE_ACCOUNTS:
            continue
        if account in state.accounts or kind_of(account) is None:
            raise InternalError(f"the stored account {account!r} is there twice or is none")
        state.apply(Effects(account=account))
    for transfer in transfers:
        changes = changes_of(transfer)
        refusal = refusal_of(state, changes)
        if refusal is None and transfer.id in state.transfers:
            refusal = Outcome.EXISTS
        if refusal is not None:
            raise InternalError(f"the stored transfer {transfer.id!r} cannot have been: {refusal}")
        state.apply(Effects(changes, transfer=transfer))
    return ledger
