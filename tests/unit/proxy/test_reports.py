"""What a report settles: what a dead proxy left open, once, within its ticket; and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.unit.store.working import replaced

from filature.answer.pricing import Tariff
from filature.ledger.accounts import client_account, worker_account
from filature.ledger.commands import ChargeLate, OpenAccount, Refund, TopUp
from filature.ledger.outcomes import Outcome as LedgerOutcome
from filature.proxy.grants import row_of
from filature.proxy.reports import GRACE_MS, ReportDesk
from filature.proxy.tickets import TicketOffice
from filature.relay.outcome import Outcome
from filature.store.idempotency import Claim, Idempotency
from filature.store.keys import KeyLimits, read_spending
from filature.store.store import Store
from filature.store.usage_records import RecentUsage
from filature.store.worker_tokens import WorkerToken
from filature.telemetry.record import UsageRecord
from filature.units import AccountId, HoldId, Nano, RequestId, TransferId
from filature.wire.control import Report

NOW_MS = 1_800_000_000_000
KEY = bytes(32)
LIFE_S = 600.0
HELD = 1_000_000
BOUNDS = (100, 50)
TARIFF = Tariff(
    prompt=10**9, cached=10**8, completion=4 * 10**9, reasoning=4 * 10**9, coefficient=1000
)
CLIENT = client_account("alice")
TOKEN = WorkerToken(id="wt_1", hint="", digest=b"", created_ms=0, worker="gpu", models=None)


class Desk:
    """A desk of the process ``now``, after one that was called ``before`` died; the clock is set by hand."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now_ms = NOW_MS
        self.recent = RecentUsage(100)
        self.idempotency = Idempotency(store.writer, lambda: self.now_ms)
        self.compared: list[tuple[str, str]] = []
        self.spent: list[tuple[tuple[str, str], int]] = []
        self.desk = ReportDesk(
            store,
            self.idempotency,
            self.recent,
            KEY,
            "now",
            lambda: self.now_ms,
            self._compare,
            self._spend,
        )

    def _compare(self, worker: str, model: str, record: UsageRecord, report: Report) -> None:
        assert (record.id, model) == (report.id, "m")
        self.compared.append((worker, report.id))

    def _spend(self, budget_period: tuple[str, str], amount: int) -> None:
        self.spent.append((budget_period, amount))

    def ticket(
        self,
        request: str,
        *,
        boot: str = "before",
        worker: str = "gpu",
        key: bytes = KEY,
        key_id: str | None = None,
    ) -> str:
        record = UsageRecord(RequestId(request), None, "chat", "m", "", Outcome.REFUSED, 0)
        record.account, record.held, record.started_at = CLIENT, HELD, NOW_MS / 1000
        record.key_id = key_id
        office = TicketOffice(key, boot, LIFE_S)
        line = office.line(record, worker, "m", TARIFF, 1000, BOUNDS)
        return line.decode().partition(": ")[2].strip()

    async def says(self, request: str, ticket: str | None = None, /, **more: object) -> str:
        fields: dict[str, object] = {
            "id": request,
            "ticket": ticket or self.ticket(request),
            "outcome": "completed",
            "prompt": 10,
            "cached": 0,
            "completion": 5,
            "reasoning": 0,
        }
        return (await self.desk.take(TOKEN, [fields | more])).verdicts[request]

    def balance(self, account: AccountId) -> int:
        known = self.store.ledger.state.accounts.get(account)
        return 0 if known is None else known.balance


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = await Store.open(f"sqlite:///{tmp_path}/f.db", lambda: NOW_MS)
    await store.ledger.run(OpenAccount(CLIENT))
    await store.ledger.run(TopUp(TransferId("t"), CLIENT, Nano(10**6), NOW_MS))
    yield Desk(store)
    await store.close()


COST = 10 * 1000 + 5 * 4000


async def test_what_a_dead_proxy_left_open_is_settled_once(desk: Desk) -> None:
    assert await desk.says("r") == "settled"
    assert desk.balance(CLIENT) == 10**6 - COST
    assert desk.balance(worker_account("gpu")) == COST * 9 // 10
    assert [await desk.says("r"), await desk.says("r", completion=50)] == ["closed", "closed"]
    assert desk.balance(CLIENT) == 10**6 - COST
    stored = await desk.store.usage.get("r")
    assert stored is not None
    record = UsageRecord.from_log(stored[1])
    assert (record.outcome, record.total_cost, record.completion) == ("reported", COST, 5)


async def test_what_a_report_settles_uses_up_its_key_s_budget(desk: Desk) -> None:
    limits = KeyLimits(budget=Nano(10**6), budget_period="total")
    _, key = await desk.store.keys.create(CLIENT, "", limits)
    assert await desk.says("r", desk.ticket("r", key_id=key.id)) == "settled"
    assert desk.spent == [((key.id, "total"), COST)]
    assert await desk.store.reader.read(read_spending) == {(key.id, "total"): COST}
    assert await desk.says("r", desk.ticket("r", key_id=key.id)) == "closed"
    assert len(desk.spent) == 1


async def test_no_more_than_what_its_ticket_allows(desk: Desk) -> None:
    told = {"prompt": 10**6, "completion": 10**6, "cached": 10**6, "reasoning": 10**6}
    assert await desk.says("r", **told) == "settled"
    most = 100 * 100 + 50 * 4000  # all of the prompt cached, as it says itself
    assert desk.balance(CLIENT) == 10**6 - most


async def test_no_more_than_what_was_held(desk: Desk) -> None:
    dear = Tariff(
        prompt=10**12, cached=10**12, completion=10**12, reasoning=10**12, coefficient=1000
    )
    record = UsageRecord(RequestId("r"), None, "chat", "m", "", Outcome.REFUSED, 0)
    record.account, record.held, record.started_at = CLIENT, HELD, NOW_MS / 1000
    office = TicketOffice(KEY, "before", LIFE_S)
    line = office.line(record, "gpu", "m", dear, 0, BOUNDS)
    ticket = line.decode().partition(": ")[2].strip()
    assert await desk.says("r", ticket) == "settled"
    assert desk.balance(CLIENT) == 10**6 - HELD


async def test_what_the_balance_does_not_cover_is_the_operator_s(desk: Desk) -> None:
    assert await desk.says("a", completion=50) == "settled"
    for name in "bcdef":
        await desk.says(name, completion=50)
    left = desk.balance(CLIENT)
    assert 0 <= left < 10 * 1000 + 50 * 4000
    assert desk.balance(worker_account("gpu")) == 6 * (10 * 1000 + 50 * 4000) * 9 // 10
    assert desk.balance(AccountId("shortfall")) < 0


async def test_a_retry_with_the_same_key_is_charged_and_not_what_it_replaced(desk: Desk) -> None:
    keys = desk.idempotency
    await keys.claim(Claim(CLIENT, "key", "r", b""), replaced)
    await keys.recover()
    again = Claim(CLIENT, "key", "s", b"")
    assert await keys.claim(again, replaced) is again
    assert await desk.says("r") == "shortfall"
    assert desk.balance(CLIENT) == 10**6
    assert desk.balance(worker_account("gpu")) == COST * 9 // 10
    assert [await desk.says("r"), await desk.says("r", completion=50)] == ["closed", "closed"]
    assert desk.balance(AccountId("shortfall")) == -COST


async def test_a_retry_after_the_report_is_told_that_it_was_charged(desk: Desk) -> None:
    keys = desk.idempotency
    await keys.claim(Claim(CLIENT, "key", "r", b""), replaced)
    await keys.recover()
    assert await desk.says("r") == "settled"
    held = await keys.claim(Claim(CLIENT, "key", "s", b""), replaced)
    assert (held.request_id, held.state) == ("r", "settled")
    assert held.record is not None
    assert UsageRecord.from_log(held.record).total_cost == COST


async def test_a_retry_may_be_charged_where_the_operator_bore_the_report(desk: Desk) -> None:
    keys = desk.idempotency
    await keys.claim(Claim(CLIENT, "key", "r", b""), replaced)
    await keys.recover()
    await desk.store.ledger.run(Refund(TransferId("out"), CLIENT, Nano(10**6), NOW_MS))
    assert await desk.says("r") == "shortfall"
    again = Claim(CLIENT, "key", "s", b"")
    assert await keys.claim(again, replaced) is again
    stored = await desk.store.usage.get("r")
    assert stored is not None
    record = UsageRecord.from_log(stored[1])
    assert (record.outcome, record.prompt, record.total_cost) == ("reported", 10, 0)


async def test_what_the_balance_does_not_cover_any_more_is_the_operator_s(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did when the report came; the worker is paid all the same."""
    ledger, get = desk.store.ledger, desk.store.usage.get

    async def get_slowly(request: str) -> tuple[AccountId, bytes] | None:
        await ledger.run(Refund(TransferId("out"), CLIENT, Nano(10**6 - COST + 1), NOW_MS))
        return await get(request)

    monkeypatch.setattr(desk.store.usage, "get", get_slowly)
    assert await desk.says("r") == "shortfall"
    assert desk.balance(CLIENT) == COST - 1
    assert desk.balance(worker_account("gpu")) == COST * 9 // 10


@pytest.mark.parametrize("credit", [COST - 1, 10**6])
async def test_a_worker_that_leaves_while_its_report_is_settled_is_paid_once(
    desk: Desk, credit: int
) -> None:
    ledger = desk.store.ledger
    await ledger.run(Refund(TransferId("out"), CLIENT, Nano(10**6 - credit or 1), NOW_MS))
    said = asyncio.ensure_future(desk.says("r"))
    while TransferId("r") not in ledger.state.transfers:
        await asyncio.sleep(0)
    said.cancel()
    with pytest.raises(asyncio.CancelledError):
        await said
    await ledger.flush()
    await ledger.run(TopUp(TransferId("more"), CLIENT, Nano(10**6), NOW_MS))
    verdict = "shortfall" if credit < COST else "closed"
    assert await desk.says("r") == verdict
    assert await desk.says("r") == "closed"
    async with asyncio.timeout(5):
        await ledger.flush()
    assert desk.balance(worker_account("gpu")) == COST * 9 // 10


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({"worker": "another"}, "forged"),
        ({"key": b"x" * 32}, "forged"),
        ({"boot": "now"}, "known"),
    ],
)
async def test_tickets_that_settle_nothing(
    desk: Desk, changed: dict[str, str | bytes], verdict: str
) -> None:
    assert await desk.says("r", desk.ticket("r", **changed)) == verdict  # type: ignore[arg-type]
    assert await desk.says("r2", desk.ticket("r")) == "forged"  # of another request
    assert desk.balance(CLIENT) == 10**6


async def test_reports_come_within_an_hour_of_the_ticket_s_end(desk: Desk) -> None:
    desk.now_ms = NOW_MS + int(LIFE_S * 1000) + GRACE_MS + 1
    assert await desk.says("late") == "expired"
    desk.now_ms -= 1
    assert await desk.says("in time") == "settled"


@pytest.mark.parametrize(
    "told",
    [
        {"outcome": "engine_failed_midstream"},
        {"outcome": "refused"},
        {"outcome": "no such outcome"},
        {"prompt": 0, "completion": 0},
    ],
)
async def test_what_is_not_charged_for_settles_nothing(desk: Desk, told: dict[str, object]) -> None:
    assert await desk.says("r", **told) == "nothing"
    assert desk.balance(CLIENT) == 10**6
    assert await desk.says("r") == "settled"  # another worker's may have more


async def test_a_report_of_what_was_metered_here_is_compared(desk: Desk) -> None:
    desk.recent.add(UsageRecord(RequestId("r"), None, "chat", "m", "gpu", Outcome.COMPLETED, 200))
    assert await desk.says("r", "whatever its ticket says") == "known"
    assert desk.compared == [("gpu", "r")]
    assert desk.balance(CLIENT) == 10**6


async def test_a_report_of_what_has_not_ended_is_to_be_sent_again(desk: Desk) -> None:
    """The process may still die before it has ended, and the report is what it is settled by then."""
    ledger, request = desk.store.ledger, HoldId("r")
    ledger.hold(request, CLIENT, Nano(HELD), 1000, NOW_MS + 10**6)
    report = {
        "id": "r",
        "ticket": desk.ticket("r", boot="now"),
        "outcome": "completed",
        "prompt": 1,
        "cached": 0,
        "completion": 1,
        "reasoning": 0,
    }
    assert (await desk.desk.take(TOKEN, [report])).verdicts == {}
    record = UsageRecord(RequestId("r"), None, "chat", "m", "gpu", Outcome.COMPLETED, 200)
    record.account = CLIENT
    ledger.settle(request, worker_account("gpu"), Nano(7), row_of(record), None, None)
    desk.recent.add(record)
    assert (await desk.desk.take(TOKEN, [report])).verdicts == {"r": "known"}
    assert await desk.store.usage.get("r") is not None, "it is stored before it is forgotten"


async def test_what_is_known_is_compared_where_it_says_something_else(desk: Desk) -> None:
    record = UsageRecord(RequestId("r"), None, "chat", "m", "gpu", Outcome.COMPLETED, 200)
    record.prompt, record.completion = 10, 5
    desk.recent.add(record)
    assert await desk.says("r") == "known"
    assert desk.compared == []
    assert await desk.says("r", completion=50) == "known"
    assert await desk.says("r", prompt=11) == "known"
    assert desk.compared == [("gpu", "r")] * 2
    wrong: object
    for wrong in (-1, "many", None, [], {}):
        with pytest.raises(ValidationError, match="completion"):
            await desk.says("r", completion=wrong)


@pytest.mark.parametrize("told", [{}, {"id": []}, {"id": None}, {"id": "r"}, {"id": "r\0" * 300}])
async def test_what_is_no_report_is_refused(desk: Desk, told: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        await desk.desk.take(TOKEN, [told])


async def test_a_late_charge_of_another_amount_is_left_as_it_is(desk: Desk) -> None:
    ledger = desk.store.ledger
    await ledger.run(OpenAccount(worker_account("gpu")))
    late = ChargeLate(HoldId("r"), worker_account("gpu"), Nano(7), Nano(HELD), 1000, NOW_MS)
    assert (await ledger.run(late)).outcome is LedgerOutcome.DONE
    assert await desk.says("r") == "conflict"
    assert await desk.store.usage.get("r") is None, "no record says what was not charged"
    assert desk.balance(AccountId("shortfall")) == -7
