"""The tests' clock, and requests of a client that workers served: for tests of what they earned."""

from typing import Any, Final

import orjson

from filature.ledger.accounts import client_account, worker_account
from filature.ledger.commands import ChargeLate, OpenAccount, TopUp
from filature.ledger.outcomes import Outcome
from filature.store.batch import UsageRow
from filature.store.store import Store
from filature.telemetry.record import UsageRecord
from filature.units import HoldId, Nano, RequestId, TransferId

ALICE: Final = client_account("alice")
NOW_MS: Final = 1_800_000_000_000
LATER_MS: Final = 10**15


async def rich(store: Store, nano: int = 10**9) -> None:
    await store.ledger.run(OpenAccount(ALICE))
    await store.ledger.run(TopUp(TransferId("in"), ALICE, Nano(nano), 1))


def row(request: str, worker: str, cost: int, at_ms: int = 0, **fields: Any) -> UsageRow:
    given: dict[str, Any] = {
        "dialect": "chat",
        "model": "m",
        "outcome": "completed",
        "status": 200,
    } | fields
    record = UsageRecord(
        RequestId(request),
        None,
        engine=worker,
        total_cost=cost,
        started_at=at_ms / 1000,
        account=ALICE,
        **given,
    )
    line = orjson.dumps(record.as_log_fields()).decode()
    model = record.model.replace("\0", "\ufffd")
    return UsageRow(request, ALICE, None, at_ms, model, record.outcome, cost, line)


def replaced(request: str, claimed_ms: int) -> UsageRow:
    """Of a request whose Idempotency-Key a retry took over."""
    return row(request, "", 0, claimed_ms, outcome="replaced", status=0)


def serve(
    store: Store,
    request: str,
    worker: str,
    cost: int,
    at_ms: int = 0,
    fee_bp: int = 0,
    **fields: Any,
) -> None:
    """A request that was charged; ``flush`` stores it."""
    held = store.ledger.hold(HoldId(request), ALICE, Nano(cost), fee_bp, LATER_MS)
    assert held is Outcome.DONE
    usage = row(request, worker, cost, at_ms, **fields)
    done = store.ledger.settle(HoldId(request), worker_account(worker), Nano(cost), usage, None)
    assert done is Outcome.DONE


def fail(store: Store, request: str, worker: str, outcome: str, at_ms: int = 0) -> None:
    """A request that cost nothing."""
    store.ledger.hold(HoldId(request), ALICE, Nano(1), 0, LATER_MS)
    usage = row(request, worker, 0, at_ms, outcome=outcome, prompt=1000)
    assert store.ledger.void(HoldId(request), usage) is Outcome.DONE


async def serve_late(store: Store, request: str, worker: str, cost: int, at_ms: int) -> None:
    """A charge that the operator bears."""
    account = worker_account(worker)
    await store.ledger.run(OpenAccount(account))
    late = ChargeLate(HoldId(request), account, Nano(cost), Nano(cost), 1000, at_ms)
    assert (await store.ledger.run(late)).outcome is Outcome.DONE
    store.ledger.note(row(request, worker, 0, at_ms, outcome="reported", prompt=7))
