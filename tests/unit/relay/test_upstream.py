"""A connection to an engine at its seams: what a real socket brings about only by chance."""

import asyncio
from typing import Any

import pytest

from filature.relay.clock import CoarseClock
from filature.relay.dialing import DialingPool, Origin
from filature.relay.http1 import ResponseHead
from filature.relay.limits import RelayLimits
from filature.relay.upstream import INTERIM_MAX, UpstreamConnection


class Wire(asyncio.Transport):
    """A transport that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.reading = True
        self.closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

    def write(self, data: Any) -> None:
        self.sent += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class PausingCaller:
    """Pauses the engine with each payload, as a slow client does."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_connected(self, connection: UpstreamConnection) -> None:
        self.connection = connection
        self.events.append("connected")

    def on_head(self, head: ResponseHead) -> None:
        self.events.append(f"head {head.status}")

    def on_payload(self, payload: bytes, raw: bytes | None) -> None:
        self.events.append(payload.decode())
        self.connection.pause_reading()

    def on_end(self) -> None:
        self.events.append("end")

    def on_lost(self, reason: str, *, ours: bool = False) -> None:
        self.events.append(f"lost: {reason}")

    def on_silent(self) -> bool:
        return False


@pytest.fixture
def connection() -> UpstreamConnection:
    pool = DialingPool(Origin("engine", 80, None), CoarseClock(lambda: 0.0), RelayLimits())
    made = UpstreamConnection(pool)
    made.connection_made(Wire())
    return made


def wire(connection: UpstreamConnection) -> Wire:
    transport = connection.transport
    assert isinstance(transport, Wire)
    return transport


def test_a_connection_is_read_again_when_its_answer_ended_while_paused(
    connection: UpstreamConnection,
) -> None:
    first, second = PausingCaller(), PausingCaller()
    connection.send(first, b"ask", reused=False)
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    connection.data_received(answer)
    assert first.events == ["connected", "head 200", "a", "end"]
    assert wire(connection).reading, "the next request's answer must be heard"
    connection._pool.send(second, b"ask again")
    assert wire(connection).sent == b"askask again", "it was kept and is used again"
    assert second.events == ["connected"]


@pytest.mark.parametrize(
    "fields", [b"", b"Upgrade: x\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n"]
)
def test_protocols_are_not_switched(connection: UpstreamConnection, fields: bytes) -> None:
    caller = PausingCaller()
    connection.send(caller, b"ask", reused=False)
    connection.data_received(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % fields)
    assert len(caller.events) == 2
    assert caller.events[1].startswith("lost: malformed answer")
    assert wire(connection).closed


@pytest.mark.parametrize("at_once", [1, 1000])
def test_interim_answers_have_an_end(connection: UpstreamConnection, at_once: int) -> None:
    """Each costs more to read than to send."""
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    first, second = PausingCaller(), PausingCaller()
    connection.send(first, b"ask", reused=False)
    for _ in range(INTERIM_MAX):
        connection.data_received(interim)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
    assert first.events == ["connected", "head 200", "a", "end"]
    connection.send(second, b"ask", reused=True)
    for _ in range(INTERIM_MAX // at_once + 1):
        assert second.events == ["connected"]
        connection.data_received(interim * at_once)
    assert second.events == ["connected", "lost: malformed answer: too many interim answers"]
    assert wire(connection).closed


def test_nothing_is_heard_after_a_cancel(connection: UpstreamConnection) -> None:
    caller = PausingCaller()
    connection.send(caller, b"ask", reused=True)
    connection.cancel()
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
    connection.connection_lost(None)
    assert caller.events == ["connected"]
    assert connection._pool.open_connections == 0
