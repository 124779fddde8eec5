"""Connections whose TLS handshake does not end: bounded, and in nobody's way."""

import asyncio
import errno
import socket
from typing import Any

import pytest
from tests.integration.harness import TLS, WAIT_S, Chain, chain
from tests.integration.messages import get
from tests.integration.test_http import client_tls

from filature.relay import tls_listener
from filature.relay.tls_listener import HANDSHAKES_PART, TlsListener
from filature.worker.tunnels import READY_MAX

CERTIFIED: dict[str, Any] = {"tls_cert": TLS / "cert.pem", "tls_key": TLS / "key.pem"}


def listener_of(c: Chain) -> TlsListener:
    listener = c.proxy._server
    assert isinstance(listener, TlsListener)
    return listener


async def shaking_hands(c: Chain, number: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while len(listener_of(c)._handshakes) != number:
            await asyncio.sleep(0.001)


async def served(c: Chain) -> None:
    client = await c.connect(tls=client_tls())
    client.send(get("/health"))
    assert (await client.answer()).status == 200


async def test_the_oldest_handshake_gives_way_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_listener, "HANDSHAKES_LEAST", 1)
    async with chain(connections_max=3 * HANDSHAKES_PART, head_s=60, **CERTIFIED) as c:
        silent = []
        for number in range(3):
            silent.append(await c.connect())
            await shaking_hands(c, number + 1)
        silent[1].send(b"\x16\x03\x01")  # the beginning of one that does not go on
        await served(c)
        assert await silent[0].eof() == b""
        await shaking_hands(c, 2)
        await served(c)
        silent.append(await c.connect())
        await shaking_hands(c, 3)
        silent.append(await c.connect())
        assert await silent[1].eof() == b""
        await shaking_hands(c, 3)
        assert len(c.proxy.downstream.connections) == 2
        counted = c.proxy.metrics.exposition(c.proxy.metrics.registry()).decode()
        assert 'filature_limits_reached_total{limit="handshakes_max"} 2.0' in counted


async def test_a_handshake_has_its_time() -> None:
    async with chain(head_s=0.1, **CERTIFIED) as c:
        assert await (await c.connect()).eof() == b""
        await shaking_hands(c, 0)
        await served(c)


async def test_a_handshake_that_was_begun_ends_with_the_proxy() -> None:
    async with chain(head_s=60, **CERTIFIED) as c:
        client = await c.connect()
        await shaking_hands(c, 1)
        listener = listener_of(c)
    assert not listener._handshakes
    assert await client.eof() == b""


async def test_where_no_file_is_left_it_accepts_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_listener, "PAUSE_S", 0.01)

    class Full:
        """A listening socket whose process has too many files open."""

        tried = 0

        def __init__(self, listening: socket.socket) -> None:
            self._listening = listening

        def accept(self) -> Any:
            self.tried += 1
            if self.tried == 1:
                raise OSError(errno.EMFILE, "too many files")
            return self._listening.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._listening, name)

    async with chain(**CERTIFIED) as c:
        listener = listener_of(c)
        (listening,) = listener.sockets
        full: Any = Full(listening)
        listener._pause()
        listener.sockets = [full]
        listener._resume()
        await served(c)
        assert full.tried > 1


async def test_who_asks_without_tls_is_told_so() -> None:
    async with chain(**CERTIFIED) as c:
        client = await c.connect()
        client.send(get("/v1/models"))
        answer = await client.answer()
        assert answer.status == 400
        assert answer.json["error"]["message"] == "This port speaks TLS: ask by https://"
        assert await client.eof() == b""
        await shaking_hands(c, 0)


async def test_a_port_that_is_taken_is_an_oserror() -> None:
    async with chain(**CERTIFIED) as c:
        with pytest.raises(OSError, match="in use"):
            await tls_listener._bound("127.0.0.1", c.proxy.port)


async def test_a_worker_s_dials_are_no_flood() -> None:
    async with chain(connections_max=READY_MAX, head_s=60, **CERTIFIED) as c:
        assert listener_of(c).handshakes_max >= 2 * READY_MAX
