"""Request heads of which a few known lines differ each time: parsed once without these."""

from typing import Final

from filature.relay.http1 import HeadCache, RequestHead, parse_request_head

_LINE_END: Final = b"\r\n"
_VISIBLE: Final = bytes(range(0x21, 0x7F))
"""A value of these alone is what it is, however a head is read."""


class VaryingHeads(HeadCache[RequestHead]):
    """``names`` are those lines', in lower case, in the order in which they are sent. Where one looks unusual the whole
    head is parsed."""

    def __init__(self, *names: bytes) -> None:
        super().__init__(parse_request_head)
        self._names = [(name, b"\r\n%b: " % name) for name in names]

    def parse(self, head: bytes) -> RequestHead:
        """A head of its own, not shared with others. Raises ProtocolError."""
        found: list[tuple[bytes, bytes]] = []
        rest, values, at = b"", b"", 0
        for name, token in self._names:
            start = head.find(token, at)
            if start < 0:
                continue
            rest += head[at:start]
            start += len(token)
            at = head.find(_LINE_END, start)
            value = head[start:at]
            values += value
            found.append((name, value))
        if values.translate(None, _VISIBLE):
            return parse_request_head(head)
        kept = super().parse(rest + head[at:])
        made = RequestHead(kept.method, kept.path, kept.query, kept.http_minor)
        made.headers = dict(kept.headers)
        for name, value in found:
            if name in made.headers:  # it was there twice
                return parse_request_head(head)
            made.headers[name] = value
        made.content_length = kept.content_length
        made.chunked = kept.chunked
        made.keep_alive = kept.keep_alive
        made.expect_continue = kept.expect_continue
        made.engine_lines = kept.engine_lines
        return made
