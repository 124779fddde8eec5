"""An admin API over a store of its own, and a caller of it, for tests of its routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import orjson

from filature.admin.app import create_app
from filature.admin.workers import Registry
from filature.ledger.accounts import client_account, worker_account
from filature.ledger.outcomes import Outcome
from filature.store.batch import UsageRow
from filature.store.store import Store
from filature.telemetry.record import UsageRecord
from filature.units import HoldId, Nano, RequestId

TOKEN: Final = "the-token-of-these-tests"
ALICE: Final = client_account("alice")
NOW_MS: Final = 1_782_907_200_000
"""2026-07-01 12:00 UTC."""
LATER_MS: Final = 10**15


class Api:
    """Asks the application without a socket. ``data`` is the answer, whose status is that expected."""

    def __init__(self, store: Store, client: httpx.AsyncClient) -> None:
        self.store = store
        self.client = client

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = await self.client.request(method, f"/admin/v1{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def refused(
        self, method: str, path: str, body: Any = None, status: int = 400
    ) -> dict[str, Any]:
        """The error's fields, in OpenAI's envelope."""
        answer = await self.ask(method, path, body, status)
        assert set(answer) == {"error"}
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        error: dict[str, Any] = answer["error"]
        return error


@asynccontextmanager
async def opened(url: str, workers: Registry | None = None) -> AsyncIterator[Api]:
    store = await Store.open(url, lambda: NOW_MS)
    app = create_app(store, token=TOKEN, clock=lambda: NOW_MS, workers=workers)
    try:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://admin",
            headers={"authorization": f"Bearer {TOKEN}"},
        ) as client:
            yield Api(store, client)
    finally:
        await store.close()


async def rich(api: Api, credit: str = "10") -> None:
    """Alice with some credit."""
    await api.ask("POST", "/accounts", {"name": "alice"}, 201)
    await api.ask("POST", "/accounts/alice/top-up", {"amount": credit, "id": "first"}, 201)


async def charged(api: Api, request: str, cost: int, fee_bp: int = 0, **fields: Any) -> None:
    """A request of Alice's that was served and paid."""
    ledger = api.store.ledger
    assert ledger.hold(HoldId(request), ALICE, Nano(cost), fee_bp, LATER_MS) is Outcome.DONE
    row = usage_row(request, cost, **fields)
    assert (
        ledger.settle(HoldId(request), worker_account("w"), Nano(cost), row, None) is Outcome.DONE
    )
    await ledger.flush()


def usage_row(request: str, cost: int, **fields: Any) -> UsageRow:
    record = UsageRecord(
        id=RequestId(request),
        client_request_id=None,
        dialect="chat",
        model=fields.get("model", "silk"),
        engine="w",
        outcome="completed",
        status=200,
        prompt=3,
        completion=4,
        total_cost=cost,
        started_at=fields.get("started_ms", NOW_MS) / 1000,
        account=ALICE,
    )
    line = orjson.dumps(record.as_log_fields()).decode()
    started_ms = int(record.started_at * 1000)
    return UsageRow(request, ALICE, None, started_ms, record.model, record.outcome, cost, line)
