"""A ledger with two accounts, to begin with."""

from filature.ledger.accounts import client_account, worker_account
from filature.ledger.book import Ledger
from filature.ledger.commands import ChargeLate, OpenAccount, OpenHold, PostHold, TopUp, VoidHold
from filature.ledger.outcomes import Outcome
from filature.ledger.state import ENDED_HOLDS_MAX, History
from filature.units import HoldId, Nano, TransferId

ADA = client_account("ada")
GPU = worker_account("gpu")


def a_ledger(
    credit: int = 1000, *, history: History | None = None, ended_holds_max: int = ENDED_HOLDS_MAX
) -> Ledger:
    """Ada has ``credit`` nano-credits, and the GPU nothing."""
    ledger = Ledger(history=history, ended_holds_max=ended_holds_max)
    for account in (ADA, GPU):
        assert ledger.run(OpenAccount(account)).outcome is Outcome.DONE
    if credit:
        top_up = TopUp(TransferId("first"), ADA, Nano(credit), 0)
        assert ledger.run(top_up).outcome is Outcome.DONE
    return ledger


def hold(id_: str, amount: int, *, fee_bp: int = 500, expires_ms: int = 60_000) -> OpenHold:
    return OpenHold(HoldId(id_), ADA, Nano(amount), fee_bp, expires_ms)


def post(id_: str, amount: int, *, at_ms: int = 1) -> PostHold:
    return PostHold(HoldId(id_), GPU, Nano(amount), at_ms)


def void(id_: str) -> VoidHold:
    return VoidHold(HoldId(id_))


def late(id_: str, amount: int, *, held: int = 1000, fee_bp: int = 500) -> ChargeLate:
    return ChargeLate(HoldId(id_), GPU, Nano(amount), Nano(held), fee_bp, 1)


def what_they_have(ledger: Ledger) -> dict[str, int]:
    """The balances that are not zero."""
    accounts = ledger.state.accounts.values()
    return {str(account.id): account.balance for account in accounts if account.balance}
