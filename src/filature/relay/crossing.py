"""Which of a client's header lines cross to an engine: an allow-list. What is added to them is the exchange's."""

from typing import Final

from filature.relay.http1 import RequestHead

_CROSSING: Final = (b"accept", b"traceparent")


def lines_for_engine(head: RequestHead) -> bytes:
    """The client's lines that cross; made once for a head."""
    lines = head.engine_lines
    if lines is None:
        headers = head.headers
        lines = head.engine_lines = b"".join(
            b"%b: %b\r\n" % (name, headers[name]) for name in _CROSSING if headers.get(name)
        )
    return lines
