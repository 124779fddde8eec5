"""Tickets for requests that go to workers of the network. What they promise is the grant's."""

from typing import Final

from filature.answer.pricing import Tariff
from filature.telemetry.record import UsageRecord
from filature.wire.ticket import TICKET_HEADER, issue

_NAME: Final = TICKET_HEADER + b": "
_LINE_END: Final = b"\r\n"


class TicketOffice:
    """Issues tickets. ``key`` is the network's, ``boot`` names this process; ``life_s`` is how long one is
    good, from the request's beginning."""

    def __init__(self, key: bytes, boot: str, life_s: float) -> None:
        self._key = key
        self._boot = boot
        self._life_ms = int(life_s * 1000)

    def line(
        self,
        record: UsageRecord,
        worker: str,
        model: str,
        tariff: Tariff,
        fee_bp: int,
        bounds: tuple[int, int],
    ) -> bytes:
        """The header line for a request; ``bounds``: the most prompt and completion tokens that are paid for."""
        values = [  # of ``TICKET_FIELDS``
            record.id,
            record.account,
            record.key_id,
            worker,
            model,
            record.dialect,
            self._boot,
            tariff.coefficient,
            record.tariff_version,
            tariff.prompt,
            tariff.cached,
            tariff.completion,
            tariff.reasoning,
            tariff.request,
            fee_bp,
            record.held,
            bounds[0],
            bounds[1],
            int(record.started_at * 1000) + self._life_ms,
        ]
        return _NAME + issue(values, self._key) + _LINE_END
