"""Commits that happen when a test says so, and time that passes when it says so. Beside ``harness.py``."""

import asyncio
from contextlib import suppress

from tests.integration.accounts import store_of
from tests.integration.harness import Answer, Call, Chain, Client, Puppet
from tests.integration.messages import LAST_CHUNK, STREAM_HEAD, chunked, delta

from filature.store.batch import Batch

TEXT = [delta("a"), delta("b", finish="stop")]
"""A chat stream's events, but for the end mark."""


class Gate:
    """Keeps the ledger's batches from being written until ``commit``."""

    def __init__(self, c: Chain) -> None:
        self._writer = store_of(c).writer
        self._held: list[Batch] = []
        self._writer._write = self._keep  # type: ignore[method-assign]  # a test's

    def _keep(self, batch: Batch, *, again: bool) -> None:
        self._held.append(batch)

    async def settled(self) -> None:
        """Wait until something is to be committed."""
        async with asyncio.timeout(5):
            while not self._held:
                await asyncio.sleep(0.001)

    def commit(self) -> None:
        """Commit, and from here on at once."""
        del self._writer._write
        for batch in self._held:
            self._writer._write(batch, again=False)


def later(c: Chain, seconds: float) -> None:
    """Let the deadlines of all connections look at a clock that went on by so much."""
    for connection in tuple(c.proxy.downstream.connections):
        connection.on_deadline(c.proxy._clock.now + seconds)


async def arrived(client: Client, for_s: float = 0.05) -> bytes:
    """All that is on the wire now."""
    data = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            while piece := await client.reader.read(1 << 16):
                data += piece
    return data


async def rest_of(client: Client, before: bytes) -> Answer:
    """The answer that began with ``before``."""
    client.reader._buffer[:0] = before  # type: ignore[attr-defined]  # put back what was looked at
    return await client.answer()


async def asked(c: Chain, puppet: Puppet, request: bytes, *answer: bytes) -> tuple[Client, Call]:
    """A client whose engine has said its whole answer."""
    client = await c.connect()
    client.send(request)
    call = await puppet.call()
    call.end(*answer)
    return client, call


def streamed(*events: bytes) -> tuple[bytes, ...]:
    return (STREAM_HEAD, *map(chunked, events), LAST_CHUNK)
