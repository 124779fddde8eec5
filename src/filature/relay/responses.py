"""Response heads and whole responses as bytes. What is said in them is decided elsewhere."""

from http import HTTPStatus
from typing import Final

from filature.errors import FilatureError, MethodNotAllowed
from filature.wire.dialect import Dialect
from filature.wire.envelope import error_body

JSON: Final = b"application/json"
LAST_CHUNK: Final = b"0\r\n\r\n"
PING_EVENT: Final = b": \n\n"
"""A comment of an event stream."""
PING_LINE: Final = b": \n"
"""The same where a blank line would be taken for an event."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_SIZE_LINES: Final = [b"%x\r\n" % size for size in range(4096)]
_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode("ascii"))
    for status in HTTPStatus
    if status.value >= 200
}


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


def chunk(payload: bytes) -> bytes:
    """``payload``, not empty, as one chunk."""
    size = len(payload)
    line = _SIZE_LINES[size] if size < len(_SIZE_LINES) else b"%x\r\n" % size
    return b"%b%b\r\n" % (line, payload)


def connection_line(*, keep_alive: bool, http_minor: int) -> bytes:
    """The ``Connection`` line, where the version's default does not say it (RFC 9112, 9.3)."""
    if not keep_alive:
        return b"connection: close\r\n"
    return b"" if http_minor == 1 else b"connection: keep-alive\r\n"


def response(
    status: int,
    body: bytes,
    *,
    headers: bytes,
    content_type: bytes = JSON,
    keep_alive: bool = True,
    http_minor: int = 1,
    send_body: bool = True,
) -> bytes:
    """A whole response. ``headers`` are complete lines, each with its CRLF; ``http_minor`` is the
    request's."""
    connection = connection_line(keep_alive=keep_alive, http_minor=http_minor)
    return b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b" % (
        status_line(status),
        content_type,
        len(body),
        headers,
        connection,
        body if send_body else b"",
    )


def error_headers(error: FilatureError) -> bytes:
    """The header lines an error brings with it."""
    lines = error.header_lines
    if error.retry_after_s is not None:
        lines += b"retry-after: %d\r\n" % error.retry_after_s
    if not error.should_retry:
        lines += b"x-should-retry: false\r\n"
    if isinstance(error, MethodNotAllowed):
        lines += b"allow: " + error.allow.encode("ascii") + b"\r\n"
    return lines


def error_response(
    error: FilatureError,
    dialect: Dialect | None,
    *,
    headers: bytes,
    keep_alive: bool,
    http_minor: int = 1,
    send_body: bool = True,
) -> bytes:
    """A whole response in the dialect's error form."""
    return response(
        error.status,
        error_body(error, dialect),
        headers=headers + error_headers(error),
        keep_alive=keep_alive,
        http_minor=http_minor,
        send_body=send_body,
    )
