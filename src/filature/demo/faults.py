"""What goes out in which order, and how it ends: an answer's bytes with a fault worked into them.

Decides only; ``player.py`` sends. A *beat* is what is written at one point in time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import orjson

from filature.demo.formats.base import ERROR_MESSAGE, Format
from filature.demo.options import Fault, Script

PING: Final = b":\n\n"
_LINE_PIECE_BYTES: Final = 64 * 1024
_DEFAULT_AFTER: Final = 3
_GARBAGE: Final = b"\x00\xffzz this is not HTTP\r\n\r\n\x16\x03\x01"


class Ending(Enum):
    """What happens once the beats went out."""

    KEEP = "keep"
    """The connection serves the next request."""
    CLOSE = "close"
    RESET = "reset"
    STALL = "stall"
    PINGS = "pings"
    """A stall in which comments come."""
    FLOOD = "flood"
    """One line that does not end for a long time; the rest of the script follows."""


@dataclass(slots=True)
class Output:
    """A response, ready to be played."""

    head: bytes
    beats: list[bytes] = field(default_factory=list)
    ending: Ending = Ending.KEEP
    failed: bool = False
    """A fault was worked in."""
    head_delay_s: float = 0.0
    """Between the two halves of the head."""


@dataclass(slots=True)
class Events:
    """A stream's events: those before content, those of each piece, those after."""

    lead: list[bytes]
    pieces: list[list[bytes]]
    tail: list[bytes]


_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
STREAM_TYPE: Final = b"text/event-stream; charset=utf-8"


def head_bytes(
    status: int, content_type: bytes, length: int | None, *, close: bool = False, more: bytes = b""
) -> bytes:
    """A response's head; ``length`` None means chunked. ``more`` holds whole header lines."""
    reason = _REASONS.get(status, "Unknown").encode()
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    connection = b"connection: close\r\n" if close else b""
    return b"HTTP/1.1 %d %b\r\nserver: filature-demo\r\ncontent-type: %b\r\n%b\r\n%b%b\r\n" % (
        status,
        reason,
        content_type,
        framing,
        connection,
        more,
    )


def document_output(body: bytes, script: Script, *, fails: bool) -> Output:
    """A whole answer, with the fault if it ``fails``."""
    fault = script.fault if fails else Fault.NONE
    if fault in (Fault.NONE, Fault.NO_DONE):
        head = head_bytes(200, b"application/json", len(body))
        return Output(b"", [head + body])
    if (early := _without_answer(script)) is not None:
        return early
    half = len(body) // 2
    head = head_bytes(200, b"application/json", len(body), close=True)
    if fault is Fault.SLOW_HEAD:
        return Output(head, [body], Ending.CLOSE, failed=True, head_delay_s=script.delay_s)
    if fault is Fault.WRONG_LENGTH:
        head = head_bytes(200, b"application/json", max(0, len(body) + script.by), close=True)
        return Output(head, [body], Ending.CLOSE, failed=True)
    if fault is Fault.EMPTY_200:
        head = head_bytes(200, b"application/json", 0, close=True)
        return Output(head, [], Ending.CLOSE, failed=True)
    if fault in (Fault.ERROR_FRAME, Fault.ERROR_STRING, Fault.ERROR_THEN_DONE):
        error: object = ERROR_MESSAGE
        if fault is not Fault.ERROR_STRING:
            error = {"message": ERROR_MESSAGE, "type": "InternalServerError", "code": 500}
        body = orjson.dumps({"error": error})
        head = head_bytes(200, b"application/json", len(body), close=True)
        return Output(head, [body], Ending.CLOSE, failed=True)
    endings = {
        Fault.RESET: Ending.RESET,
        Fault.STALL: Ending.STALL,
        Fault.STALL_PINGS: Ending.STALL,
    }
    if fault is Fault.BIG_LINE:
        head = head_bytes(200, b"application/json", None, close=True)
        return Output(head, [], Ending.FLOOD, failed=True)
    return Output(head, [body[:half]], endings.get(fault, Ending.CLOSE), failed=True)


def stream_output(events: Events, form: Format, script: Script, *, fails: bool) -> Output:
    """A streamed answer, with the fault if it ``fails``."""
    fault = script.fault if fails else Fault.NONE
    head = head_bytes(200, STREAM_TYPE, None)
    if fault is Fault.NONE:
        return Output(head, _all_beats(events, script))
    if (early := _without_answer(script)) is not None:
        return early
    if fault is Fault.SLOW_HEAD:
        beats = _all_beats(events, script)
        return Output(head, beats, failed=True, head_delay_s=script.delay_s)
    if fault is Fault.EMPTY_200:
        return Output(head, [LAST_CHUNK], failed=True)
    if fault is Fault.NO_DONE:
        events.tail.pop()
        return Output(head, _all_beats(events, script), failed=True)
    if fault is Fault.WRONG_LENGTH:
        return _wrong_length(events, script)
    after = _DEFAULT_AFTER if script.after is None else script.after
    beats = [] if after < 0 else _beats([events.lead, *events.pieces[:after]], script)
    rest = [event for piece in events.pieces[max(0, after) :] for event in piece]
    ends, ending = _end(fault, form, [*rest, *events.tail])
    return Output(head, [*beats, ends] if ends else beats, ending, failed=True)


LAST_CHUNK: Final = b"0\r\n\r\n"


_ENDINGS: Final = {
    Fault.STALL: Ending.STALL,
    Fault.STALL_PINGS: Ending.PINGS,
    Fault.RESET: Ending.RESET,
    Fault.BIG_LINE: Ending.FLOOD,
    Fault.ERROR_FRAME: Ending.KEEP,
    Fault.ERROR_STRING: Ending.KEEP,
    Fault.ERROR_THEN_DONE: Ending.KEEP,
    Fault.HALF_EVENT: Ending.KEEP,
}
"""The others close."""


def _end(fault: Fault, form: Format, rest: list[bytes]) -> tuple[bytes, Ending]:
    """The fault's own bytes, framed, and how the connection goes on; ``rest`` was not sent yet."""
    last: list[bytes] = []
    if fault in (Fault.ERROR_FRAME, Fault.ERROR_THEN_DONE):
        last.append(form.error(ERROR_MESSAGE))
    if fault is Fault.ERROR_THEN_DONE:
        last.append(b"data: [DONE]\n\n")
    elif fault is Fault.ERROR_STRING:
        last.append(b"data: " + orjson.dumps({"error": ERROR_MESSAGE}) + b"\n\n")
    elif fault is Fault.HALF_EVENT:
        last.append(rest[0][: len(rest[0]) // 2])
    ending = _ENDINGS.get(fault, Ending.CLOSE)
    if last:
        return b"".join(map(chunk, last)) + LAST_CHUNK, ending
    if fault is Fault.GARBAGE:
        return _GARBAGE, ending
    return chunk(b"data: ") if fault is Fault.BIG_LINE else b"", ending


def _without_answer(script: Script) -> Output | None:
    """Faults that leave nothing of the answer, streamed or not."""
    if script.fault is Fault.REFUSE:
        return Output(b"", [], Ending.CLOSE, failed=True)
    if script.fault is Fault.GARBAGE and script.after is None:
        return Output(b"", [_GARBAGE], Ending.CLOSE, failed=True)
    if script.fault is Fault.STATUS:
        error = {"message": ERROR_MESSAGE, "type": "InternalServerError", "code": script.status}
        body = orjson.dumps({"error": error})
        more = b"retry-after: 1\r\n" if script.status in (429, 503) else b""
        head = head_bytes(script.status, b"application/json", len(body), more=more)
        return Output(head, [body], failed=True)
    return None


def _wrong_length(events: Events, script: Script) -> Output:
    beats = [events.lead, *events.pieces, events.tail]
    plain = [b"".join(beat) for beat in beats if beat]
    length = max(0, sum(map(len, plain)) + script.by)
    head = head_bytes(200, STREAM_TYPE, length, close=True)
    return Output(head, plain, Ending.CLOSE, failed=True)


def _all_beats(events: Events, script: Script) -> list[bytes]:
    beats = _beats([events.lead, *events.pieces], script)
    tail = _beats([events.tail], script)
    ends = b"".join(tail) + LAST_CHUNK
    if beats:
        beats[-1] += ends
    else:
        beats.append(ends)
    return beats


def _beats(groups: list[list[bytes]], script: Script) -> list[bytes]:
    """Each group framed; an empty one leaves no beat."""
    if script.split is None:
        return [
            chunk(group[0]) if len(group) == 1 else b"".join(map(chunk, group))
            for group in groups
            if group
        ]
    return [
        b"".join(chunk(part) for part in _parts(b"".join(group), script.split))
        for group in groups
        if group
    ]


def _parts(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def flood(size: int) -> Iterator[bytes]:
    """Framed pieces of one line of ``size`` bytes without its end."""
    whole = chunk(b"x" * _LINE_PIECE_BYTES)
    for _ in range(size // _LINE_PIECE_BYTES):
        yield whole
    if size % _LINE_PIECE_BYTES:
        yield chunk(b"x" * (size % _LINE_PIECE_BYTES))
    yield chunk(b"\n\n") + LAST_CHUNK
