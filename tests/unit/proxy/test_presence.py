"""How long a worker was ready and idle, and what it refused, by its heartbeats."""

from pathlib import Path

import pytest
from sqlalchemy import text

from filature.errors import StoreError
from filature.proxy.presence import Presence, Seen
from filature.relay.clock import CoarseClock
from filature.relay.engines import Engine, EngineAddress
from filature.relay.limits import RelayLimits
from filature.store.availability import WorkerDay
from filature.store.store import Store

DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS


@pytest.fixture
def engine() -> Engine:
    address = EngineAddress("gpu", False, "worker", 80, "", {})
    return Engine(address, CoarseClock(lambda: 0.0), RelayLimits())


async def test_what_heartbeats_add_up_to(database_url: str, engine: Engine) -> None:
    now_ms = NOW_MS
    store = await Store.open(database_url, lambda: now_ms)
    presence = Presence(store.worker_days, lambda: now_ms)

    def heard(seen: Seen | None, now: float, *, is_ready: bool = True) -> Seen:
        return presence.heard("gpu", engine, seen, now, is_ready=is_ready)

    seen = heard(None, 100.0, is_ready=False)
    seen = heard(seen, 105.0)  # it was not ready before
    seen = heard(seen, 110.0)  # idle
    engine.asked += 1
    seen = heard(seen, 115.0)  # a request came and went
    engine.running = 1
    seen = heard(seen, 120.0)  # one runs
    engine.running, engine.refused = 0, 3
    seen = heard(seen, 125.0)
    await presence.store()
    assert await store.worker_days.list("gpu", 0) == [
        WorkerDay("gpu", 20_000, ready_ms=20_000, idle_ms=10_000, refused=3)
    ]
    heard(seen, 130.0)
    now_ms += DAY_MS
    heard(seen, 126.0)
    await presence.store()
    await presence.store()  # nothing is added twice
    assert await store.worker_days.list("gpu", 0) == [
        WorkerDay("gpu", 20_000, ready_ms=25_000, idle_ms=15_000, refused=3),
        WorkerDay("gpu", 20_001, ready_ms=1000, idle_ms=1000, refused=0),
    ]
    assert [each.day for each in await store.worker_days.list("gpu", 20_001)] == [20_001]
    assert await store.worker_days.list("another", 0) == []
    await store.close()


async def test_what_could_not_be_stored_is_kept(tmp_path: Path, engine: Engine) -> None:
    store = await Store.open(f"sqlite:///{tmp_path}/f.db", lambda: NOW_MS)
    presence = Presence(store.worker_days, lambda: NOW_MS)
    seen = presence.heard("gpu", engine, None, 0.0, is_ready=True)
    seen = presence.heard("gpu", engine, seen, 5.0, is_ready=True)
    await store.writer.call(lambda c: c.execute(text("ALTER TABLE worker_days RENAME TO away")))
    with pytest.raises(StoreError):
        await presence.store()
    await store.writer.call(lambda c: c.execute(text("ALTER TABLE away RENAME TO worker_days")))
    presence.heard("gpu", engine, seen, 6.0, is_ready=True)
    await presence.store()
    assert await store.worker_days.list("gpu", 0) == [WorkerDay("gpu", 20_000, 6000, 6000, 0)]
    await store.close()
