"""What workers ask to be paid, at ``/filature/v1/payout-requests``. An operator pays it, or does not."""

from filature.ledger.accounts import worker_account
from filature.store.store import Store
from filature.store.worker_tokens import WorkerToken
from filature.units import NANO_ZERO, Nano
from filature.wire import control
from filature.wire.control import PayoutAsked, PayoutRequested


class PayoutDesk:
    """Takes requests for payouts."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def ask(self, token: WorkerToken, body: bytes) -> bytes:
        """Store a request, never above the balance. Raises InvalidRequest, Conflict or StoreError."""
        asked: PayoutAsked = control.parse(PayoutAsked, body)
        account = self._store.ledger.state.accounts.get(worker_account(token.worker))
        balance = NANO_ZERO if account is None else account.balance
        requests = self._store.payout_requests
        request = await requests.add(asked.id, token.worker, Nano(asked.amount_nano), balance)
        answer = PayoutRequested(
            id=request.id,
            worker=request.worker,
            amount_nano=request.amount,
            state=request.state,
            at_ms=request.at_ms,
            balance_nano=balance,
        )
        return answer.model_dump_json().encode()
