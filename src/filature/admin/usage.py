"""Usage records over HTTP: one, the latest, and their sums. They are those that clients see, of all accounts."""

from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from filature.admin.accounts import find_account
from filature.admin.amounts import credits_of, day_of
from filature.admin.models import Listed, OneLineAsked, Storable
from filature.errors import NotFound
from filature.store.store import Store
from filature.store.usage import LIST_MAX, Group
from filature.telemetry.record import UsageRecord
from filature.units import AccountId

ID_CHARS_MAX: Final = 128
_RECORD: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "A usage record as GET /v1/usage/{request_id} shows it",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}
_RECORDS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "A list of usage records",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


class UsageSum(BaseModel):
    """Requests and what they cost."""

    object: Literal["usage_sum"] = "usage_sum"
    name: str
    requests: int
    cost: str
    cost_nano: int


class Usage:
    """The routes of ``/usage``."""

    def __init__(self, store: Store) -> None:
        self._usage = store.usage
        self._ledger = store.ledger

    def router(self) -> APIRouter:
        router = APIRouter(tags=["usage"])
        router.add_api_route("/usage", self.index, methods=["GET"], responses=_RECORDS)
        router.add_api_route("/usage/sums", self.sums, methods=["GET"])
        router.add_api_route("/usage/{request}", self.show, methods=["GET"], responses=_RECORD)
        return router

    async def index(
        self,
        account: OneLineAsked = None,
        model: OneLineAsked = None,
        outcome: OneLineAsked = None,
        since_ms: Storable | None = None,
        until_ms: Storable | None = None,
        limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = 100,
    ) -> Response:
        """The latest first: those of requests that began from ``since_ms`` on and before ``until_ms``."""
        records, has_more = await self._usage.list(
            account=self._owner(account),
            model=model,
            outcome=outcome,
            since_ms=since_ms,
            until_ms=until_ms,
            limit=limit,
            show=_public,
        )
        return _json({"object": "list", "data": records, "has_more": has_more})

    def _owner(self, account: str | None) -> AccountId | None:
        """Raises NotFound: of a name that nobody has nothing would be shown."""
        return None if account is None else find_account(self._ledger, account).id

    async def show(self, request: str) -> Response:
        found = None
        if len(request) <= ID_CHARS_MAX:
            found = await self._usage.get(request)
        if found is None:
            raise NotFound(
                f"There is no usage record {request[:ID_CHARS_MAX]!r}.",
                param="request",
                code="usage_not_found",
            )
        return _json(UsageRecord.from_log(found[1]).as_dict())

    async def sums(
        self,
        by: Group,
        account: OneLineAsked = None,
        since_ms: Storable | None = None,
        until_ms: Storable | None = None,
    ) -> Listed[UsageSum]:
        """Requests and costs per account, model, day (UTC) or outcome."""
        sums = await self._usage.sums(
            by,
            account=self._owner(account),
            since_ms=since_ms,
            until_ms=until_ms,
        )
        data = [
            UsageSum(
                name=_group_name(by, name), requests=count, cost=credits_of(cost), cost_nano=cost
            )
            for name, count, cost in sums
        ]
        return Listed(data=data)


def _public(line: str) -> orjson.Fragment:
    """A record as clients see it, written already."""
    return orjson.Fragment(UsageRecord.from_log(line).as_json())


def _group_name(by: Group, name: str | int) -> str:
    if by == "day":
        return day_of(int(name))
    if by == "account":
        return str(name).partition(":")[2]
    return str(name)


def _json(content: dict[str, Any]) -> Response:
    """By orjson, which writes the exact costs in records as they are."""
    return Response(orjson.dumps(content), media_type="application/json")
