"""TLS over real sockets, with the standard library's blocking one and OpenSSL's own programs at the other end."""

import asyncio
import contextlib
import gc
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, cast
from unittest.mock import Mock

import pytest
from tests.integration.harness import TLS, WAIT_S, Puppet, chain, says
from tests.integration.messages import (
    SHORT_STREAM,
    STREAM,
    STREAM_HEAD,
    chunked,
    get,
    post,
    stream_answer,
)
from tests.unit.relay.tls_ends import VERSIONS, Heard, client_tls, server_tls

from filature.relay.tls import TlsTransport, accept, dial
from filature.worker import tunnels

CERTIFIED: Final[dict[str, Any]] = {"tls_cert": TLS / "cert.pem", "tls_key": TLS / "key.pem"}
SIZES: Final = (1, 100, 16_384, 70_000, 5 << 20)


class Echo(Heard):
    """Says what it is told, and reads no more while that waits."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.on_data = self.transport.write

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.transport.resume_reading()


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT_S)
        yield server


async def echoed(blocking: ssl.SSLSocket) -> None:
    """Whole, at whatever speed both go."""

    def ask() -> None:
        with blocking:
            for size in SIZES:
                said = (bytes(range(256)) * (size // 256 + 1))[:size]
                blocking.sendall(said)
                heard = bytearray()
                while len(heard) < size:
                    heard += blocking.recv(size)
                assert heard == said
            with contextlib.suppress(ssl.SSLError):
                blocking.unwrap()

    await asyncio.to_thread(ask)


async def lost(heard: Heard) -> None:
    async with asyncio.timeout(WAIT_S):
        while "lost" not in heard.events:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
async def test_a_client_of_the_standard_library(version: ssl.TLSVersion) -> None:
    heard = Echo()
    with listening() as server:

        def connect() -> ssl.SSLSocket:
            plain = socket.create_connection(server.getsockname(), timeout=WAIT_S)
            return client_tls(version).wrap_socket(plain, server_hostname="localhost")

        connecting = asyncio.create_task(asyncio.to_thread(connect))
        accepted, _ = await asyncio.to_thread(server.accept)
        accepted.setblocking(False)
        await accept(heard, accepted, server_tls())
        client = await connecting
        assert client.version() == version.name.replace("_", ".")
        await echoed(client)
    await lost(heard)
    assert heard.events[-2:] == ["eof", "lost"]
    assert len(heard.data) == sum(SIZES)


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
async def test_a_server_of_the_standard_library(version: ssl.TLSVersion) -> None:
    heard = Echo()
    with listening() as server:

        def take() -> ssl.SSLSocket:
            plain, _ = server.accept()
            plain.settimeout(WAIT_S)
            return server_tls(version).wrap_socket(plain, server_side=True)

        taking = asyncio.create_task(asyncio.to_thread(take))
        port = server.getsockname()[1]
        await dial(heard, "127.0.0.1", port, client_tls(), "localhost")
        await echoed(await taking)
    await lost(heard)
    assert len(heard.data) == sum(SIZES)


# Dials that come to nothing


@contextlib.asynccontextmanager
async def nothing_unseen() -> AsyncIterator[None]:
    """Whether all that failed was heard of by somebody, and all that was opened is closed."""
    unseen: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    yield
    await asyncio.sleep(0.01)
    gc.collect()  # an unclosed transport is a warning, and a warning an error
    assert not unseen


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """A TLS server's port."""

    def taken() -> asyncio.Protocol:
        return cast(asyncio.Protocol, TlsTransport(Heard(), server_tls()))

    server = await asyncio.get_running_loop().create_server(taken, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("wrong", ["name", "authority"])
async def test_a_certificate_that_is_not_trusted_is_an_oserror(wrong: str) -> None:
    heard = Heard()
    context = client_tls() if wrong == "name" else ssl.create_default_context()
    name = "elsewhere.example" if wrong == "name" else "localhost"
    async with nothing_unseen(), serving() as port:
        with pytest.raises(ssl.SSLCertVerificationError) as error:
            await dial(heard, "127.0.0.1", port, context, name)
        assert isinstance(error.value, OSError)
    assert heard.events == []


@pytest.mark.parametrize("after", ["nothing", "a byte", "reset"])
async def test_a_server_that_cuts_the_handshake_is_an_oserror(after: str) -> None:
    heard = Heard()
    with listening() as server:

        def cut() -> None:
            plain, _ = server.accept()
            with plain:
                if after != "reset":
                    plain.recv(65_536)
                if after == "a byte":
                    plain.sendall(b"\x16")

        cutting = asyncio.create_task(asyncio.to_thread(cut))
        async with nothing_unseen():
            port = server.getsockname()[1]
            with pytest.raises(OSError, match=r"handshake|reset"):
                await dial(heard, "127.0.0.1", port, client_tls(), "localhost")
            await cutting
    assert heard.events == []


async def test_who_gives_up_in_the_handshake_leaves_no_connection() -> None:
    heard = Heard()
    with listening() as server:
        async with nothing_unseen():
            port = server.getsockname()[1]
            dialling = asyncio.create_task(
                dial(heard, "127.0.0.1", port, client_tls(), "localhost")
            )
            plain, _ = await asyncio.to_thread(server.accept)
            with plain:
                plain.settimeout(WAIT_S)
                hello = await asyncio.to_thread(plain.recv, 65_536)
                assert hello[:1] == b"\x16"
                dialling.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await dialling
                assert await asyncio.to_thread(plain.recv, 1) == b""
    assert heard.events == []


async def test_who_gives_up_in_any_turn_of_the_loop_leaves_no_connection() -> None:
    cancelled = 0
    async with serving() as port:
        for turns in range(12):
            async with nothing_unseen():
                heard = Heard()
                dialling = asyncio.create_task(
                    dial(heard, "127.0.0.1", port, client_tls(), "localhost")
                )
                for _ in range(turns):
                    await asyncio.sleep(0)
                dialling.cancel()
                try:
                    (await dialling).abort()  # it was made in fewer turns
                    await lost(heard)
                except asyncio.CancelledError:
                    cancelled += 1
            assert heard.events in ([], ["made", "lost"])
    assert cancelled


async def test_a_tunnel_given_up_as_its_tls_is_ready_is_no_error_of_anybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with nothing_unseen(), serving() as port:
        address = tunnels.ProxyAddress.of(f"https://127.0.0.1:{port}", client_tls())
        each = tunnels.Tunnels(address, "token", "instance", Mock(connections=set()))
        made = tunnels._Handshake.connection_made

        def gives_up(handshake: Any, transport: asyncio.BaseTransport) -> None:
            made(handshake, transport)
            for dialling in each._dials:
                dialling.cancel()

        monkeypatch.setattr(tunnels._Handshake, "connection_made", gives_up)
        each.keep_ready(1, None)
        async with asyncio.timeout(WAIT_S):
            while each._dials:
                await asyncio.sleep(0.001)


# Clients of the proxy


@pytest.mark.parametrize("how", ["fin", "close_notify"])
async def test_a_client_that_says_no_more_while_its_answer_streams_left(how: str) -> None:
    puppet = Puppet()
    async with chain(puppet, **CERTIFIED) as c:
        client = await c.connect(tls=client_tls())
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(STREAM_HEAD, chunked(SHORT_STREAM[0]))
        await client.head()
        if how == "fin":
            fileno = os.dup(client.writer.get_extra_info("socket").fileno())
            with socket.socket(fileno=fileno) as plain:
                plain.shutdown(socket.SHUT_WR)
        else:
            client.writer.close()
        await call.gone()
        assert (await c.only_usage())["outcome"] == "client_gone"
        call.over.set()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on the path")
@pytest.mark.parametrize(
    "wish", [b"K\n", b"k\n", b"R\n"], ids=["keys of both", "keys", "another handshake"]
)
async def test_what_openssl_s_client_wishes_harms_nobody(wish: bytes) -> None:
    """TLS 1.3's new keys; the second handshake of TLS 1.2, which is refused."""
    version = "-tls1_2" if wish == b"R\n" else "-tls1_3"
    async with chain(says(stream_answer(SHORT_STREAM)), head_s=WAIT_S, **CERTIFIED) as c:
        program = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"127.0.0.1:{c.proxy.port}", version,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert program.stdin is not None
        assert program.stdout is not None
        async with asyncio.timeout(WAIT_S):
            await program.stdout.readuntil(b"Verify return code")
            program.stdin.write(wish)
            await program.stdout.readuntil(b"RENEGOTIATING" if wish == b"R\n" else b"KEYUPDATE")
            other = await c.connect(tls=client_tls())
            other.send(post(STREAM))
            assert (await other.answer()).complete
            if wish != b"R\n":
                program.stdin.write(get("/health"))
                await program.stdout.readuntil(b"200 OK")
            program.stdin.close()
            await program.communicate()
        other.send(post(STREAM))
        assert (await other.answer()).complete
