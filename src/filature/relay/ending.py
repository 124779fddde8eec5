"""The end of a complete answer, kept back until the charge for it is stored. Nothing is metered here."""

from filature.errors import Draining, FilatureError, StoreError
from filature.relay.downstream import NEVER, DownstreamConnection
from filature.relay.outcome import Outcome
from filature.relay.plane import DataPlane
from filature.relay.reply import UNSENT, Reply
from filature.relay.settlement import Grant
from filature.telemetry.record import UsageRecord
from filature.wire.dialect import Dialect


class Ending:
    """Takes an exchange's place on the client's connection, from its outcome to its last byte.

    ``last`` is what the client has not got of the answer; ``streams``: in chunks, also where its head
    is not out yet. The client sees it, and the proper end of its response, when the commit returned. It is told
    that the answer failed when that takes longer than ``limits.commit_wait_s``: then it pays nothing.
    """

    __slots__ = (
        "_connection",
        "_content_type",
        "_deadline",
        "_dialect",
        "_ended",
        "_grant",
        "_last",
        "_plane",
        "_record",
        "_reply",
        "_sequence_number",
        "_streams",
    )

    def __init__(
        self,
        plane: DataPlane,
        connection: DownstreamConnection,
        reply: Reply,
        grant: Grant,
        record: UsageRecord,
        dialect: Dialect,
        sequence_number: int,
    ) -> None:
        self._plane = plane
        self._connection = connection
        self._reply = reply
        self._grant = grant
        self._record = record
        self._dialect = dialect
        self._sequence_number = sequence_number
        self._content_type = b""
        self._last = b""
        self._streams = False
        self._ended = False
        self._deadline = plane.clock.now + plane.limits.commit_wait_s

    def start(self, content_type: bytes, last: bytes, *, streams: bool) -> None:
        """Settle, and wait."""
        self._content_type = content_type
        self._last = last
        self._streams = streams
        connection = self._connection
        if connection.exchange is not None:  # else the client has left
            connection.exchange = self
            connection.deadline = self._deadline
        if streams or self._reply.state is not UNSENT:
            self._grant.end(self._record, self._committed)
        else:
            whole = self._reply.held(last)
            self._grant.end(self._record, self._committed, whole, content_type)

    def _committed(self) -> None:
        if self._ended:
            return  # too late: the client was told so
        self._ended = True
        self._plane.record(self._record)
        connection, reply = self._connection, self._reply
        if connection.exchange is not self:
            return  # the client has left
        last = self._last
        if reply.state is UNSENT and self._streams:
            reply.begin(self._content_type, last)
            last = b""
        if reply.state is UNSENT:
            reply.send_whole(self._content_type, last)
        else:
            reply.finish(last)
        connection.answered(reply.keep_alive)

    def _give_up(self, error: FilatureError, outcome: Outcome) -> None:
        """Wait no longer: the client is told that the answer failed, and is not charged."""
        self._ended = True
        record, connection, reply = self._record, self._connection, self._reply
        record.outcome = outcome
        record.status = error.status
        record.error_code = error.code
        record.prompt_cost = record.completion_cost = record.total_cost = 0
        try:
            self._grant.give_up()
        finally:
            self._plane.record(record)
            if reply.state is not UNSENT and not self._streams:
                connection.abort()  # half a document holds no error: it must not end properly
            else:
                reply.forget_held()
                reply.fail(error, self._dialect, self._sequence_number)
                connection.answered(reply.keep_alive)

    # Answering

    def client_gone(self) -> None:
        """It is charged: the answer was complete."""

    def client_paused(self) -> None:
        """What is left is little."""

    def client_resumed(self) -> None:
        """As ``client_paused``."""

    def tick(self, now: float) -> None:
        if now >= self._deadline:
            self._connection.deadline = NEVER
            self._give_up(StoreError(), Outcome.NOT_SETTLED)

    def drain(self) -> None:
        """The grace is over: what was not committed in it will not be seen whole, nor charged."""
        self._give_up(Draining(), Outcome.DRAINED)
