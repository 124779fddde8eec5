"""What a worker answers down the connections that it dialled, by its own engines: requests with a ticket, and questions
of how many tokens a prompt is (``counting.py``)."""

import logging
import re
from collections.abc import Callable
from typing import Final

from filature.errors import (
    FilatureError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from filature.relay.deferred import Deferred
from filature.relay.downstream import DownstreamConnection
from filature.relay.engines import EngineDirectory
from filature.relay.exchange import Exchange
from filature.relay.http1 import RequestHead
from filature.relay.outcome import Outcome
from filature.relay.plane import DataPlane
from filature.relay.responses import error_response, response
from filature.relay.waiting import BUSY_HEADER
from filature.request.allowance import Allowance
from filature.request.boundary import check_boundary
from filature.request.limits import RequestLimits
from filature.request.parse import parse_request
from filature.telemetry.record import UsageRecord
from filature.units import RequestId
from filature.wire.dialect import DIALECT_BY_PATH
from filature.wire.ticket import TICKET_HEADER, Ticket, TicketError, read_ticket
from filature.worker.counting import QUESTION_PATHS, Counting
from filature.worker.grants import TicketGrant
from filature.worker.places import Places

SIGN: Final = b"HTTP/1.1 102 Processing\r\n\r\n"
SIGN_AFTER_S: Final = 0.3
"""An answer that has not begun by then is announced, and so is a body that is still to come: for a proxy a connection
is dead that says nothing for 2 s."""
CLOCKS_DIFFER_MS: Final = 300_000
"""Which a ticket's time is not held against."""
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")

log = logging.getLogger(__name__)


class WorkerService:
    """See ``relay.downstream.Service``. One for each proxy; ``report`` takes what was metered for it.

    ``name`` is what the proxy calls this worker: tickets for others are refused.
    """

    def __init__(
        self,
        plane: DataPlane,
        engines: EngineDirectory,
        limits: RequestLimits,
        report: Callable[[str], None],
        places: Places,
    ) -> None:
        self._plane = plane
        self._engines = engines
        self._limits = limits
        self._report = report
        self._places = places
        self._counting = Counting(engines, limits)
        # by when something has to be said on each, in that order; exchanges are not kept alive for it
        self._unannounced: dict[DownstreamConnection, float] = {}
        self._said_expired = False
        self.name = ""
        self.allowance: Allowance | None = None
        """What it takes that workers do not take as a rule."""
        self.coefficient = 0
        """The least that a ticket promises."""

    def check(self, head: RequestHead) -> FilatureError | None:
        if head.path in QUESTION_PATHS and TICKET_HEADER not in head.headers:
            return self._counting.check(head)
        if head.path not in DIALECT_BY_PATH:
            return NotFound(f"A worker does not serve {head.path}.", code="unknown_url")
        if head.method != "POST":
            return MethodNotAllowed("Requests are made by POST.", allow="POST")
        if TICKET_HEADER not in head.headers:
            return PermissionDenied("A ticket is needed.", code="ticket_needed")
        return None

    def serve(self, connection: DownstreamConnection, head: RequestHead, body: bytes) -> None:
        if TICKET_HEADER not in head.headers:
            self._count(connection, head, body)
            return
        dialect = DIALECT_BY_PATH[head.path]
        request_id = head.headers.get(b"x-request-id", b"")
        try:
            if self._places.free() <= 0:
                raise Unavailable("This worker is full.", code="busy")
            ticket = self._ticket(head.headers[TICKET_HEADER], request_id)
            request = parse_request(dialect, body, self._limits)
            if request.model != ticket.model:
                raise InvalidRequest("The ticket is for another model.", param="model")
            check_boundary(request, self.allowance)
            engines = [e for e in self._engines.engines if ticket.model in e.models]
            if not engines:
                raise ModelNotFound(f"The model {ticket.model!r} is not served here now.")
        except FilatureError as error:
            self.refuse(connection, head, error)
            return
        record = UsageRecord(
            RequestId(ticket.request),
            None,
            dialect,
            request.model,
            "",
            Outcome.REFUSED,
            0,
            started_at=self._plane.wall(),
        )
        grant = TicketGrant(ticket, engines, request.dialect, self._report)
        exchange = Exchange(self._plane, connection, head, request, record, b"", grant)
        self.announce_later(connection)
        exchange.start()

    def announce_later(self, connection: DownstreamConnection) -> None:
        """A request has come on it, as a whole or its beginning: it is announced, unless it is answered before."""
        self._unannounced.pop(connection, None)
        self._unannounced[connection] = self._plane.clock.now + SIGN_AFTER_S

    def _count(self, connection: DownstreamConnection, head: RequestHead, body: bytes) -> None:
        def done(answer: bytes) -> None:
            keep_alive = head.keep_alive and not connection.closes
            connection.write(response(200, answer, headers=b"", keep_alive=keep_alive))
            connection.answered(keep_alive)

        def failed(error: FilatureError) -> None:
            self.refuse(connection, head, error)

        self.announce_later(connection)
        Deferred(connection, done, failed).start(self._counting.answer(head.path, body))

    def give_signs(self, now: float) -> None:
        """Announce the answers that are still to begin; to be called at each tick."""
        due: list[DownstreamConnection] = []
        for connection, until in self._unannounced.items():
            if until > now:
                break
            due.append(connection)
        for connection in due:
            del self._unannounced[connection]
            exchange = connection.exchange
            unsent = exchange.is_unsent if isinstance(exchange, Exchange) else False
            if unsent or connection.awaits_body or isinstance(exchange, Deferred):
                connection.write(SIGN)

    def refuse(
        self, connection: DownstreamConnection, head: RequestHead | None, error: FilatureError
    ) -> None:
        keep_alive = connection.outlives_refusal(head)
        if isinstance(error, Unavailable):  # no fault of this worker's: another one may have room
            error.header_lines = BUSY_HEADER + b": 1\r\n"
        dialect = DIALECT_BY_PATH.get(head.path) if head is not None else None
        connection.write(error_response(error, dialect, headers=b"", keep_alive=keep_alive))
        connection.answered(keep_alive)

    def _ticket(self, text: bytes, request_id: bytes) -> Ticket:
        """Raises PermissionDenied. Whether it is forged only a proxy can tell: the connection is one of its."""
        try:
            ticket = read_ticket(text)
        except TicketError as error:
            raise PermissionDenied(str(error), code="ticket_invalid") from None
        if ticket.worker != self.name or ticket.request.encode("utf-8") != request_id:
            raise PermissionDenied("The ticket is another's.", code="ticket_invalid")
        if not _REQUEST_ID.fullmatch(request_id):
            raise PermissionDenied("The request's id cannot be used.", code="ticket_invalid")
        if ticket.expires_ms + CLOCKS_DIFFER_MS < self._plane.wall() * 1000:
            if not self._said_expired:
                self._said_expired = True
                log.warning(
                    "a request's ticket has expired already: is this machine's clock right?"
                )
            raise PermissionDenied("The ticket has expired.", code="ticket_expired")
        if ticket.coefficient < self.coefficient:
            raise PermissionDenied("The ticket promises less than is asked.", code="ticket_invalid")
        return ticket
