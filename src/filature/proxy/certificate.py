"""The proxy's own certificate: read at the start, and again when its files are others, as after it was renewed."""

import asyncio
import getpass
import logging
import ssl
import sys
from pathlib import Path
from typing import Final

from filature.relay.tls_listener import TlsListener

LOOK_S: Final = 30.0
"""Between two looks at the files."""

log = logging.getLogger(__name__)


class Certificate:
    """A chain and its key, both PEM. ``context`` is for connections that come."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises OSError, which an ``ssl.SSLError`` is."""
        self._cert = cert
        self._key = key
        self._asked: str | None = None
        self._clients: list[ssl.SSLContext] = []
        self._seen = self._stamps()
        self.context = self._load()

    async def follow(self, listener: TlsListener) -> None:
        """Have ``listener`` greet with what the files hold. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if await asyncio.to_thread(self.renew):  # a disk may hang
                listener.context = self.context

    def renew(self) -> bool:
        """Whether ``context`` is another now.

        Files that do not fit each other, as while they are being written, change nothing.
        """
        try:
            seen = self._stamps()
            if seen == self._seen:
                return False
            self._seen = seen
            context = self._load()
            for client in self._clients:
                client.load_verify_locations(self._cert)
        except OSError as error:
            log.warning("the certificate stays the one that was read before: %s", error)
            return False
        self.context = context
        log.info("the certificate was read again")
        return True

    def client_context(self) -> ssl.SSLContext:
        """Trusts this certificate, and those that it is renewed to, whatever name is in it."""
        context = ssl.create_default_context(cafile=self._cert)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # also where another has signed it
        self._clients.append(context)
        return context

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._cert, self._key, self._passphrase)
        return context

    def _stamps(self) -> list[tuple[int, int, int]]:
        stats = [path.stat() for path in (self._cert, self._key)]
        return [(stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats]

    def _passphrase(self) -> str:
        """Of an encrypted key, as OpenSSL would ask for it; it would fail without a word where nobody can be asked."""
        if self._asked is None:
            if not sys.stdin.isatty():
                raise ssl.SSLError(
                    0,
                    "the key has a passphrase, and there is no terminal to ask for it: `openssl pkey -in KEY -out NEW` "
                    "takes it off",
                )
            self._asked = getpass.getpass("Passphrase of the TLS key: ")
        return self._asked
