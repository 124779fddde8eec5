"""Payouts over HTTP: made of an amount, or of what a worker asked for, and listed."""

import asyncio
from collections.abc import Callable
from typing import Final

from fastapi import APIRouter, Response

from filature.admin.accounts import find_account, pay, transfer_id
from filature.admin.amounts import needed_amount
from filature.admin.models import FormAsked, IdInPath, Listed, OneLineAsked, Result
from filature.admin.tables_csv import csv_response
from filature.admin.worker_models import PayoutAsked, PayoutShown
from filature.errors import Conflict, InvalidRequest
from filature.ledger.accounts import Account, worker_account
from filature.ledger.commands import Payout
from filature.ledger.transfers import Transfer
from filature.store.ledger_rows import read_transfer
from filature.store.payouts import PayoutRequest, read_payouts, transfer_of
from filature.store.store import Store
from filature.units import AccountId, Nano, TransferId

CSV_COLUMNS: Final = (
    "at",
    "at_ms",
    "id",
    "request",
    "worker",
    "state",
    "amount",
    "amount_nano",
    "returned",
    "returned_nano",
    "note",
)
_PREFIX: Final = "worker:"


class PayoutRoutes:
    """The routes of ``/payouts`` and ``/payout-requests``."""

    def __init__(self, store: Store, wall_ms: Callable[[], int]) -> None:
        self._store = store
        self._ledger = store.ledger
        self._requests = store.payout_requests
        self._wall_ms = wall_ms
        self._ending = asyncio.Lock()  # a request is not paid and refused at once

    def router(self) -> APIRouter:
        router = APIRouter(tags=["payouts"])
        router.add_api_route("/payouts", self.create, methods=["POST"], status_code=201)
        router.add_api_route(
            "/payouts",
            self.index,
            methods=["GET"],
            response_model=Listed[PayoutShown],
            responses={200: {"content": {"text/csv": {}}}},
        )
        router.add_api_route("/payout-requests/{request}/refuse", self.refuse, methods=["POST"])
        return router

    async def create(self, asked: PayoutAsked, response: Response) -> PayoutShown:
        """Record a payout of a worker, never more than its balance. Done before with the same id: 200."""
        if asked.request is not None:
            given = (asked.worker, asked.amount, asked.amount_nano, asked.id)
            if any(each is not None for each in given):
                raise InvalidRequest(
                    "request says already who is paid what: give it alone.", param="request"
                )
            async with self._ending:
                shown = await self._pay_request(asked.request, asked.note)
        else:
            if asked.worker is None:
                raise InvalidRequest("worker is missing.", param="worker")
            account = _account(asked.worker)
            amount = needed_amount(asked.amount, asked.amount_nano, "amount")
            transfer = transfer_id(asked.id, "payout")
            if self._earned(account) is None:
                raise Conflict(
                    f"{account.removeprefix(_PREFIX)} has earned nothing yet.",
                    param="amount",
                    code="insufficient_funds",
                )
            shown = await self._pay(transfer, account, amount, asked.note)
        if shown.result == "exists":
            response.status_code = 200
        return shown

    async def index(
        self, worker: OneLineAsked = None, form: FormAsked = None
    ) -> Listed[PayoutShown] | Response:
        """All payouts, and requests for some that were not paid, by their time; as JSON, or as CSV."""
        account = None
        if worker is not None:
            account = _account(worker)
            self._earned(account)
            worker = account.removeprefix(_PREFIX)
        shown = [
            PayoutShown.of_payout(each) for each in await read_payouts(self._store.reader, account)
        ]
        paid = {each.request for each in shown}
        shown += [
            PayoutShown.of_request(each)
            for each in await self._requests.list(worker)
            if each.id not in paid
        ]
        shown.sort(key=lambda each: each.at_ms)
        if form == "csv":
            return csv_response(CSV_COLUMNS, (each.model_dump() for each in shown))
        return Listed(data=shown)

    async def refuse(self, request: IdInPath) -> PayoutShown:
        """Answer a request for a payout with no. The worker's balance stays what it is."""
        async with self._ending:
            asked = await self._requests.get(request)
            if await self._paid(asked) is not None:
                raise Conflict("The payout request was paid.", code="payout_paid")
            return PayoutShown.of_request(await self._requests.end(request, "refused"))

    def _earned(self, account: AccountId) -> Account | None:
        """A worker's account; None of one that has a token and earned nothing yet. Raises NotFound of others."""
        tokens = self._store.worker_tokens.list()
        if account not in self._ledger.state.accounts and any(
            worker_account(token.worker) == account for token in tokens
        ):
            return None
        return find_account(self._ledger, account)

    async def _pay_request(self, request: str, note: str) -> PayoutShown:
        """Once: its transfer has an id that follows from the request's."""
        asked = await self._requests.get(request)
        if asked.state == "refused":
            raise Conflict("The payout request was refused.", code="payout_refused")
        paid = await self._paid(asked)
        if paid is not None:  # its note may have been another
            shown = await self._shown(paid.id, "exists")
        else:
            transfer, account = transfer_of(request), worker_account(asked.worker)
            shown = await self._pay(transfer, account, asked.amount, note)
        await self._requests.end(request, "paid")
        return shown

    async def _paid(self, asked: PayoutRequest) -> Transfer | None:
        transfer = transfer_of(asked.id)
        return await self._store.reader.read(lambda c: read_transfer(c, transfer))

    async def _pay(
        self, transfer: TransferId, account: AccountId, amount: Nano, note: str
    ) -> PayoutShown:
        command = Payout(transfer, account, amount, self._wall_ms(), note)
        return await self._shown(transfer, await pay(self._store, command))

    async def _shown(self, transfer: TransferId, result: Result) -> PayoutShown:
        payouts = await read_payouts(self._store.reader, transfer=transfer)
        return PayoutShown.of_payout(payouts[0], result)


def _account(worker: str) -> AccountId:
    """Of a worker's name, or of its account's."""
    return AccountId(worker) if worker.startswith(_PREFIX) else worker_account(worker)
