"""Adds up how long each worker is ready, how long idle, and what it refuses; by its heartbeats."""

from collections.abc import Callable

from filature.relay.engines import Engine
from filature.store.availability import WorkerDay, WorkerDays
from filature.units import DAY_MS


class Seen:
    """What a worker's engine had counted at its last heartbeat."""

    __slots__ = ("asked", "at", "refused", "was_ready")

    def __init__(self, engine: Engine, now: float, *, is_ready: bool) -> None:
        self.at = now
        self.asked = engine.asked
        self.refused = engine.refused
        self.was_ready = is_ready


class Presence:
    """Of all workers, since it was stored last."""

    def __init__(self, days: WorkerDays, wall_ms: Callable[[], int]) -> None:
        self._stored = days
        self._wall_ms = wall_ms
        self._days: dict[tuple[str, int], WorkerDay] = {}

    def heard(
        self, worker: str, engine: Engine, seen: Seen | None, now: float, *, is_ready: bool
    ) -> Seen:
        """A heartbeat, after the one that left ``seen``. Idle is a time in which nothing ran and nothing was asked."""
        if seen is not None:
            day = self._day(worker)
            day.refused += engine.refused - seen.refused
            if seen.was_ready:
                passed_ms = round((now - seen.at) * 1000)
                day.ready_ms += passed_ms
                if engine.asked == seen.asked and not engine.running:
                    day.idle_ms += passed_ms
        return Seen(engine, now, is_ready=is_ready)

    async def store(self) -> None:
        """Raises StoreError; then it is kept, for the next time."""
        days, self._days = self._days, {}
        try:
            await self._stored.add(days.values())
        except BaseException:
            for key, day in days.items():
                later = self._days.setdefault(key, WorkerDay(*key))
                later.ready_ms += day.ready_ms
                later.idle_ms += day.idle_ms
                later.refused += day.refused
            raise

    def _day(self, worker: str) -> WorkerDay:
        key = (worker, self._wall_ms() // DAY_MS)
        return self._days.setdefault(key, WorkerDay(*key))
