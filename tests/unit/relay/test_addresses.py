"""A name of which one address swallows packets: the others are dialled, once that is known."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
from tests.unit.relay.test_upstream import PausingCaller

from filature.relay import addresses
from filature.relay.addresses import Addresses
from filature.relay.clock import CoarseClock
from filature.relay.dialing import DialingPool, Origin
from filature.relay.limits import RelayLimits

SILENT, GOOD = "127.0.0.2", "127.0.0.1"


@pytest.fixture(autouse=True)
def _two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return [SILENT, GOOD]

    monkeypatch.setattr(addresses, "resolve", resolve)


@contextlib.contextmanager
def swallowing(port: int) -> Iterator[None]:
    """A listener whose queue is full: what else comes is not answered."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((SILENT, port))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((SILENT, port))
        yield


async def test_each_address_has_its_turn() -> None:
    picked = Addresses("name", 80)
    assert await picked.pick() == ("name", 0)
    picked.failed(0)  # all of them refused
    assert await picked.pick() == ("name", 0)
    for _ in range(2):  # dials that were made at once
        picked.silent(0)
    assert await picked.pick() == (GOOD, 1)
    picked.failed(1)
    assert await picked.pick() == ("name", 2)
    picked.silent(2)
    assert await picked.pick() == (GOOD, 3)


async def test_an_engine_is_reached_by_its_other_address() -> None:
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readexactly(3)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    server = await asyncio.start_server(answer, GOOD, 0)
    port = server.sockets[0].getsockname()[1]
    pool = DialingPool(
        Origin(SILENT, port, None), CoarseClock(lambda: 0.0), RelayLimits(connect_s=0.2)
    )
    with swallowing(port):
        events: list[list[str]] = []
        for _ in range(2):
            caller = PausingCaller()
            pool.send(caller, b"ask")
            async with asyncio.timeout(10):
                while not any(each == "end" or each.startswith("lost") for each in caller.events):
                    await asyncio.sleep(0.01)
            events.append(caller.events)
    pool.close()
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    server.close()
    assert events == [
        ["lost: no connection within 0.2 s"],
        ["connected", "head 200", "end"],
    ]
