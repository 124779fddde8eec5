"""What decisions are made on: balances, open holds, what was done lately. It decides nothing itself."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from filature.ledger.accounts import HOUSE_ACCOUNTS, Account, AccountKind, kind_of
from filature.ledger.holds import EndedHold, Hold
from filature.ledger.outcomes import Effects
from filature.ledger.transfers import Transfer
from filature.units import AccountId, HoldId, Nano, TransferId

ENDED_HOLDS_MAX: Final = 100_000
"""Voided and expired holds remembered; of older ones ``UNKNOWN_HOLD`` is said, which means the same for money."""


class History(Protocol):
    """Transfers that are stored and no longer in memory."""

    def transfer(self, transfer: TransferId) -> Transfer | None:
        """The one with that id. An id that was made just now need not be looked up: None."""

    def corrections(self, transfer: TransferId) -> Iterable[Transfer]:
        """Those that correct it."""


class NoHistory:
    """For a ledger that keeps all transfers in memory."""

    def transfer(self, transfer: TransferId) -> Transfer | None:
        return None

    def corrections(self, transfer: TransferId) -> Iterable[Transfer]:
        return ()


class State:
    """Accounts, open holds, holds that ended without a charge, and transfers until they are forgotten.

    To be read by anyone and changed by ``apply`` alone.
    """

    def __init__(
        self,
        accounts: Iterable[Account] = (),
        *,
        history: History | None = None,
        ended_holds_max: int = ENDED_HOLDS_MAX,
    ) -> None:
        self.accounts: dict[AccountId, Account] = {}
        self.holds: dict[HoldId, Hold] = {}
        # ordered: a dict's first key is found by passing over all that were deleted before it
        self.ended: OrderedDict[HoldId, EndedHold] = OrderedDict()
        self.transfers: dict[TransferId, Transfer] = {}
        self._corrections: dict[TransferId, list[TransferId]] = {}
        self._history: History = NoHistory() if history is None else history
        self._ended_holds_max = ended_holds_max
        for account in accounts:
            assert account.id not in self.accounts, f"account {account.id} is there twice"
            assert account.held == 0, "holds are not stored"
            self.accounts[account.id] = account
        for house_account in HOUSE_ACCOUNTS:
            if house_account not in self.accounts:
                self._open_account(house_account)

    def transfer(self, transfer: TransferId) -> Transfer | None:
        """The transfer with that id, wherever it is."""
        recent = self.transfers.get(transfer)
        return self._history.transfer(transfer) if recent is None else recent

    def corrected(self, transfer: TransferId) -> Nano:
        """How much of it was corrected so far."""
        corrections = {each.id: each.amount for each in self._history.corrections(transfer)}
        for recent in self._corrections.get(transfer, ()):
            corrections[recent] = self.transfers[recent].amount
        return Nano(sum(corrections.values()))

    def due(self, now_ms: int) -> Iterator[HoldId]:
        """The open holds whose time is over. Reads all of them: for now and then, not for each request."""
        return (hold.id for hold in self.holds.values() if hold.expires_ms <= now_ms)

    def apply(self, effects: Effects) -> None:
        """Let happen what was decided. Effects apply to the very state they were decided on."""
        if effects.account is not None:
            self._open_account(effects.account)
        if effects.opened is not None:
            self.holds[effects.opened.id] = effects.opened
        if effects.ended is not None:
            self._end(effects.ended, charged=effects.transfer is not None)
        if effects.transfer is not None:
            self._remember(effects.transfer)
        for change in effects.changes:
            account = self.accounts[change.account]
            account.debits = Nano(account.debits + change.debits)
            account.credits = Nano(account.credits + change.credits)
            account.held = Nano(account.held + change.held)
            assert account.held >= 0, f"more was released than held: {account}"
            if account.kind is AccountKind.CLIENT:
                assert account.available >= 0, f"a client fell below zero: {account}"

    def forget(self, transfers: Iterable[TransferId]) -> None:
        """Let go of transfers that the history finds from now on. Those that are not here are passed over."""
        for transfer_id in transfers:
            transfer = self.transfers.pop(transfer_id, None)
            if transfer is not None and transfer.corrects is not None:
                corrections = self._corrections[transfer.corrects]
                corrections.remove(transfer_id)
                if not corrections:
                    del self._corrections[transfer.corrects]

    def _open_account(self, account: AccountId) -> None:
        kind = kind_of(account)
        assert kind is not None, f"not an account's name: {account!r}"
        assert account not in self.accounts, f"account {account} is open"
        self.accounts[account] = Account(account, kind)

    def _end(self, ended: EndedHold, *, charged: bool) -> None:
        hold_id = ended.hold.id
        del self.holds[hold_id]
        if charged:
            return  # its charge tells of it, for ever
        self.ended[hold_id] = ended
        if len(self.ended) > self._ended_holds_max:
            self.ended.popitem(last=False)

    def _remember(self, transfer: Transfer) -> None:
        assert transfer.id not in self.transfers, f"transfer {transfer.id} happened"
        self.transfers[transfer.id] = transfer
        if transfer.corrects is not None:
            self._corrections.setdefault(transfer.corrects, []).append(transfer.id)
