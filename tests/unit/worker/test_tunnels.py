"""When a proxy is dialled, and when no more."""

import asyncio
import socket
import ssl
from typing import cast

import pytest

from filature.relay.downstream import Downstream, DownstreamConnection
from filature.worker import tunnels as module
from filature.worker.tunnels import READY_MAX, ProxyAddress, Tunnels


class Nothing:
    """Stands for a side of the relay on which there is no connection."""

    connections: tuple[()] = ()


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Tunnels:
    """Those to a proxy where nobody listens; a pause outlasts any test."""
    monkeypatch.setattr(module, "BACKOFF_S", 600.0)
    monkeypatch.setattr(module, "BACKOFF_MAX_S", 600.0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    address = ProxyAddress.of(f"http://127.0.0.1:{port}", ssl.create_default_context())
    return Tunnels(address, "token", "instance", cast(Downstream, Nothing()))


async def dialled(tunnels: Tunnels, room: int, seen: int | None = None) -> int:
    """How many dials were made, all of which have ended."""
    tunnels.keep_ready(room, seen)
    made = len(tunnels._dials)
    async with asyncio.timeout(5):
        while tunnels._dials:
            await asyncio.sleep(0)
    return made


async def test_dials_that_fail_together_are_one_failure(
    away: Tunnels, caplog: pytest.LogCaptureFixture
) -> None:
    assert await dialled(away, 100) == READY_MAX
    assert away._failures == 1
    assert caplog.text.count("no tunnel to") == 1


async def test_a_failure_is_waited_after_unless_the_proxy_answers_again(away: Tunnels) -> None:
    assert await dialled(away, 1) == 1
    assert await dialled(away, 1) == 0
    away.dial_now()
    assert await dialled(away, 3) == 3
    assert away._failures == 1


class Ready:
    """A connection on which nothing is answered; ``unsent`` bytes of the last answer were not taken."""

    busy = False

    def __init__(self, unsent: int) -> None:
        self.unsent = unsent

    def unsent_bytes(self) -> int:
        return self.unsent


@pytest.mark.parametrize(("unsent", "dials"), [(1, 32), (0, 0)])
async def test_what_the_proxy_does_not_read_keeps_no_other_from_being_dialled(
    away: Tunnels, unsent: int, dials: int
) -> None:
    """It serves slow clients, or the line was lost without a word; but what it merely did not count is bounded."""
    connections = [Ready(unsent) for _ in range(2 * READY_MAX)]
    away.downstream.connections = cast(set[DownstreamConnection], set(connections))
    assert await dialled(away, 64, seen=0) == dials
