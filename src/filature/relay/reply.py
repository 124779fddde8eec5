"""The answer to a client as HTTP: streamed in chunks, streamed until the close, or whole."""

from typing import Final, Literal

from filature.errors import FilatureError
from filature.relay.downstream import DownstreamConnection
from filature.relay.http1 import RequestHead
from filature.relay.responses import LAST_CHUNK, chunk, error_response, response, status_line
from filature.relay.timings import HopTimings
from filature.wire.dialect import Dialect
from filature.wire.envelope import error_event

UNSENT: Final = "unsent"
CHUNKED: Final = "chunked"
UNTIL_CLOSE: Final = "until_close"
"""For clients of HTTP/1.0, which know no chunks."""


class Reply:
    """One response on a client's connection. ``state`` says how far it is and in what framing.

    ``keeps_last_byte``: of an answer that streams until the close, and whose end nothing else marks, the
    last byte is not sent before ``finish``. ``timings`` are told in the head where they were asked for.
    """

    __slots__ = (
        "_connection",
        "_head",
        "_held",
        "_write",
        "header_lines",
        "held_bytes",
        "keeps_last_byte",
        "state",
        "timings",
    )

    def __init__(
        self, connection: DownstreamConnection, head: RequestHead, header_lines: bytes
    ) -> None:
        self.state: Literal["unsent", "chunked", "until_close"] = UNSENT
        self.header_lines = header_lines
        self.held_bytes = 0
        self.keeps_last_byte = False
        self.timings: HopTimings | None = None
        self._connection = connection
        self._write = connection.write
        self._head = head
        self._held: list[bytes] = []

    @property
    def keep_alive(self) -> bool:
        """Whether the connection goes on after this answer."""
        return (
            self._head.keep_alive and self.state is not UNTIL_CLOSE and not self._connection.closes
        )

    def begin(self, content_type: bytes, first: bytes) -> None:
        """Send the head, what was held and ``first``; from here on the answer streams."""
        lines = b"%bcontent-type: %b\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n%b" % (
            status_line(200),
            content_type,
            self._lines(whole=False),
        )
        body = self._take_held(first)
        if self._head.http_minor == 1:
            self.state = CHUNKED
            if not self.keep_alive:
                lines += b"connection: close\r\n"
            lines += b"transfer-encoding: chunked\r\n\r\n"
            self._write(lines + chunk(body) if body else lines)
        else:
            self.state = UNTIL_CLOSE
            self._write(lines + b"connection: close\r\n\r\n")
            if body:
                self.send(body)

    def send(self, payload: bytes) -> None:
        """More of a streamed answer; never empty."""
        if self.state is CHUNKED:
            self._write(chunk(payload))
            return
        if self.keeps_last_byte:
            payload = self._take_held(payload)
            self.hold(payload[-1:])
            payload = payload[:-1]
        if payload:
            self._write(payload)

    def hold(self, payload: bytes) -> None:
        """Keep a part of a whole answer until its length is known."""
        self._held.append(payload)
        self.held_bytes += len(payload)

    def held(self, last: bytes) -> bytes:
        """The body that ``send_whole`` would send."""
        return b"".join([*self._held, last]) if self._held else last

    def forget_held(self) -> None:
        self._held.clear()
        self.held_bytes = 0

    def finish(self, last: bytes) -> None:
        """The last bytes of a streamed answer and its proper end."""
        if self.state is CHUNKED:
            self._write(chunk(last) + LAST_CHUNK if last else LAST_CHUNK)
            return
        last = self._take_held(last)
        if last:
            self._write(last)

    def send_whole(self, content_type: bytes, last: bytes) -> None:
        """Everything at once, with its length."""
        self._write(
            response(
                200,
                self._take_held(last),
                headers=self._lines(whole=True),
                content_type=content_type,
                keep_alive=self.keep_alive,
                http_minor=self._head.http_minor,
            )
        )

    def fail(self, error: FilatureError, dialect: Dialect, sequence_number: int) -> None:
        """An error response; or, in a stream, the dialect's error event and a proper end."""
        if self.state is UNSENT:
            self._write(
                error_response(
                    error,
                    dialect,
                    headers=self._lines(whole=True),
                    keep_alive=self.keep_alive,
                    http_minor=self._head.http_minor,
                )
            )
        else:
            self.finish(error_event(error, dialect, sequence_number))

    def _lines(self, *, whole: bool) -> bytes:
        timings = self.timings
        if timings is None:
            return self.header_lines
        return self.header_lines + timings.header_lines(ended=whole)

    def _take_held(self, last: bytes) -> bytes:
        if not self._held:
            return last
        body = b"".join(self._held) + last
        self.forget_held()
        return body
