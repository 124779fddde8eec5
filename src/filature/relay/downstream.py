"""A client's connection: reads requests within limits and deadlines, hands them to the service.

One request is answered at a time; what a client pipelines waits, and is answered in order. Nothing
here knows what is asked: that is the ``Service``'s.
"""

import asyncio
import math
from collections.abc import Callable
from itertools import islice
from typing import Final, Protocol, cast

from filature.errors import FilatureError, HeadTooLarge, InvalidRequest, RequestTimeout
from filature.relay.bodies import SMALL_BYTES, Bodies, Incoming, too_large
from filature.relay.clock import CoarseClock
from filature.relay.http1 import (
    HEAD_BYTES_MAX,
    HeadCache,
    ProtocolError,
    RequestHead,
    parse_request_head,
    refuse_early,
)
from filature.relay.limits import RelayLimits
from filature.relay.responses import CONTINUE
from filature.relay.sockets import has_left, unsent_bytes

NEVER: Final = math.inf
_EMPTY_LINES: Final = (b"\r", b"\r\n", b"\r\n\r")
"""Before a request's head: not the start of one yet."""
_LOOKED_AT_MAX: Final = 16
"""Of the connections that might give way to a new one."""


class Answering(Protocol):
    """What a connection needs of the exchange that is being answered on it."""

    def client_gone(self) -> None: ...
    def client_paused(self) -> None: ...
    def client_resumed(self) -> None: ...
    def tick(self, now: float) -> None: ...
    def drain(self) -> None: ...


class Service(Protocol):
    """What connections serve."""

    def check(self, head: RequestHead) -> FilatureError | None:
        """Refuse by the head alone, before the body is read; set how much of it is."""

    def serve(self, connection: "DownstreamConnection", head: RequestHead, body: bytes) -> None:
        """Answer on ``connection`` now, or set its ``exchange`` and answer later."""

    def refuse(
        self, connection: "DownstreamConnection", head: RequestHead | None, error: FilatureError
    ) -> None:
        """Answer with ``error``; ``head`` None when it could not be read."""


class Downstream:
    """What all client connections of a process share, and the set of those that are open."""

    def __init__(
        self,
        service: Service,
        clock: CoarseClock,
        limits: RelayLimits,
        heads: HeadCache[RequestHead] | None = None,
    ) -> None:
        self.service = service
        self.clock = clock
        self.limits = limits
        self.heads = HeadCache(parse_request_head) if heads is None else heads
        self.connections: set[DownstreamConnection] = set()
        self.unheard: dict[DownstreamConnection, None] = {}
        """Those on which nothing was asked yet, the oldest first."""
        self.idle: dict[DownstreamConnection, None] = {}
        """Those between two requests, the longest so first."""
        self.unread: set[DownstreamConnection] = set()
        """Those that too much was pipelined on: no read tells that their client left."""
        self.on_full: Callable[[], None] = _ignore
        """Called when there are ``limits.connections_max``, and one more comes."""
        self.on_body: Callable[[DownstreamConnection], None] = _ignore_body
        """Called when a request's head has come, and its body not yet."""
        self.bodies = Bodies(limits.bodies_bytes_max)
        self.draining = False
        clock.each_tick(self._tick)

    def __call__(self) -> asyncio.Protocol:
        """The protocol factory of the listening socket."""
        return cast(asyncio.Protocol, DownstreamConnection(self))

    def admit(self, connection: "DownstreamConnection") -> bool:
        """Take a new connection in; where there are as many as may be, in place of one that asks for nothing."""
        if self.draining:
            return False
        if len(self.connections) >= self.limits.connections_max:
            self.on_full()
            if not self._make_room():
                return False
        self.connections.add(connection)
        self.unheard[connection] = None
        return True

    def _make_room(self) -> bool:
        for waiting in (self.unheard, self.idle):
            for connection in islice(waiting, _LOOKED_AT_MAX):
                if not connection.transport.get_write_buffer_size():  # the end of an answer
                    self.let_go(connection)
                    connection.transport.abort()
                    return True
        return False

    def let_go(self, connection: "DownstreamConnection") -> None:
        """It is closed, or somebody else's."""
        self.connections.discard(connection)
        self.unheard.pop(connection, None)
        self.idle.pop(connection, None)
        self.unread.discard(connection)

    def drain(self) -> None:
        """Take no new work: idle connections close, busy ones after their answer."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.close_if_idle()

    def end_all(self) -> None:
        """End what still runs when the grace period is over."""
        for connection in tuple(self.connections):
            connection.end()

    def _tick(self, now: float) -> None:
        for connection in tuple(self.unread):
            connection.close_if_left()
        due = [connection for connection in self.connections if connection.deadline <= now]
        for connection in due:
            connection.on_deadline(now)


class DownstreamConnection:
    """One client connection. ``exchange`` is set by the service while an answer is under way.

    An ``asyncio.Protocol`` by its methods and not by inheritance, so that it compiles to a struct.
    """

    __slots__ = (
        "_body_bytes",
        "_buffer",
        "_heard",
        "_incoming",
        "_lingering",
        "_plane",
        "_reading",
        "_reading_paused",
        "_unsent_bytes",
        "busy",
        "deadline",
        "exchange",
        "limits",
        "transport",
        "write",
        "writing_paused",
    )

    def __init__(self, plane: Downstream) -> None:
        self._plane = plane
        self.limits = plane.limits
        self.exchange: Answering | None = None
        self.busy = False  # a request is being answered
        self.deadline = NEVER
        self.writing_paused = False
        self._buffer = b""  # bytes of the next head, or of pipelined requests
        self._incoming: Incoming | None = None  # the request whose body is being read
        self._body_bytes = 0  # of the present request, among those of ``plane.bodies``
        self._heard = False  # it asked for something that there is
        self._reading = False  # inside _read: guards against recursion by pipelining
        self._reading_paused = False
        self._lingering = False
        self._unsent_bytes = 0  # what waited for the client when it was last looked at

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio hands a stream protocol a stream transport
        self.transport = cast(asyncio.Transport, transport)
        self.write = self.transport.write
        plane = self._plane
        if not plane.admit(self):
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(high=plane.limits.write_buffer_bytes)
        self.deadline = plane.clock.now + plane.limits.head_s

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self.busy or self.writing_paused:
            self._buffer += data
            if len(self._buffer) > self.limits.pipelined_bytes_max and not self._reading_paused:
                self._reading_paused = True
                self._plane.unread.add(self)
                self.transport.pause_reading()
            return
        self._read(self._buffer + data if self._buffer else data)

    def eof_received(self) -> bool | None:
        if self.exchange is not None:
            self.transport.abort()  # closing would first wait until it has read what was written
        return None  # a half-closed client is one that left: the transport closes

    def connection_lost(self, exc: Exception | None) -> None:
        self._plane.let_go(self)
        self._release_body()
        self.deadline = NEVER
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.client_gone()

    def pause_writing(self) -> None:
        self.writing_paused = True
        if self.exchange is not None:
            self.exchange.client_paused()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self.exchange is not None:
            self.exchange.client_resumed()
        elif not (self.busy or self._lingering or self.transport.is_closing()):
            self._await_request()
            self._read_on()

    # for the service and the exchange

    @property
    def awaits_body(self) -> bool:
        """Whether a request is being read, and nothing is answered."""
        return self._incoming is not None and not self.transport.is_closing()

    @property
    def closes(self) -> bool:
        """Whether the connection ends with the present answer."""
        return self._plane.draining

    def answered(self, keep_alive: bool) -> None:
        """The present answer is written to its end."""
        self.exchange = None
        self.busy = False
        self._release_body()
        if not keep_alive or self._plane.draining:
            self._close()
            return
        if self._heard:
            self._plane.idle[self] = None
        self._await_request()
        if not self._reading:
            self._read_on()

    def took_something(self) -> bool:
        """Whether less waits for the client than at the last call."""
        before, self._unsent_bytes = self._unsent_bytes, self.unsent_bytes()
        return self._unsent_bytes < before

    def unsent_bytes(self) -> int:
        """What waits for the client, here and in the kernel."""
        return unsent_bytes(self.transport)

    def _read_on(self) -> None:
        """Go on with what was pipelined, unless the client leaves its answers lying."""
        if self._buffer and not self.writing_paused:
            data, self._buffer = self._buffer, b""
            self._read(data)
        if self._reading_paused and not self.busy and not self.writing_paused:
            self._reading_paused = False
            self._plane.unread.discard(self)
            self.transport.resume_reading()

    def hand_over(self) -> asyncio.Transport | None:
        """Give the transport away: whoever takes it sets its own protocol. None: it is closed, or the client
        went on before it was answered."""
        self._plane.let_go(self)
        self.deadline = NEVER
        if self._buffer or self.transport.is_closing():
            self.transport.abort()
            return None
        return self.transport

    def close_if_left(self) -> None:
        if not self.transport.is_closing() and has_left(self.transport):
            self.transport.abort()

    def close_if_idle(self) -> None:
        if not self.busy and self._incoming is None and not self._buffer.strip(b"\r\n"):
            self._shut()

    def end(self) -> None:
        """End the present answer, or the connection when there is none."""
        if self.exchange is not None:
            self.exchange.drain()
        else:
            self._shut()

    def abort(self) -> None:
        """Close at once; the exchange is not told: it asked for it."""
        self.exchange = None
        self.transport.abort()

    def on_deadline(self, now: float) -> None:
        self.deadline = NEVER
        if self.exchange is not None:
            self.exchange.tick(now)
        elif self.writing_paused or self.transport.is_closing():
            if self.took_something():
                self.deadline = now + self.limits.client_stall_s
            else:
                self.transport.abort()  # the client left the end of its answer lying
        elif self._lingering:
            self._shut()
        elif self._incoming is not None or self._buffer.strip(b"\r\n"):
            head = None if self._incoming is None else self._incoming.head
            self._refuse(head, RequestTimeout())
        elif not self.busy:
            self._shut()

    # reading requests

    def _read(self, data: bytes) -> None:
        self._buffer = b""
        self._reading = True
        try:
            while data and not (self.busy or self._lingering or self.writing_paused):
                if self.transport.is_closing():
                    return
                incoming = self._incoming
                data = (
                    self._read_head(data) if incoming is None else self._read_body(incoming, data)
                )
            if data and not self._lingering:
                self._buffer = data + self._buffer
        except ProtocolError as error:
            refusal = InvalidRequest(str(error))
            refusal.status = error.status
            self._refuse(None, refusal)
        finally:
            self._reading = False

    def _read_head(self, data: bytes) -> bytes:
        """Read a head, and the body if it is here; returns what is left for the next step."""
        if data[:1] == b"\r":  # one empty line may come before a request (RFC 9112, 2.2)
            if data in _EMPTY_LINES:
                self._buffer = data
                return b""
            if data[:2] == b"\r\n" and data[2:3] != b"\r":
                data = data[2:]
        end = data.find(b"\r\n\r\n")
        if end < 0 or end + 4 > HEAD_BYTES_MAX:
            if len(data) > HEAD_BYTES_MAX:
                self._refuse(None, HeadTooLarge(f"the head is above {HEAD_BYTES_MAX} bytes"))
                return b""
            refuse_early(data)
            first = self._plane.clock.now + self.limits.head_s
            self.deadline = min(self.deadline, first)
            self._buffer = data
            return b""
        end += 4
        head = self._plane.heads.parse(data[:end])
        refusal = self._plane.service.check(head)
        bytes_max = min(self.limits.body_bytes_max, head.body_bytes_max)
        if refusal is None and head.content_length > bytes_max:
            refusal = too_large(bytes_max)
        if refusal is not None:
            self._refuse(head, refusal, has_body=head.chunked or head.content_length > 0)
            return data[end:] if not self._lingering else b""
        self._plane.idle.pop(self, None)
        if not self._heard:
            self._heard = True
            self._plane.unheard.pop(self, None)
        length = head.content_length
        if not head.chunked and len(data) - end >= length:
            rest = data[end + length :]
            if length > SMALL_BYTES and not self._has_room(length):
                self._refuse(head, self._plane.bodies.refusal(), has_body=False)
                return rest
            self._serve(head, data[end : end + length])
            return rest
        deadline = self._plane.clock.now + self.limits.body_s
        self._incoming = incoming = Incoming(head, bytes_max, deadline)
        self._await_body(incoming)
        self._plane.on_body(self)
        if head.expect_continue and len(data) == end:
            self.write(CONTINUE)
        return data[end:]

    def _await_request(self) -> None:
        """Set the deadline for the next request, or for what is left of the present one."""
        if self.writing_paused:
            self.took_something()
            self.deadline = self._plane.clock.now + self.limits.client_stall_s
        elif self._incoming is not None:
            self._await_body(self._incoming)
        else:
            self.deadline = self._plane.clock.now + self.limits.idle_s

    def _await_body(self, incoming: Incoming) -> None:
        next_byte = self._plane.clock.now + self.limits.body_idle_s
        self.deadline = min(incoming.deadline, next_byte)

    def _read_body(self, incoming: Incoming, data: bytes) -> bytes:
        before = incoming.size
        rest = incoming.feed(data)
        head, ended = incoming.head, incoming.ended
        if incoming.size > incoming.bytes_max:
            self._refuse(head, too_large(incoming.bytes_max))
            return b""
        if not self._has_room(incoming.size - before):
            self._refuse(head, self._plane.bodies.refusal(), has_body=not ended)
            return rest if ended else b""
        if not ended:
            self._await_body(incoming)
            return b""
        self._incoming = None
        self._serve(head, incoming.whole())
        return rest

    def _has_room(self, size: int) -> bool:
        """For ``size`` bytes more of the present request's body, among all others'."""
        self._body_bytes += size
        return self._plane.bodies.take(size, self._body_bytes)

    def _release_body(self) -> None:
        if self._body_bytes:
            self._plane.bodies.release(self._body_bytes)
            self._body_bytes = 0

    def _serve(self, head: RequestHead, body: bytes) -> None:
        self.busy = True
        self.deadline = NEVER
        self._plane.service.serve(self, head, body)

    def _refuse(
        self, head: RequestHead | None, error: FilatureError, *, has_body: bool = True
    ) -> None:
        """Answer with an error; where the request's end is not known or not read, close."""
        self._incoming = None
        self._release_body()
        self._buffer = b""
        self.busy = True
        self._lingering = has_body or head is None
        self._plane.service.refuse(self, head, error)

    def outlives_refusal(self, head: RequestHead | None) -> bool:
        """Whether another request may follow: not behind one that was not read to its end."""
        return (
            head is not None
            and head.keep_alive
            and not self._lingering
            and not self._plane.draining
        )

    def _close(self) -> None:
        if self._lingering:
            # closing with unread bytes would reset the connection and take the refusal with it
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.deadline = self._plane.clock.now + self.limits.linger_s
        else:
            self._shut()

    def _shut(self) -> None:
        """Close once the client has taken what waits for it, which it must do in time."""
        self.transport.close()
        self.took_something()
        self.deadline = self._plane.clock.now + self.limits.client_stall_s


def _ignore() -> None:
    """Until there is somebody who counts."""


def _ignore_body(connection: DownstreamConnection) -> None:
    """Of a service that has nothing to say meanwhile."""
