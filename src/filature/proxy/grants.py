"""A held request: what it may cost, and how it ends at the ledger. The exchange gives it back, once."""

import logging
from collections.abc import Callable
from typing import Final

from filature.answer.pricing import Tariff
from filature.errors import InternalError
from filature.ledger.accounts import worker_account
from filature.ledger.outcomes import Outcome as LedgerOutcome
from filature.proxy.free_failures import FreeFailures
from filature.proxy.offer import Offer
from filature.proxy.rates import Slot
from filature.proxy.tickets import TicketOffice
from filature.relay.engines import Engine
from filature.relay.outcome import Outcome
from filature.request.quote import Quote
from filature.store.batch import UsageRow
from filature.store.embedded import EmbeddedLedger
from filature.store.idempotency import Claim, Idempotency
from filature.telemetry.record import UsageRecord
from filature.units import AccountId, HoldId, Nano
from filature.wire.dialect import Dialect

_BROKE_ENGINES: Final = frozenset(
    {Outcome.ENGINE_FAILED, Outcome.ENGINE_FAILED_MIDSTREAM, Outcome.ENGINE_STALLED}
)
_LEFT: Final = frozenset({Outcome.CLIENT_GONE, Outcome.CLIENT_TIMEOUT})
log = logging.getLogger(__name__)
REVERSED: Final = "the commit did not come in time, and the client was told that it failed"


class Ends:
    """What a grant ends at."""

    __slots__ = ("failures", "idempotency", "ledger", "tickets")

    def __init__(
        self,
        ledger: EmbeddedLedger,
        idempotency: Idempotency,
        failures: FreeFailures,
        tickets: TicketOffice,
    ) -> None:
        self.ledger = ledger
        self.idempotency = idempotency
        self.failures = failures
        self.tickets = tickets


class HeldGrant:
    """See ``relay.settlement.Grant``."""

    __slots__ = (
        "_charged",
        "_failures",
        "_idempotency",
        "_ledger",
        "_offer",
        "_record",
        "_slot",
        "_tariffs",
        "_tickets",
        "account",
        "claim",
        "completion_tokens",
        "dialect",
        "engines",
        "header_lines",
        "limit",
        "model",
        "prefix",
        "prompt_tokens",
    )

    def __init__(
        self,
        ends: Ends,
        slot: Slot | None,
        account: AccountId,
        quote: Quote,
        offer: Offer,
        prefix: int,
        dialect: Dialect,
    ) -> None:
        self._ledger = ends.ledger
        self._idempotency = ends.idempotency
        self._failures = ends.failures
        self._tickets = ends.tickets
        self._slot = slot
        self._offer = offer
        self._tariffs = offer.tariffs
        self._record: UsageRecord | None = None
        self._charged = Nano(0)
        self.account = account
        self.engines = offer.engines
        self.prefix = prefix
        self.dialect = dialect
        self.claim: Claim | None = None
        self.header_lines = b"" if slot is None else slot.header_lines
        self.model = offer.price.model
        self.limit = quote.limit
        self.prompt_tokens = quote.prompt_tokens
        self.completion_tokens = quote.completion_tokens

    def allows(self, engine: Engine) -> bool:
        return engine.name in self._tariffs

    def coefficient(self, engine: Engine) -> int:
        return self._tariffs[engine.name].coefficient

    def ticket_line(self, engine: Engine, record: UsageRecord) -> bytes:
        bounds = (self.prompt_tokens, self.completion_tokens)
        return self._tickets.line(
            record,
            engine.name,
            self.model,
            self._tariffs[engine.name],
            self._offer.price.fee_bp,
            bounds,
        )

    def tariff(self, engine: Engine) -> Tariff:
        return self._tariffs[engine.name]

    def end(
        self,
        record: UsageRecord,
        committed: Callable[[], None] | None,
        answer: bytes | None = None,
        content_type: bytes = b"",
    ) -> None:
        """Charge ``record.total_cost`` or nothing, as the outcome says, and store the record with it.

        ``committed`` is called when that is stored, never from here.
        """
        assert self._record is None, "a grant ends once"
        self._record = record
        ledger, request = self._ledger, HoldId(record.id)
        outcome = record.outcome
        if record.total_cost > record.held:
            log.error("%s costs %d, of %d held", record.id, record.total_cost, record.held)
            record.total_cost = record.held
        cost = Nano(record.total_cost)
        slot = self._slot
        if slot is not None:
            slot.finish(record.prompt + record.completion, cost)
        if outcome == Outcome.COMPLETED or cost:
            self._charged = cost
            if self.claim is not None:
                self._idempotency.settled(self.claim, content_type.decode("latin-1"), answer)
            budget = None if slot is None else slot.budget_period
            done = ledger.settle(
                request, worker_account(record.engine), cost, row_of(record), committed, budget
            )
        else:
            if self.claim is not None:
                self._idempotency.release(self.claim)
            done = ledger.void(request, row_of(record), committed)
        if done is not LedgerOutcome.DONE:
            raise InternalError(f"the hold of {record.id} ended as {done}")
        if outcome == Outcome.COMPLETED and cost:
            self._failures.succeeded(self.account)
        elif outcome in _BROKE_ENGINES or (outcome in _LEFT and _saw_nothing(record)):
            self._failures.failed(self.account)

    def give_up(self) -> None:
        """The client was told that the answer failed since its commit did not come: it pays nothing."""
        record, slot = self._record, self._slot
        assert record is not None, "nothing was charged yet"
        budget = None if slot is None else slot.budget_period
        self._ledger.reverse(HoldId(record.id), self._charged, row_of(record), REVERSED, budget)
        if self.claim is not None:
            self._idempotency.release(self.claim)
        if slot is not None:
            slot.reverse(self._charged)


def _saw_nothing(record: UsageRecord) -> bool:
    """Whether an engine was asked in vain: its first event had not come. What costs nothing may have been seen."""
    return record.tries > 0 and not record.prompt and not record.completion


def row_of(record: UsageRecord) -> UsageRow:
    """The record as it is stored."""
    return UsageRow(
        record.id,
        record.account,
        record.key_id,
        int(record.started_at * 1000),
        record.model.replace("\0", "\ufffd"),  # which PostgreSQL does not take
        record.outcome,
        record.total_cost,
        record.write_down().decode(),
    )
