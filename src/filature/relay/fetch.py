"""One small request to an engine, awaited: for the control plane, never for a client's answer."""

import asyncio
from typing import Final

from filature.relay.http1 import ResponseHead
from filature.relay.upstream import UpstreamConnection, UpstreamPool

FETCHED_BYTES_MAX: Final = 8 * 1024 * 1024


class FetchError(Exception):
    """No answer, or one that is too long."""

    def with_ca(self, option: str) -> str:
        """What it says; of a certificate that is not known also by which option it is made known."""
        text = str(self)
        return f"{text}: see {option}" if "CERTIFICATE_VERIFY_FAILED" in text else text


async def fetch(
    pool: UpstreamPool, request: bytes, *, timeout_s: float, bytes_max: int = FETCHED_BYTES_MAX
) -> tuple[int, bytes]:
    """Status and body. Raises FetchError; never waits longer than ``timeout_s`` seconds."""
    call = _Fetch(bytes_max)
    pool.send(call, request)
    try:
        async with asyncio.timeout(timeout_s):
            return await call.done
    except TimeoutError:
        raise FetchError(f"no answer within {timeout_s:g} s") from None
    finally:
        if not call.ended:
            pool.cancel(call)
            if call.connection is not None:
                call.connection.cancel()


class _Fetch:
    def __init__(self, bytes_max: int) -> None:
        self.done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self.connection: UpstreamConnection | None = None
        self.ended = False
        self._status = 0
        self._body = bytearray()
        self._bytes_max = bytes_max

    def on_connected(self, connection: UpstreamConnection) -> None:
        self.connection = connection

    def on_head(self, head: ResponseHead) -> None:
        self._status = head.status

    def on_payload(self, payload: bytes, raw: bytes | None) -> None:
        self._body += payload
        if len(self._body) > self._bytes_max and not self.done.done():
            self.done.set_exception(FetchError("the answer is too long"))

    def on_end(self) -> None:
        self.ended = True
        if not self.done.done():
            self.done.set_result((self._status, bytes(self._body)))

    def on_lost(self, reason: str, *, ours: bool = False) -> None:
        self.ended = True
        if not self.done.done():
            self.done.set_exception(FetchError(reason))

    def on_silent(self) -> bool:
        return False
