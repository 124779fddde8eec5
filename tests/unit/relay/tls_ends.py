"""What is below, above and opposite of a ``TlsTransport``, all in memory: what happens is only what a test does."""

import asyncio
import hmac
import ssl
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self, cast

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from filature.relay.tls import TlsTransport

TLS: Final = Path(__file__).parents[2] / "data" / "tls"
VERSIONS: Final = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
LATEST: Final = ssl.TLSVersion.TLSv1_3


@cache
def server_tls(version: ssl.TLSVersion = LATEST) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    context.maximum_version = version
    return context


@cache
def client_tls(version: ssl.TLSVersion = LATEST) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(TLS / "cert.pem"))
    context.maximum_version = version
    return context


class Plain(asyncio.Transport):
    """Below: the loop's plain transport, as strict as uvloop's. ``calls`` are in order, what was written among them."""

    def __init__(self, tls: TlsTransport) -> None:
        super().__init__()
        self.tls = tls
        self.calls: list[str | bytes] = []
        self.waiting = 0  # bytes that the kernel did not take
        self.closed = False
        self.over = False

    def write(self, data: Any) -> None:
        assert not self.over, "uvloop raises here"
        self.calls.append(bytes(data))

    def close(self) -> None:
        self._leave("close")

    def abort(self) -> None:
        self._leave("abort")

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.calls.append(f"limits {high} {low}")

    def lose(self, error: Exception | None = None) -> None:
        """The connection is over, as the loop tells it: once."""
        if not self.over:
            self.closed = self.over = True
            self.tls.connection_lost(error)

    def end(self) -> None:
        """The other side's FIN."""
        if not self.closed and not self.tls.eof_received():
            self.close()

    def _leave(self, how: str) -> None:
        if not self.closed:
            self.closed = True
            self.calls.append(how)
            asyncio.get_running_loop().call_soon(self.lose)


class Heard(asyncio.Protocol):
    """Above: what the protocol heard, in order. ``on_data`` does what a test wants done with what came."""

    def __init__(self) -> None:
        self.events: list[str | bytes] = []
        self.on_data: Callable[[bytes], None] = lambda _: None

    @property
    def data(self) -> bytes:
        return b"".join(event for event in self.events if isinstance(event, bytes))

    @property
    def told(self) -> list[str]:
        """What was not data."""
        return [event for event in self.events if isinstance(event, str)]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append("made")
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.events.append(data)
        self.on_data(data)

    def eof_received(self) -> bool | None:
        self.events.append("eof")
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")

    def pause_writing(self) -> None:
        self.events.append("full")

    def resume_writing(self) -> None:
        self.events.append("empty")


class Peer:
    """Opposite: the standard library's TLS."""

    def __init__(self, context: ssl.SSLContext, *, server: bool, name: str = "localhost") -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server,
            server_hostname=None if server else name,
        )

    def shake(self) -> None:
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError:
            """It waits for what comes next."""

    def sent(self) -> bytes:
        """All that it has to say to the other side."""
        return self._outgoing.read()

    def says(self, *messages: bytes) -> bytes:
        """``messages`` as records, of at most 16 KiB each."""
        for message in messages:
            view = memoryview(message)
            while view:
                view = view[self.session.write(view) :]
        return self.sent()

    def ends(self) -> bytes:
        """TLS's own end."""
        try:
            self.session.unwrap()
        except ssl.SSLWantReadError:
            """The other side's has not come."""
        return self.sent()

    def takes(self, data: bytes) -> None:
        self._incoming.write(data)

    def reads(self) -> tuple[bytes, bool]:
        """What was said to it so far, and whether TLS's end came behind."""
        said = b""
        try:
            while part := self.session.read(65_536):
                said += part
        except ssl.SSLWantReadError:
            return said, False
        except ssl.SSLZeroReturnError:
            """Both have said their end."""
        return said, True


class Ends:
    """A connection with its handshake begun; ``shaken`` ends that."""

    def __init__(
        self, *, server: bool, version: ssl.TLSVersion = LATEST, name: str = "localhost"
    ) -> None:
        self.heard = Heard()
        context = server_tls(version) if server else client_tls(version)
        self.tls = TlsTransport(self.heard, context, server_hostname=None if server else name)
        self.plain = Plain(self.tls)
        other = client_tls(version) if server else server_tls(version)
        self.peer = Peer(other, server=not server)
        self._told = 0
        self.tls.connection_made(self.plain)

    def receive(self, data: bytes, *cuts: int) -> None:
        """Let ``data`` come, in as many reads as there are ``cuts`` and one more."""
        places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        for start, end in pairwise(places):
            if not self.plain.closed:
                self.tls.data_received(data[start:end])

    def tell_peer(self) -> None:
        """Give the other side what was written meanwhile."""
        new, self._told = self.plain.calls[self._told :], len(self.plain.calls)
        self.peer.takes(b"".join(call for call in new if isinstance(call, bytes)))

    def shaken(self, *cuts: int) -> Self:
        for _ in range(3):
            self.tell_peer()
            self.peer.shake()
            self.receive(self.peer.sent(), *cuts)
        self.tell_peer()
        assert self.heard.events == ["made"]
        self.plain.calls.clear()
        self._told = 0
        return self

    def pausing(self) -> Self:
        """The protocol above stops reading at each piece that it is given."""
        self.heard.on_data = lambda _: self.tls.pause_reading()
        return self


class Keys:
    """One side's keys of TLS 1.3 with AES-256-GCM (RFC 8446, 7), for records that Python's TLS does not make."""

    def __init__(self, secret: bytes) -> None:
        self._change_to(secret)

    @classmethod
    def of_client(cls, key_log: Path) -> Self:
        """Of the one connection whose secrets a context's ``keylog_filename`` tells."""
        lines = (line.split(" ") for line in key_log.read_text().splitlines())
        (secret,) = (parts[2] for parts in lines if parts[0] == "CLIENT_TRAFFIC_SECRET_0")
        return cls(bytes.fromhex(secret))

    def wish(self) -> bytes:
        """A KeyUpdate that wants the other side's keys changed, too; the next one is by new keys."""
        body = b"\x18\x00\x00\x01\x01\x16"
        head = b"\x17\x03\x03" + (len(body) + 16).to_bytes(2, "big")
        record = head + self._aead.encrypt(self._nonce, body, head)
        self._change_to(self._derived(b"traffic upd", 48))
        return record

    def _change_to(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = AESGCM(self._derived(b"key", 32))
        self._nonce = self._derived(b"iv", 12)  # of the first record; there is no second one

    def _derived(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\x00\x01"
        return hmac.new(self._secret, info, "sha384").digest()[:size]
