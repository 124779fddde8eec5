"""Whatever stands in heads and chunks is refused, or read alike with and without what was remembered, however cut."""

import contextlib
from collections.abc import Callable
from typing import Final

from filature.relay.http1 import (
    ChunkedDecoder,
    HeadCache,
    ProtocolError,
    RequestHead,
    parse_request_head,
    parse_response_head,
)
from filature.relay.varying_heads import VaryingHeads

_REQUEST: Final = (
    "method",
    "path",
    "query",
    "http_minor",
    "headers",
    "content_length",
    "chunked",
    "keep_alive",
    "expect_continue",
    "engine_lines",
)
_VARYING: Final = VaryingHeads(b"x-filature-ticket", b"x-request-id")
_CACHE: Final = HeadCache(parse_request_head)
_END: Final = b"\r\n\r\n"


def _seen(parse: Callable[[bytes], RequestHead], head: bytes) -> list[object] | None:
    """None: it is refused."""
    try:
        found = parse(head)
    except ProtocolError:
        return None
    return [getattr(found, name) for name in _REQUEST]


def _dechunk(pieces: list[bytes]) -> tuple[bytes, object]:
    """The payload, and what came behind it; None if the framing is bad, whether a chunk's end was reached if it is not
    over."""
    decoder = ChunkedDecoder()
    out = []
    try:
        for at, piece in enumerate(pieces):
            plain = decoder.plain_chunk(piece)
            out.append(decoder.feed(piece))
            assert plain is None or plain == out[-1]
            if decoder.done:
                return b"".join(out), decoder.rest + b"".join(pieces[at + 1 :])
    except ProtocolError as error:
        out.append(error.payload)
        return b"".join(out), None
    return b"".join(out), decoder.at_boundary


def check(data: bytes) -> None:
    """The first byte says what the rest is, and of a chunked body in what pieces it comes."""
    how, data = data[:1], data[1:]
    if not how:
        return
    kind, size = how[0] & 3, how[0] >> 2
    if kind == 0:
        head, _, _ = (data + _END).partition(_END)
        head += _END
        straight = _seen(parse_request_head, head)
        for parse in (_VARYING.parse, _VARYING.parse, _CACHE.parse):
            assert _seen(parse, head) == straight
    elif kind == 1:
        with contextlib.suppress(ProtocolError):
            parse_response_head(data + _END)
    else:
        pieces = [data[at : at + (size or 1)] for at in range(0, len(data), size or 1)]
        assert _dechunk(pieces) == _dechunk([data])
