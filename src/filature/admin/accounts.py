"""Accounts over HTTP: opened, looked at, paid into and out of."""

import re
import secrets
from collections.abc import Callable, Iterable
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from filature.admin.amounts import credits_of, needed_amount
from filature.admin.ledger_models import AccountAsked, AccountShown, MovementAsked, MovementShown
from filature.admin.marks import check_payable
from filature.admin.models import Listed, Result
from filature.errors import Conflict, InvalidRequest, NotFound
from filature.ledger.accounts import (
    HOUSE_ACCOUNTS,
    Account,
    AccountKind,
    client_account,
    worker_account,
)
from filature.ledger.commands import Command, OpenAccount, Payout, Refund, TopUp
from filature.ledger.outcomes import Outcome
from filature.store.embedded import EmbeddedLedger
from filature.store.payouts import request_of
from filature.store.store import Store
from filature.units import AccountId, TransferId

LIST_MAX: Final = 10_000
_CLIENT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_WORKER_NAME: Final = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._@+:/\[\]-]{0,255}")

Movement = type[TopUp] | type[Refund] | type[Payout]


def account_id(name: str) -> AccountId:
    """The ledger's id of what people call an account: ``alice``, ``worker:w``, ``fees``."""
    if name in HOUSE_ACCOUNTS or ":" in name:
        return AccountId(name)
    return client_account(name)


def find_account(ledger: EmbeddedLedger, name: str) -> Account:
    """Raises NotFound."""
    account = ledger.state.accounts.get(account_id(name))
    if account is None:
        raise NotFound(
            f"There is no account {name[:200]!r}.", param="account", code="account_not_found"
        )
    return account


def transfer_id(asked: str | None, kind: str) -> TransferId:
    """The id that was asked for, or a new one. Raises InvalidRequest on one that pays a payout request."""
    if asked is None:
        return TransferId(f"{kind}-{secrets.token_hex(12)}")
    if request_of(TransferId(asked)) is not None:
        raise InvalidRequest(
            "An id that begins so is of a payout that a worker asked for: give another one, or pay "
            "it by its request.",
            param="id",
        )
    return TransferId(asked)


async def run_command(ledger: EmbeddedLedger, command: Command) -> Result:
    """Whether it was done now or before. Raises what says why it was refused."""
    outcome = (await ledger.run(command)).outcome
    if outcome is Outcome.DONE:
        return "done"
    if outcome is Outcome.EXISTS:
        return "exists"
    match outcome:
        case Outcome.CONFLICT:
            raise Conflict(
                "There is another transfer with this id: an id is for one transfer, once.",
                param="id",
                code="transfer_id_taken",
            )
        case Outcome.INSUFFICIENT:
            raise Conflict(
                _shortage(ledger, command),
                param="amount",
                code="insufficient_funds",
            )
        case Outcome.EXCEEDS_TRANSFER:
            raise Conflict(
                "That is more than what is left of the transfer.",
                param="amount",
                code="exceeds_transfer",
            )
        case Outcome.UNKNOWN_ACCOUNT:
            raise NotFound("There is no such account.", param="account", code="account_not_found")
        case Outcome.UNKNOWN_TRANSFER:
            raise NotFound(
                "There is no such transfer.", param="transfer", code="transfer_not_found"
            )
        case Outcome.WRONG_ACCOUNT:
            raise InvalidRequest("The account is of another kind.", param="account")
        case Outcome.NOT_CORRECTABLE:
            raise InvalidRequest("A correction is not corrected: make a new transfer.")
        case Outcome.INVALID_AMOUNT:
            raise InvalidRequest("amount must be above zero.", param="amount")
        case Outcome.OVERFLOW:
            raise InvalidRequest("The account's total would be too high.", param="amount")
    raise InvalidRequest(f"The ledger refused: {outcome}.")


def _shortage(ledger: EmbeddedLedger, command: Command) -> str:
    match command:
        case Refund(client=account) | Payout(worker=account):
            available = credits_of(ledger.state.accounts[account].available)
            name = account.partition(":")[2]
            return f"{name} has only {available} credits that no running request holds."
    return "The account that would give it has less that no running request holds."


async def pay(store: Store, payout: Payout) -> Result:
    """As ``run_command``. Raises what says why, too, where the worker is marked and it was not paid before."""
    if await store.ledger.find(payout.id) is None:
        check_payable(store.marks, payout.worker.removeprefix(AccountKind.WORKER + ":"))
    return await run_command(store.ledger, payout)


class Accounts:
    """The routes of ``/accounts``."""

    def __init__(self, store: Store, wall_ms: Callable[[], int]) -> None:
        self._store = store
        self._ledger = store.ledger
        self._wall_ms = wall_ms

    def router(self) -> APIRouter:
        router = APIRouter(tags=["accounts"])
        router.add_api_route("/accounts", self.create, methods=["POST"], status_code=201)
        router.add_api_route("/accounts", self.index, methods=["GET"])
        for name, path, endpoint in (
            ("top_up", "top-up", self.top_up),
            ("refund", "refund", self.refund),
            ("pay_out", "payout", self.payout),
        ):
            router.add_api_route(
                f"/accounts/{{account:path}}/{path}",
                endpoint,
                methods=["POST"],
                status_code=201,
                name=name,
            )
        router.add_api_route("/accounts/{account:path}", self.show, methods=["GET"])
        return router

    async def create(self, asked: AccountAsked, response: Response) -> AccountShown:
        """Open an account. One that is there stays as it is: 200."""
        is_client = asked.kind == "client"
        allowed = _CLIENT_NAME if is_client else _WORKER_NAME
        if not allowed.fullmatch(asked.name) or asked.name in HOUSE_ACCOUNTS:
            raise InvalidRequest(
                "name must be 1 to 128 letters, digits and . _ @ + -, beginning with a letter or "
                f"digit, and none of {', '.join(HOUSE_ACCOUNTS)}.",
                param="name",
            )
        account = client_account(asked.name) if is_client else worker_account(asked.name)
        result = await run_command(self._ledger, OpenAccount(account))
        if result == "exists":
            response.status_code = 200
        return self._shown(self._ledger.state.accounts[account], result)

    async def index(
        self,
        kind: AccountKind | None = None,
        after: str = "",
        limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = 1000,
    ) -> Listed[AccountShown]:
        """Accounts by their ids; ``after`` is the id behind which to go on."""
        of_kind = (
            account
            for account in self._ledger.state.accounts.values()
            if account.id > after and kind in (None, account.kind)
        )
        found = sorted(of_kind, key=lambda account: account.id)
        data = self._all_shown(found[:limit])
        return Listed(data=data, has_more=len(found) > limit)

    async def show(self, account: str) -> AccountShown:
        return self._shown(find_account(self._ledger, account))

    async def top_up(self, account: str, asked: MovementAsked, response: Response) -> MovementShown:
        """Pay in. The same id with the same content is done once: 200; with other content: 409."""
        return await self._move(TopUp, account, asked, response)

    async def refund(self, account: str, asked: MovementAsked, response: Response) -> MovementShown:
        """Pay back what no running request holds; ids as in a top-up."""
        return await self._move(Refund, account, asked, response)

    async def payout(self, account: str, asked: MovementAsked, response: Response) -> MovementShown:
        """Pay a worker that is not marked what it earned; ids as in a top-up."""
        return await self._move(Payout, account, asked, response)

    async def _move(
        self, movement: Movement, name: str, asked: MovementAsked, response: Response
    ) -> MovementShown:
        account = find_account(self._ledger, name)
        amount = needed_amount(asked.amount, asked.amount_nano, "amount")
        transfer = transfer_id(asked.id, movement.__name__.lower())
        command = movement(transfer, account.id, amount, self._wall_ms(), asked.note)
        if isinstance(command, Payout):
            result = await pay(self._store, command)
        else:
            result = await run_command(self._ledger, command)
        if result == "exists":
            response.status_code = 200
        shown = self._shown(account)
        return MovementShown(
            result=result,
            id=transfer,
            amount=credits_of(amount),
            amount_nano=amount,
            account=shown,
        )

    def _shown(self, account: Account, result: Result | None = None) -> AccountShown:
        holds = sum(hold.client == account.id for hold in self._ledger.state.holds.values())
        return AccountShown.of(account, holds, result)

    def _all_shown(self, accounts: Iterable[Account]) -> "list[AccountShown]":
        holds: dict[AccountId, int] = {}
        for hold in self._ledger.state.holds.values():
            holds[hold.client] = holds.get(hold.client, 0) + 1
        return [AccountShown.of(account, holds.get(account.id, 0)) for account in accounts]
