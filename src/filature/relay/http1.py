"""HTTP/1.1 heads and chunked framing: bytes to typed values. No sockets, no policy.

llhttp (by httptools) judges the syntax of a head; the rules below are stricter wherever two readers
could disagree about where a message ends (RFC 9112, sections 3.2, 5, 6 and 11.2):

- lines end in CRLF: a bare CR or LF anywhere in a head is refused, and so is obsolete folding;
- ``Content-Length`` is a plain decimal number, and stands at most once; ``Transfer-Encoding`` is exactly
  ``chunked``, at most once, never beside ``Content-Length`` and never in HTTP/1.0;
- a request has exactly one ``Host`` (HTTP/1.0: at most one);
- the version is 1.0 or 1.1.

A message is delimited here and not by llhttp, so that pipelined messages can be told apart exactly
and so that the relay knows when it stands between two chunks.
"""

import re
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import httptools

HEAD_BYTES_MAX: Final = 32 * 1024
"""Of a request's or response's head, with its final empty line."""
CHUNK_LINE_BYTES_MAX: Final = 256
"""Of a chunk's size line with its extensions; what HTTP libraries send is below 20."""
TRAILER_BYTES_MAX: Final = 8 * 1024
CONTENT_LENGTH_MAX: Final = 1 << 53
RETRY_AFTER_S_MAX: Final = 60
"""Of an engine's refusal, as passed on: SDKs wait no longer, and no engine keeps clients from the others."""
COMPRESSION: Final = re.compile(rb"gzip|deflate|compress|\bbr\b|zstd", re.IGNORECASE)
"""Content codings; some clients name a charset in their place, and some servers ``none``, which means nothing."""
HEADS_KEPT_MAX: Final = 1024
"""Parsed heads that a HeadCache keeps."""
HEAD_KEPT_BYTES_MAX: Final = 2048
"""A longer head is parsed each time."""

_BARE_LINE_END: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_FOLDED: Final = re.compile(rb"\r\n[ \t]")
_TARGET: Final = re.compile(
    rb"(?:https?://(?P<host>[^/?#]+))?(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?"
)
_TARGET_BYTES: Final = re.compile(rb"[!-~]+")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,15}")
_SECONDS: Final = re.compile(rb"[0-9]{1,9}")
_REQUEST_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/([0-9]\.[0-9])\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) [0-9]{3}(?: [^\r\n]*)?\r\n")
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})"
    rb"((?:[ \t]*;[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+"
    rb"(?:[ \t]*=[ \t]*(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\"))?)*)"
)
_TRAILER_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
_NOT_IN_TRAILERS: Final = (b"content-length", b"transfer-encoding", b"host")
_SIZE, _DATA, _TRAILER = "size", "data", "trailer"
"""What a ChunkedDecoder expects next: a size line, a chunk's data and its line end, the trailer."""
_PLAIN_SIZES: Final = {b"%x\r\n" % size: size for size in range(1, 4096)}
"""Size lines as servers write them, so that the usual one costs a look-up."""


def _plain_lines() -> list[bytes]:
    lines = [b""] * 4096
    for line, size in _PLAIN_SIZES.items():
        if len(line) + size + 2 < len(lines):
            lines[len(line) + size + 2] = line
    return lines


_PLAIN_LINES: Final = _plain_lines()
"""By the length of a whole chunk: the size line that it begins with."""
_PLAIN_LINE_BYTES_MAX: Final = 5


Head = TypeVar("Head")


_CROSSING: Final = (b"accept", b"traceparent")
"""A client's header fields that an engine is sent, by allow-list."""


class ProtocolError(Exception):
    """The peer's bytes are not a message that can be read in one way only.

    ``status`` is the one that a server answers with; ``payload`` what of a body stood before them, and
    was not handed out yet.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.payload = b""


class RequestHead:
    """A request's head. Header names are lower-case; a repeated header's values join with ``, ``.

    ``engine_lines`` are those that an engine is sent, too. ``route`` is for whoever derives something from the head
    alone and wants it to be remembered with it (see ``HeadCache``); so is ``body_bytes_max``, the most that is read of
    its body.
    """

    __slots__ = (
        "body_bytes_max",
        "chunked",
        "content_length",
        "engine_lines",
        "expect_continue",
        "headers",
        "http_minor",
        "keep_alive",
        "method",
        "path",
        "query",
        "route",
    )

    def __init__(self, method: str, path: str, query: str, http_minor: int) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.http_minor = http_minor
        self.headers: dict[bytes, bytes] = {}
        self.content_length = 0
        self.chunked = False
        self.keep_alive = http_minor == 1
        self.expect_continue = False
        self.route: Any = None
        self.body_bytes_max = CONTENT_LENGTH_MAX
        self.engine_lines = b""


class ResponseHead:
    """A response's head; ``content_length`` None and not ``chunked`` means: until the close."""

    __slots__ = ("chunked", "content_length", "content_type", "headers", "keep_alive", "status")

    def __init__(self, status: int, http_minor: int) -> None:
        self.status = status
        self.headers: dict[bytes, bytes] = {}
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = http_minor == 1
        self.content_type = b""

    @property
    def retry_after_s(self) -> int | None:
        """What ``retry-after`` asks for, up to RETRY_AFTER_S_MAX; None: no number of seconds."""
        value = self.headers.get(b"retry-after", b"")
        return min(int(value), RETRY_AFTER_S_MAX) if _SECONDS.fullmatch(value) else None


class _Headers:
    """Receives llhttp's callbacks for one head."""

    __slots__ = ("counts", "fields", "target")

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.counts: dict[bytes, int] = {}
        self.target = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        value = value.strip(b" \t")
        seen = self.counts.get(key, 0)
        self.counts[key] = seen + 1
        self.fields[key] = self.fields[key] + b", " + value if seen else value


def refuse_early(partial: bytes) -> None:
    """Raise ProtocolError when the start of a head can no longer become a valid one."""
    if _BARE_LINE_END.search(partial.rstrip(b"\r")) or b"\0" in partial:
        raise ProtocolError("lines end in CRLF; a bare CR, LF or NUL is not allowed in a head")
    if partial and not 0x21 <= partial[0] <= 0x7E:
        raise ProtocolError("not an HTTP/1.1 request")
    line_end = partial.find(b"\r\n")
    if line_end >= 0 and not _REQUEST_LINE.fullmatch(partial, 0, line_end + 2):
        raise ProtocolError("malformed request line")


def parse_request_head(head: bytes) -> RequestHead:
    """Parse a whole request head, empty line included. Raises ProtocolError."""
    _refuse_ambiguous_lines(head)
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise ProtocolError("malformed request line")
    version = line[1].decode("ascii")
    if version not in ("1.1", "1.0"):
        raise ProtocolError(f"HTTP/{version} is not served here, HTTP/1.1 is", 505)
    seen = _Headers()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # no upgrade is offered on this path: the request is answered as it stands
    except httptools.HttpParserError as error:
        raise ProtocolError(_reason(error)) from None
    path, query, authority = _split_target(seen.target)
    method = parser.get_method().decode("ascii")
    if path == "*" and method != "OPTIONS":
        raise ProtocolError("the target * is for OPTIONS only")
    request = RequestHead(method, path, query, int(version[2]))
    request.headers = seen.fields
    _check_host(seen, request.http_minor, authority)
    length, request.chunked = _framing(seen, request.http_minor)
    request.content_length = length or 0
    request.keep_alive = _keep_alive(seen.fields, request.http_minor)
    if b"expect" in seen.fields:
        if seen.fields[b"expect"].lower() != b"100-continue":
            raise ProtocolError("the only expectation met here is 100-continue", 417)
        request.expect_continue = request.http_minor == 1
    for name in _CROSSING:
        if seen.fields.get(name):
            request.engine_lines += b"%b: %b\r\n" % (name, seen.fields[name])
    return request


def parse_response_head(head: bytes) -> ResponseHead:
    """Parse a whole response head, empty line included. Raises ProtocolError."""
    _refuse_ambiguous_lines(head)
    line = _STATUS_LINE.match(head)
    if line is None:
        raise ProtocolError("not an HTTP/1.1 response")
    http_minor = int(line[1])
    seen = _Headers()
    parser = httptools.HttpResponseParser(seen)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise ProtocolError(_reason(error)) from None
    response = ResponseHead(parser.get_status_code(), http_minor)
    response.headers = seen.fields
    response.content_length, response.chunked = _framing(seen, 1)
    response.content_type = seen.fields.get(b"content-type", b"")
    response.keep_alive = _keep_alive(seen.fields, http_minor) and (
        response.chunked or response.content_length is not None
    )
    return response


def _reason(error: Exception) -> str:
    return str(error) or "malformed head"


def _refuse_ambiguous_lines(head: bytes) -> None:
    if head.count(b"\n") != head.count(b"\r\n") or head.count(b"\r") != head.count(b"\r\n"):
        raise ProtocolError("lines end in CRLF; a bare CR or LF is not allowed in a head")
    if _FOLDED.search(head):
        raise ProtocolError("obsolete line folding is not allowed")


def _split_target(target: bytes) -> tuple[str, str, bytes]:
    """The path, the query and, of an absolute-form target, the authority (RFC 9112, 3.2)."""
    if target == b"*":
        return "*", "", b""
    match = _TARGET.fullmatch(target) if _TARGET_BYTES.fullmatch(target) else None
    if match is None or not (match["path"] or match["host"]):
        raise ProtocolError("malformed request target")
    query = match["query"] or b""
    return (match["path"] or b"/").decode("ascii"), query.decode("ascii"), match["host"] or b""


def _check_host(seen: _Headers, http_minor: int, authority: bytes) -> None:
    count = seen.counts.get(b"host", 0)
    if count > 1 or (count == 0 and http_minor == 1):
        raise ProtocolError("exactly one Host header is needed")
    host = seen.fields.get(b"host", b"")
    if host and not _HOST.fullmatch(host):
        raise ProtocolError("malformed Host header")
    if not host and http_minor == 1:
        raise ProtocolError("the Host header is empty")
    if authority and authority.lower() != host.lower():
        raise ProtocolError("the request target and the Host header name different hosts")


def _framing(seen: _Headers, http_minor: int) -> tuple[int | None, bool]:
    """Content length and whether the body is chunked (RFC 9112, 6.3, without its leniencies)."""
    lengths = seen.counts.get(b"content-length", 0)
    encodings = seen.counts.get(b"transfer-encoding", 0)
    if encodings:
        if lengths:
            raise ProtocolError("both Content-Length and Transfer-Encoding")
        if encodings > 1 or seen.fields[b"transfer-encoding"].lower() != b"chunked":
            raise ProtocolError("the only transfer coding served is chunked")
        if http_minor == 0:
            raise ProtocolError("Transfer-Encoding in HTTP/1.0")
        return None, True
    if not lengths:
        return None, False
    value = seen.fields[b"content-length"]
    if lengths > 1 or not _LENGTH.fullmatch(value) or int(value) > CONTENT_LENGTH_MAX:
        raise ProtocolError("malformed Content-Length")
    return int(value), False


def _keep_alive(fields: dict[bytes, bytes], http_minor: int) -> bool:
    connection = fields.get(b"connection")
    if connection is None:
        return http_minor == 1
    options = {option.strip() for option in connection.lower().split(b",")}
    return b"close" not in options and (http_minor == 1 or b"keep-alive" in options)


class HeadCache(Generic[Head]):
    """Remembers parsed heads by their exact bytes: a client's requests, an engine's answers repeat.

    Parsing is a pure function of the bytes, so a hit is as strict as a parse. A returned head is
    shared: what is written to it is a function of it. Bounded by HEADS_KEPT_MAX, then emptied.
    """

    __slots__ = ("_kept", "_parse")

    def __init__(self, parse: Callable[[bytes], Head]) -> None:
        self._parse = parse
        self._kept: dict[bytes, Head] = {}

    def parse(self, head: bytes) -> Head:
        """The parsed head. Raises ProtocolError, which is never remembered."""
        kept = self._kept.get(head)
        if kept is None:
            kept = self._parse(head)
            if len(head) <= HEAD_KEPT_BYTES_MAX:
                if len(self._kept) >= HEADS_KEPT_MAX:
                    self._kept.clear()
                self._kept[head] = kept
        return kept


class ChunkedDecoder:
    """Takes chunked framing off a body (RFC 9112, section 7.1), however the bytes are cut.

    After ``feed``: ``done`` says that the last chunk and its trailer were read; ``rest`` holds what
    came behind them; ``whole`` says that this feed's bytes were exactly whole chunks, plainly
    framed, so that they may be sent on framed as they are.
    """

    __slots__ = (
        "_left",
        "_line",
        "_state",
        "_trailer_bytes",
        "at_boundary",
        "done",
        "rest",
        "whole",
    )

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0  # bytes of the chunk's data still to come
        self._line = b""
        self._trailer_bytes = 0
        self.at_boundary = True
        self.done = False
        self.whole = False
        self.rest = b""

    def plain_chunk(self, data: bytes) -> bytes | None:
        """The payload of ``data`` if that is exactly one whole, plainly framed chunk; else None.

        Changes nothing: what it does not take is fed.
        """
        if self.at_boundary and len(data) < len(_PLAIN_LINES):
            line = _PLAIN_LINES[len(data)]
            if line and data.startswith(line) and data.endswith(b"\r\n"):
                return data[len(line) : -2]
        return None

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``. Raises ProtocolError on bad framing."""
        pieces: list[bytes] = []
        try:
            self._read(data, pieces)
        except ProtocolError as error:
            error.payload = b"".join(pieces)
            raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read(self, data: bytes, pieces: list[bytes]) -> None:
        """Append the payload in ``data``. Raises ProtocolError."""
        plain = self.at_boundary
        position = self._take_plain_chunks(data, pieces) if plain else 0
        while position < len(data) and not self.done:
            if self._left:
                piece = data[position : position + self._left]
                pieces.append(piece)
                self._left -= len(piece)
            else:
                line_end = data.find(b"\n", position)
                piece = data[position : line_end + 1] if line_end >= 0 else data[position:]
                self._line += piece
                if len(self._line) > CHUNK_LINE_BYTES_MAX and self._state is not _TRAILER:
                    raise ProtocolError("a chunk's size line is too long")
                if line_end >= 0:
                    plain &= self._on_line(self._line)
                    self._line = b""
                elif len(self._line) > TRAILER_BYTES_MAX:
                    raise ProtocolError("the trailer is too long")
            position += len(piece)
        self.at_boundary = self._state is _SIZE and not self._line
        self.whole = plain and self.at_boundary
        self.rest = data[position:]

    def _take_plain_chunks(self, data: bytes, pieces: list[bytes]) -> int:
        """Append the payloads of the whole, plainly framed chunks that ``data`` begins with, and tell
        where they end. What it does not take is for the slower reading."""
        position = 0
        while position < len(data):
            start = data.find(b"\n", position, position + _PLAIN_LINE_BYTES_MAX) + 1
            size = _PLAIN_SIZES.get(data[position:start]) if start else None
            if size is None or data[start + size : start + size + 2] != b"\r\n":
                break
            pieces.append(data[start : start + size])
            position = start + size + 2
        return position

    def _on_line(self, line: bytes) -> bool:
        """Take one line of framing; whether it is part of a plainly framed, not last chunk."""
        if not line.endswith(b"\r\n"):
            raise ProtocolError("chunk framing lines end in CRLF")
        if self._state is _DATA:  # the line end behind the chunk's data
            if line != b"\r\n":
                raise ProtocolError("a chunk is longer than its size line says")
            self._state = _SIZE
            return True
        if self._state is _TRAILER:
            self._on_trailer(line)
            return False
        match = _SIZE_LINE.fullmatch(line, 0, len(line) - 2)
        if match is None:
            raise ProtocolError("malformed chunk size")
        self._left = int(match[1], 16)
        self._state = _DATA if self._left else _TRAILER
        return self._left > 0 and not match[2]

    def _on_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > TRAILER_BYTES_MAX:
            raise ProtocolError("the trailer is too long")
        if line == b"\r\n":
            self.done = True
        elif not _TRAILER_LINE.fullmatch(line, 0, len(line) - 2):
            raise ProtocolError("malformed trailer")
        elif line.partition(b":")[0].lower() in _NOT_IN_TRAILERS:
            raise ProtocolError("a field that frames or routes a message in its trailer")
