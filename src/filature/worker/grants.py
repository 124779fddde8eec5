"""A ticket as a grant: what the worker may use for one request, and the report that it ends in."""

from collections.abc import Callable, Sequence

import orjson

from filature.relay.engines import Engine
from filature.telemetry.record import UsageRecord
from filature.wire.dialect import Dialect
from filature.wire.ticket import Ticket


class TicketGrant:
    """See ``relay.settlement.Grant``. The proxy settles; here is only told what was metered.

    ``report`` takes a ``wire.control.Report`` as JSON.
    """

    __slots__ = (
        "_report",
        "account",
        "completion_tokens",
        "dialect",
        "engines",
        "limit",
        "model",
        "prefix",
        "prompt_tokens",
        "ticket",
    )

    def __init__(
        self,
        ticket: Ticket,
        engines: Sequence[Engine],
        dialect: Dialect,
        report: Callable[[str], None],
    ) -> None:
        self.ticket = ticket
        self.engines = engines
        self.dialect = dialect
        self.account = ""
        self.model = ticket.model
        self.prefix = 0
        self.limit: int | None = None
        self.prompt_tokens = ticket.prompt_tokens
        self.completion_tokens = ticket.completion_tokens
        self._report = report

    def allows(self, engine: Engine) -> bool:
        """Whether the engine serves the model: it is looked for among few."""
        return engine in self.engines

    def coefficient(self, engine: Engine) -> int:
        """All engines of a worker cost the same."""
        return 0

    def ticket_line(self, engine: Engine, record: UsageRecord) -> bytes:
        """An engine is told nothing of tickets."""
        return b""

    def tariff(self, engine: Engine) -> None:
        """What it costs is the proxy's to show."""

    def end(
        self,
        record: UsageRecord,
        committed: Callable[[], None] | None,
        answer: bytes | None = None,
        content_type: bytes = b"",
    ) -> None:
        fields = {
            "id": record.id,
            "ticket": self.ticket.text.decode("ascii"),
            "outcome": record.outcome,
            "prompt": record.prompt,
            "cached": record.cached,
            "completion": record.completion,
            "reasoning": record.reasoning,
            "estimated": record.estimated,
            "started_at": record.started_at,
            "total_s": record.total_s,
            "streamed": record.streamed,
        }
        self._report(orjson.dumps(fields).decode())
        if committed is not None:
            committed()

    def give_up(self) -> None:
        """Its commit cannot come late: nothing is waited for."""
