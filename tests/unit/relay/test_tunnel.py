"""How long a request waits for a worker's next connection."""

import pytest
from tests.unit.relay.test_upstream import Wire

from filature.relay.clock import CoarseClock
from filature.relay.http1 import ResponseHead
from filature.relay.limits import RelayLimits
from filature.relay.tunnel import TUNNEL_WAIT_MAX_S, TUNNEL_WAIT_S, TunnelPool
from filature.relay.upstream import UpstreamConnection


class Waiting:
    """A request without a connection."""

    outcome = "waits"

    def on_connected(self, connection: UpstreamConnection) -> None:
        self.outcome = "sent"

    def on_head(self, head: ResponseHead) -> None: ...
    def on_payload(self, payload: bytes, raw: bytes | None) -> None: ...
    def on_end(self) -> None: ...

    def on_lost(self, reason: str, *, ours: bool = False) -> None:
        self.outcome = reason

    def on_silent(self) -> bool:
        return False


class Pool:
    """One whose time is a test's."""

    def __init__(self) -> None:
        self.clock = CoarseClock(lambda: 0.0)
        self.tunnels = TunnelPool(self.clock, RelayLimits())

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.tunnels._tick(self.clock.now)

    def connect(self) -> None:
        self.tunnels.attach(Wire())


@pytest.fixture
def pool() -> Pool:
    return Pool()


def ask(pool: Pool, number: int) -> list[Waiting]:
    callers = [Waiting() for _ in range(number)]
    for caller in callers:
        pool.tunnels.send(caller, b"ask")
    return callers


def test_who_waits_in_vain_is_lost(pool: Pool) -> None:
    (caller,) = ask(pool, 1)
    pool.pass_time(TUNNEL_WAIT_S - 0.1)
    assert caller.outcome == "waits"
    pool.pass_time(0.2)
    assert caller.outcome == "the worker opened no connection within 2 s"


def test_while_connections_come_more_are_waited_for(pool: Pool) -> None:
    """A worker far away opens them by the batch, and is none the worse for it."""
    callers = ask(pool, 4)
    for _ in range(3):
        pool.pass_time(TUNNEL_WAIT_S - 0.1)
        pool.connect()
    assert [caller.outcome for caller in callers] == ["sent", "sent", "sent", "waits"]
    pool.pass_time(TUNNEL_WAIT_S + 0.1)
    assert callers[3].outcome == "the worker opened no connection within 8 s"


def test_nobody_waits_for_ever_while_others_are_served(pool: Pool) -> None:
    callers = ask(pool, 100)
    waited_s = 0.0
    while callers[-1].outcome == "waits":
        pool.pass_time(1.0)
        waited_s += 1.0
        pool.connect()
    assert waited_s == TUNNEL_WAIT_MAX_S
    assert callers[8].outcome == "sent"
