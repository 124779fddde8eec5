"""The ledger over HTTP: checked, exported, added up, and a transfer corrected."""

import csv
import io
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection

from filature.admin.accounts import account_id, find_account, run_command, transfer_id
from filature.admin.amounts import needed_amount
from filature.admin.checking import check_store
from filature.admin.ledger_models import (
    BalanceLine,
    BalanceShown,
    CheckShown,
    MovementAsked,
    TransferShown,
    ViolationShown,
)
from filature.admin.models import Form, IdInPath, Listed, Storable
from filature.errors import NotFound
from filature.ledger.commands import Correct
from filature.ledger.trial_balance import trial_balance
from filature.store.ledger_rows import last_seq, numbered_transfers, read_transfer
from filature.store.store import Store
from filature.units import AccountId, TransferId

PAGE_ROWS: Final = 2000
"""Transfers of an export that are in memory at a time."""
VIOLATIONS_MAX: Final = 1000
"""Told of at once; the rest is counted."""
LIST_MAX: Final = 10_000
CSV_COLUMNS: Final = (
    "seq",
    "id",
    "kind",
    "debit",
    "credit",
    "amount_nano",
    "amount",
    "fee_nano",
    "fee",
    "fee_bp",
    "held_nano",
    "held",
    "at_ms",
    "at",
    "corrects",
    "note",
)

Numbered = list[tuple[int, TransferShown]]


class LedgerRoutes:
    """The routes of ``/ledger``."""

    def __init__(self, store: Store, wall_ms: Callable[[], int]) -> None:
        self._store = store
        self._wall_ms = wall_ms

    def router(self) -> APIRouter:
        router = APIRouter(tags=["ledger"], prefix="/ledger")
        router.add_api_route("/check", self.check, methods=["GET"])
        router.add_api_route("/balance", self.balance, methods=["GET"])
        router.add_api_route(
            "/export",
            self.export,
            methods=["GET"],
            response_class=StreamingResponse,
            responses={200: {"content": {"text/csv": {}, "application/jsonl": {}}}},
        )
        router.add_api_route("/transfers", self.index, methods=["GET"])
        router.add_api_route("/transfers/{transfer}", self.show, methods=["GET"])
        router.add_api_route(
            "/transfers/{transfer}/correct", self.correct, methods=["POST"], status_code=201
        )
        return router

    async def check(self) -> CheckShown:
        """Look at everything stored and at the open holds; requests go on meanwhile."""
        report = await check_store(self._store)
        wrong = [
            ViolationShown(invariant=each.invariant, subject=each.subject, message=each.message)
            for each in report.violations[:VIOLATIONS_MAX]
        ]
        return CheckShown(
            ok=not wrong,
            accounts=report.accounts,
            transfers=report.transfers,
            holds=report.holds,
            usage_records=report.usage_records,
            violations=wrong,
            violations_left_out=len(report.violations) - len(wrong),
        )

    async def balance(self) -> BalanceShown:
        """The trial balance of this moment."""
        state = self._store.ledger.state
        balance = trial_balance(state.accounts.values(), state.holds.values())
        return BalanceShown(
            balanced=balance.is_balanced,
            lines=[BalanceLine.of(line) for line in balance.lines],
            total=BalanceLine.of(balance.total),
        )

    async def export(
        self,
        form: Annotated[Form, Query(alias="format")] = "jsonl",
        account: str | None = None,
        after_seq: Storable = 0,
    ) -> StreamingResponse:
        """All transfers that are stored, or those of one account, in the order of the ledger."""
        owner = self._owner(account)
        last = await self._store.reader.read(last_seq)
        first = await self._page(owner, after_seq, PAGE_ROWS)  # an error here is still a status
        write = _csv if form == "csv" else _jsonl
        kind = "text/csv; charset=utf-8; header=present" if form == "csv" else "application/jsonl"
        body = self._rows(owner, last, first, write)
        if form == "csv":
            body = _with_header(body)
        return StreamingResponse(body, media_type=kind)

    async def index(
        self,
        account: str | None = None,
        after_seq: Storable = 0,
        limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = 100,
    ) -> Listed[TransferShown]:
        """Transfers in the order of the ledger; ``after_seq`` is the one behind which to go on."""
        page = await self._page(self._owner(account), after_seq, limit + 1)
        data = [shown for _, shown in page[:limit]]
        return Listed(data=data, has_more=len(page) > limit)

    async def show(self, transfer: IdInPath) -> TransferShown:
        return await self._transfer(TransferId(transfer))

    async def correct(
        self, transfer: IdInPath, asked: MovementAsked, response: Response
    ) -> TransferShown:
        """Reverse a part of a transfer, or all of it, by another; ids as in a top-up."""
        amount = needed_amount(asked.amount, asked.amount_nano, "amount")
        correction = transfer_id(asked.id, "correction")
        command = Correct(correction, TransferId(transfer), amount, self._wall_ms(), asked.note)
        if await run_command(self._store.ledger, command) == "exists":
            response.status_code = 200
        return await self._transfer(correction)

    async def _transfer(self, transfer: TransferId) -> TransferShown:
        found = await self._store.reader.read(
            lambda connection: read_transfer(connection, transfer)
        )
        if found is None:
            raise NotFound(
                f"There is no transfer {transfer[:128]!r}.",
                param="transfer",
                code="transfer_not_found",
            )
        return TransferShown.of(found)

    def _owner(self, account: str | None) -> AccountId | None:
        if account is None:
            return None
        return find_account(self._store.ledger, account_id(account)).id

    async def _page(self, owner: AccountId | None, after_seq: int, limit: int) -> Numbered:
        def read(connection: Connection) -> Numbered:
            rows = numbered_transfers(connection, account=owner, after_seq=after_seq, limit=limit)
            return [(seq, TransferShown.of(transfer, seq)) for seq, transfer in rows]

        return await self._store.reader.read(read)

    async def _rows(
        self,
        owner: AccountId | None,
        last: int,
        page: Numbered,
        write: Callable[[Numbered], bytes],
    ) -> AsyncIterator[bytes]:
        """The page and those behind it, up to the transfer that was the last when it was asked for."""
        while page:
            yield write([row for row in page if row[0] <= last])
            after_seq = page[-1][0]
            if len(page) < PAGE_ROWS or after_seq >= last:
                return
            page = await self._page(owner, after_seq, PAGE_ROWS)


def _jsonl(page: Numbered) -> bytes:
    return b"".join(
        orjson.dumps(shown.model_dump(), option=orjson.OPT_APPEND_NEWLINE) for _, shown in page
    )


def _csv(page: Numbered) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for _, shown in page:
        row = shown.model_dump()
        writer.writerow([row[column] for column in CSV_COLUMNS])
    return text.getvalue().encode()


async def _with_header(rows: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield ",".join(CSV_COLUMNS).encode() + b"\n"
    async for some in rows:
        yield some
