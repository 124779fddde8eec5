"""Connections to one engine: HTTP/1.1 client protocol and pool. What to send is the caller's; how they come to be is
for ``dialing`` and ``tunnel``."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Protocol, cast

from filature.answer.postprocessor import AnswerPostprocessor
from filature.relay.clock import CoarseClock
from filature.relay.http1 import (
    HEAD_BYTES_MAX,
    ChunkedDecoder,
    HeadCache,
    ProtocolError,
    ResponseHead,
    parse_response_head,
)
from filature.relay.limits import RelayLimits
from filature.relay.responses import chunk

_BODILESS: Final = (204, 304)
INTERIM_MAX: Final = 256
"""Heads of interim answers (1xx) to one request: one in two seconds, where a prefill takes as long as it may."""


class Caller(Protocol):
    """Who sent a request upstream and takes its answer. Every call ends in exactly one of
    ``on_end``, ``on_lost`` and a ``cancel`` of the caller's own."""

    def on_connected(self, connection: "UpstreamConnection") -> None:
        """The request is on its way on ``connection``."""

    def on_head(self, head: ResponseHead) -> None: ...

    def on_payload(self, payload: bytes, raw: bytes | None) -> None:
        """Bytes of the body, never empty. ``raw`` is the same as whole plain chunks, if it was."""

    def on_end(self) -> None:
        """The answer ended as HTTP says it should."""

    def on_lost(self, reason: str, *, ours: bool = False) -> None:
        """The connection was not made, or ended before the answer did. ``ours``: for no fault of the engine's."""

    def on_silent(self) -> bool:
        """No sign of life came. True: the caller gave it up; False: it wants another connection of the same pool."""


class UpstreamPool(ABC):
    """The connections to one engine: idle ones are reused, last in first out.

    Where more of them come from, and what waits until then, is its two kinds' to say.
    """

    def __init__(self, clock: CoarseClock, limits: RelayLimits) -> None:
        self.limits = limits
        self.heads = HeadCache(parse_response_head)
        self._clock = clock
        self._idle: list[UpstreamConnection] = []
        # by when something has to come on each, in that order
        self._awaited: dict[UpstreamConnection, float] = {}
        self._closed = False
        self.open_connections = 0
        clock.each_tick(self._tick)

    @abstractmethod
    def send(self, caller: Caller, request: bytes, *, fresh: bool = False) -> None:
        """Send ``request`` and report the answer to ``caller``.

        An idle connection that the engine had closed shows only when it is used: then the request
        is sent once more, ``fresh``.
        """

    @abstractmethod
    def cancel(self, caller: Caller) -> None:
        """Give up ``caller``, which has no connection yet."""

    def _take_idle(self) -> "UpstreamConnection | None":
        """One that is still open, as far as is known."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    def await_sign(self, connection: "UpstreamConnection") -> None:
        """Something has to come on it within ``limits.sign_s``; else it is dead, whatever TCP thinks."""
        self._awaited[connection] = self._clock.now + (self.limits.sign_s or 0.0)

    def heard(self, connection: "UpstreamConnection") -> None:
        """Something came on it."""
        self._awaited.pop(connection, None)

    def keep(self, connection: "UpstreamConnection") -> None:
        """Take back a connection whose answer ended properly."""
        if self._closed or len(self._idle) >= self.limits.idle_connections_max:
            connection.transport.close()
        else:
            connection.idle_since = self._clock.now
            self._idle.append(connection)

    def forget(self, connection: "UpstreamConnection") -> None:
        self._awaited.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """What runs goes on; nothing is kept any more."""
        self._closed = True
        for connection in self._idle:
            connection.transport.close()
        self._idle.clear()

    def _tick(self, now: float) -> None:
        while self._awaited:
            connection, until = next(iter(self._awaited.items()))
            if until > now:
                break
            del self._awaited[connection]
            connection.give_up()
        oldest_kept = now - self.limits.upstream_idle_s
        while self._idle and self._idle[0].idle_since < oldest_kept:
            self._idle.pop(0).transport.close()


class UpstreamConnection:
    """One connection; one request at a time. An ``asyncio.Protocol`` as DownstreamConnection is."""

    __slots__ = (
        "_answer",
        "_buffer",
        "_caller",
        "_decoder",
        "_head",
        "_interim",
        "_is_open",
        "_left",
        "_pool",
        "_reading_paused",
        "_request",
        "_signs",
        "_write",
        "idle_since",
        "transport",
    )

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._caller: Caller | None = None
        self._is_open = False
        self._decoder: ChunkedDecoder | None = None
        self._head: ResponseHead | None = None
        self._left: int | None = 0  # of a body with a length; None: until the close
        self._buffer = b""
        self._interim = 0  # heads that announced the present answer
        self._reading_paused = False
        self._request: bytes | None = None  # kept while it may have to be sent once more
        self._answer: AnswerPostprocessor | None = None  # the events of a spliced stream go here
        self._write: Callable[[bytes], None] | None = None
        self._signs = pool.limits.sign_s is not None  # it tells soon that it is there
        self.idle_since = 0.0

    # for the caller

    def send(self, caller: Caller, request: bytes, *, reused: bool) -> None:
        self._caller = caller
        self._interim = 0
        self._request = request if reused else None
        if self._signs:
            self._pool.await_sign(self)
        caller.on_connected(self)
        self.transport.write(request)

    def splice(self, answer: AnswerPostprocessor, write: Callable[[bytes], None]) -> None:
        """From here to the answer's end: chunks in which ``answer`` knows every event go straight
        to ``write``, framed, without a call of the caller. It gets all else, as before."""
        self._answer = answer
        self._write = write

    def gone(self) -> None:
        """It is not open, if it was."""
        if self._is_open:
            self._is_open = False
            self._pool.open_connections -= 1

    def pause_reading(self) -> None:
        self._reading_paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        self._reading_paused = False
        self.transport.resume_reading()

    def give_up(self) -> None:
        """It is dead: another engine is asked, or its own by another connection."""
        if self._caller is None or not self._caller.on_silent():
            self.transport.abort()

    def cancel(self) -> None:
        """Drop the call: the engine sees the connection close, and the caller hears no more."""
        self._caller = self._answer = self._write = None
        self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio hands a stream protocol a stream transport
        self.transport = cast(asyncio.Transport, transport)
        self._is_open = True
        self._pool.open_connections += 1

    def data_received(self, data: bytes) -> None:
        caller = self._caller
        if caller is None:  # nothing was asked: whatever this is, it is not an answer
            self.transport.abort()
            return
        decoder = self._decoder
        if decoder is not None:
            payload = decoder.plain_chunk(data)
            if payload is not None:
                answer, write = self._answer, self._write
                if answer is not None and write is not None:
                    out = answer.recognise(payload)
                    if out is not None:
                        write(data if out is payload else chunk(out))
                        return
                caller.on_payload(payload, data)
                return
        try:
            if decoder is not None:
                self._on_chunked(decoder, data)
            elif self._head is not None:
                self._on_plain(data)
            else:
                self._on_head_bytes(data)
        except ProtocolError as error:
            if error.payload:
                caller.on_payload(error.payload, None)
            if self._caller is caller:
                self._lose(f"malformed answer: {error}")

    def eof_received(self) -> bool | None:
        if self._head is not None and self._decoder is None and self._left is None:
            self._end(b"")
        return None

    def pause_writing(self) -> None:
        """A long request waits in the transport: it is here as a whole, and there is no more of it to come."""

    def resume_writing(self) -> None:
        """As ``pause_writing``."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone()
        self._pool.forget(self)
        caller, request = self._caller, self._request
        if caller is None:
            return
        if request is not None:  # it was idle too long: nothing of an answer had come
            self._caller = None
            self._pool.send(caller, request, fresh=True)
        else:
            self._lose("the connection was cut" if self._head is not None else "no answer came")

    # the answer

    def _on_head_bytes(self, data: bytes) -> None:
        self._request = None
        if self._signs:
            self._pool.heard(self)
        if self._buffer:
            data = self._buffer + data
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4 or end > HEAD_BYTES_MAX:
                if len(data) > HEAD_BYTES_MAX:
                    raise ProtocolError("the head is too long")
                self._buffer = data
                return
            head = self._pool.heads.parse(data[:end])
            data = data[end:]
            if head.status >= 200:
                break
            if head.status == 101:
                raise ProtocolError("the engine switched protocols unasked")
            self._interim += 1
            if self._interim > INTERIM_MAX:
                raise ProtocolError("too many interim answers")
        self._buffer = b""
        self._head = head
        caller = cast(Caller, self._caller)
        caller.on_head(head)
        if self._caller is not caller:
            return
        if head.chunked and head.status not in _BODILESS:
            self._decoder = ChunkedDecoder()
            if data:
                self._on_chunked(self._decoder, data)
            return
        self._left = 0 if head.status in _BODILESS else head.content_length
        if data or self._left == 0:
            self._on_plain(data)

    def _on_chunked(self, decoder: ChunkedDecoder, data: bytes) -> None:
        caller = cast(Caller, self._caller)
        payload = decoder.feed(data)
        if payload:
            caller.on_payload(payload, data if decoder.whole else None)
        if decoder.done and self._caller is caller:
            self._end(decoder.rest)

    def _on_plain(self, data: bytes) -> None:
        caller = cast(Caller, self._caller)
        if self._left is None:
            caller.on_payload(data, None)
            return
        payload, rest = data[: self._left], data[self._left :]
        self._left -= len(payload)
        if payload:
            caller.on_payload(payload, None)
        if self._left == 0 and self._caller is caller:
            self._end(rest)

    def _end(self, rest: bytes) -> None:
        """The answer is complete; bytes behind it make the connection unfit for another."""
        caller, head = cast(Caller, self._caller), cast(ResponseHead, self._head)
        self._caller = self._head = self._decoder = self._answer = self._write = None
        if head.keep_alive and not rest:
            if self._reading_paused:  # by the end of an answer that its client was slow to take
                self.resume_reading()
            self._pool.keep(self)
        else:
            self.transport.close()
        caller.on_end()

    def _lose(self, reason: str) -> None:
        caller = cast(Caller, self._caller)
        self._caller = self._answer = self._write = None
        self.transport.abort()
        caller.on_lost(reason)
