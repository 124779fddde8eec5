"""What is written of an answer, in each framing, and what of it waits for ``finish``."""

import asyncio
from typing import Any, cast

import pytest

from filature.errors import EngineFailed
from filature.relay.clock import CoarseClock
from filature.relay.downstream import Downstream, DownstreamConnection, Service
from filature.relay.http1 import parse_request_head
from filature.relay.limits import RelayLimits
from filature.relay.reply import Reply
from filature.wire.dialect import Dialect


class Wire(asyncio.Transport):
    """A transport that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: Any) -> None:
        self.sent += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    @property
    def body(self) -> bytes:
        return self.sent.partition(b"\r\n\r\n")[2]


def reply(version: bytes) -> tuple[Reply, Wire]:
    wire = Wire()
    head = parse_request_head(b"POST /v1/x HTTP/%b\r\nHost: h\r\n\r\n" % version)
    service = cast(Service, None)  # nothing is asked on this connection
    connection = DownstreamConnection(Downstream(service, CoarseClock(lambda: 0.0), RelayLimits()))
    connection.connection_made(wire)
    return Reply(connection, head, b""), wire


def test_an_answer_until_the_close_keeps_its_last_byte() -> None:
    answer, wire = reply(b"1.0")
    answer.hold(b"on")
    answer.keeps_last_byte = True
    answer.begin(b"a/b", b"e")
    assert wire.body == b"on"
    answer.send(b",")
    assert wire.body == b"one"
    answer.send(b"two")
    assert wire.body == b"one,tw"
    answer.finish(b"")
    assert wire.body == b"one,two"


def test_in_chunks_and_in_events_nothing_is_kept() -> None:
    for version, keeps, body in ((b"1.1", True, b"1\r\na\r\n"), (b"1.0", False, b"a")):
        answer, wire = reply(version)
        answer.keeps_last_byte = keeps
        answer.begin(b"a/b", b"a")
        assert wire.body == body
    answer, wire = reply(b"1.1")
    answer.begin(b"a/b", b"")
    assert wire.body == b""
    answer.finish(b"z")
    assert wire.body == b"1\r\nz\r\n0\r\n\r\n"


@pytest.mark.parametrize("keeps", [True, False])
def test_an_error_in_a_stream_stands_behind_what_was_kept(keeps: bool) -> None:
    answer, wire = reply(b"1.0")
    answer.keeps_last_byte = keeps
    answer.begin(b"a/b", b"data: 1\n\n")
    answer.fail(EngineFailed("dead"), Dialect.CHAT, 0)
    assert wire.body.startswith(b'data: 1\n\ndata: {"error":')
