"""Reports of workers: what they metered of requests. They settle those whose proxy died, once, and nothing else."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import orjson

from filature.answer.bounds import UsageBounds, within
from filature.answer.pricing import Cost, Tariff, cost_of
from filature.answer.usage import Usage
from filature.ledger.accounts import worker_account
from filature.ledger.commands import ChargeLate, OpenAccount
from filature.ledger.outcomes import Outcome as LedgerOutcome
from filature.ledger.transfers import TransferKind
from filature.proxy.grants import row_of
from filature.proxy.rates import period_name
from filature.relay.outcome import Outcome
from filature.store.idempotency import Idempotency
from filature.store.store import Store
from filature.store.usage_records import RecentUsage
from filature.store.worker_tokens import WorkerToken
from filature.telemetry.record import UsageRecord
from filature.units import AccountId, HoldId, Nano, RequestId, TransferId
from filature.wire.control import Accepted, Report
from filature.wire.ticket import Ticket, TicketError, check_ticket

GRACE_MS: Final = 3_600_000
"""After a ticket's time, for a report to come."""

log = logging.getLogger(__name__)


class ReportDesk:
    """Takes reports. ``boot`` names this process: what runs or ended in it is settled by its own metering.

    ``compare`` is told of a report of what was settled so: worker, model by its own name, record, report. ``spend``
    is told what a report used up of a key's budget.
    """

    def __init__(
        self,
        store: Store,
        idempotency: Idempotency,
        recent: RecentUsage,
        key: bytes,
        boot: str,
        wall_ms: Callable[[], int],
        compare: Callable[[str, str, UsageRecord, Report], None],
        spend: Callable[[tuple[str, str], int], None],
    ) -> None:
        self._store = store
        self._idempotency = idempotency
        self._recent = recent
        self._key = key
        self._boot = boot
        self._wall_ms = wall_ms
        self._compare = compare
        self._spend = spend
        self._settling: set[str] = set()
        self.verdicts: Counter[str] = Counter()
        """How many reports ended how."""

    async def take(self, token: WorkerToken, reports: list[dict[str, Any]]) -> Accepted:
        """Deal with each, so that the worker may forget it. Raises StoreError: it is to be sent again.

        Raises pydantic.ValidationError where one is no ``Report``.

        So is one of a request that has not ended, for which there is no verdict: this process may die before it does.
        """
        verdicts: dict[str, str] = {}
        for told in reports:
            if self._compared(token, told):
                verdicts[told["id"]] = "known"
                continue
            report = Report.model_validate(told)
            verdict = await self._judge(token, report)
            if verdict is not None:
                verdicts[report.id] = verdict
        counts = Counter(verdicts.values())
        self.verdicts.update(counts)
        if counts["known"]:
            await self._store.ledger.flush()  # what is known has ended, but may not be stored yet
        return Accepted(verdicts=verdicts)

    def _compared(self, token: WorkerToken, told: dict[str, Any]) -> bool:
        """Whether the request ended here of late; whatever the report's ticket is, it changes nothing then."""
        request = told.get("id")
        record = self._recent.get(request) if type(request) is str else None
        if record is None:
            return False
        if not _agrees(told, record):
            model = self._store.prices.aliases.get(record.model, record.model)
            self._compare(token.worker, model, record, Report.model_validate(told))
        if (
            record.worker_started_at is not None
            and record.worker_ended_at is None
            and record.engine == token.worker
        ):
            self._note_end(record, Report.model_validate(told))
        return True

    def _note_end(self, record: UsageRecord, report: Report) -> None:
        """Of a stream whose times were asked for: the worker had not ended when it sent its headers."""
        record.worker_ended_at = round(report.started_at + report.total_s, 6)
        self._store.ledger.note(row_of(record))
        record.line = b""  # it is logged already

    async def _judge(self, token: WorkerToken, report: Report) -> str | None:
        try:
            ticket = check_ticket(report.ticket.encode("utf-8"), self._key)
        except TicketError as error:
            log.warning("worker %s: %s, of request %s", token.worker, error, report.id)
            return "forged"
        if ticket.request != report.id or ticket.worker != token.worker:
            log.warning("worker %s: another's ticket, of request %s", token.worker, report.id)
            return "forged"
        if report.id in self._settling:
            return None
        if ticket.boot == self._boot:
            return None if HoldId(report.id) in self._store.ledger.state.holds else "known"
        if self._wall_ms() > ticket.expires_ms + GRACE_MS:
            return "expired"
        if report.outcome not in _CHARGED or not (report.prompt or report.completion):
            return "nothing"  # another worker's may have more
        self._settling.add(report.id)
        try:
            return await self._settle(ticket, report)
        finally:
            self._settling.discard(report.id)

    async def _settle(self, ticket: Ticket, report: Report) -> str:
        """Charge what is possible of it: to the client if the balance covers it, else to the operator.

        So it is where a retry with the same Idempotency-Key has taken the request's place.
        """
        ledger = self._store.ledger
        usage, cost = usage_and_cost(ticket, report)
        client, worker = AccountId(ticket.account), worker_account(ticket.worker)
        request, amount = HoldId(ticket.request), Nano(min(cost.total, ticket.held))
        record = _record(ticket, report, usage, cost, amount)
        is_covered = ledger.available(client) >= amount
        if is_covered:
            await self._idempotency.use_up(report.id)
        stored = await self._store.usage.get(report.id)
        if stored is not None and orjson.loads(stored[1])["outcome"] != Outcome.REPLACED:
            return "closed"
        charge = await ledger.find(TransferId(request))  # of a report whose worker, or proxy, left
        if charge is not None and charge.kind is TransferKind.CHARGE:
            await ledger.flush()
            return "closed"
        is_covered = is_covered and stored is None and ledger.available(client) >= amount
        if charge is None and is_covered:
            expires_ms = self._wall_ms() + GRACE_MS
            held = ledger.hold(request, client, amount, ticket.fee_bp, expires_ms)
            if held is not LedgerOutcome.DONE:
                log.error("request %s could not be settled by its report: %s", report.id, held)
                return str(held)
            budget = self._budget(ticket)
            ledger.settle(request, worker, amount, row_of(record), None, budget)
            if budget is not None and amount:
                self._spend(budget, amount)
            await ledger.flush()
            return "settled"
        await ledger.run(OpenAccount(worker))
        late = ChargeLate(
            request, worker, amount, Nano(ticket.held), ticket.fee_bp, self._wall_ms()
        )
        done = (await ledger.run(late)).outcome
        if done not in (LedgerOutcome.DONE, LedgerOutcome.EXISTS):
            log.error("request %s could not be settled by its report: %s", report.id, done)
            return str(done)
        record.prompt_cost = record.completion_cost = record.total_cost = 0  # not the client's
        ledger.note(row_of(record))
        await ledger.flush()
        return "shortfall"

    def _budget(self, ticket: Ticket) -> tuple[str, str] | None:
        if ticket.key_id is None:
            return None
        for key in self._store.keys.list(AccountId(ticket.account)):
            if key.id == ticket.key_id and key.limits.budget_period is not None:
                return (key.id, period_name(key.limits.budget_period, self._wall_ms()))
        return None


def _agrees(told: dict[str, Any], record: UsageRecord) -> bool:
    """Whether a report says what was metered here, as nearly all do: then nothing more of it is looked at."""
    return bool(
        told.get("completion") == record.completion
        and told.get("prompt") == record.prompt
        and told.get("cached") == record.cached
        and told.get("reasoning") == record.reasoning
    )


_CHARGED: Final = tuple(str(outcome) for outcome in Outcome if outcome.is_charged)


def usage_and_cost(ticket: Ticket, report: Report) -> tuple[Usage, Cost]:
    """What of a report is possible, and what it costs by its ticket."""
    prompt, completion = report.prompt, report.completion
    told = Usage(
        prompt,
        min(report.cached, prompt),
        completion,
        min(report.reasoning, completion),
        report.estimated,
    )
    bounds = UsageBounds(ticket.prompt_tokens, ticket.completion_tokens)
    usage = within(told, bounds, ticket.completion_tokens)
    tariff = Tariff(
        prompt=ticket.prompt_price,
        cached=ticket.cached_price,
        completion=ticket.completion_price,
        reasoning=ticket.reasoning_price,
        request=ticket.request_price,
        coefficient=ticket.coefficient,
    )
    return usage, cost_of(usage, tariff)


def _record(ticket: Ticket, report: Report, usage: Usage, cost: Cost, amount: Nano) -> UsageRecord:
    capped = amount < cost.total
    return UsageRecord(
        RequestId(ticket.request),
        None,
        ticket.dialect,
        ticket.model,
        ticket.worker,
        Outcome.REPORTED,
        0,
        streamed=report.streamed,
        prompt=usage.prompt,
        cached=usage.cached,
        completion=usage.completion,
        reasoning=usage.reasoning,
        estimated=usage.estimated,
        prompt_cost=0 if capped else cost.prompt,
        completion_cost=0 if capped else cost.completion,
        total_cost=amount,
        started_at=report.started_at,
        total_s=report.total_s,
        tries=1,
        account=ticket.account,
        key_id=ticket.key_id,
        held=ticket.held,
        tariff_version=ticket.tariff_version,
        coefficient=ticket.coefficient,
    )
