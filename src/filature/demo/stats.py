"""What the engine has seen, for tests: that a cancellation reached it, which headers crossed."""

from collections import Counter, deque
from typing import Any, Final

import orjson

HISTORY_MAX: Final = 100
KEYS_MAX: Final = 10_000
"""Keys whose failures are counted; a new one beyond never fails."""


class EngineStats:
    """Counters since the start or the last ``reset``. Requests are those for answers, not those for
    models, health and the like."""

    def __init__(self) -> None:
        self.requests = 0
        self.running = 0
        self.completed = 0
        self.failed = 0
        """Ended by a fault on demand."""
        self.cancelled = 0
        """The peer left before the end."""
        self.refused = 0
        """Answered with an error that was not asked for."""
        self.connections = 0
        """Open now."""
        self.connections_total = 0
        self.history: deque[dict[str, Any]] = deque(maxlen=HISTORY_MAX)
        """The last requests: ``method``, ``path``, ``query``, ``headers`` (names and values), ``body``."""
        self._failures: Counter[str] = Counter()

    def still_fails(self, key: str, times: int | None) -> bool:
        """Whether a request with this key fails, of which the first ``times`` do; counts it."""
        if times is None:
            return True
        if key not in self._failures and len(self._failures) >= KEYS_MAX:
            return False
        self._failures[key] += 1
        return self._failures[key] <= times

    def reset(self) -> None:
        """Forget everything but what runs and is open now."""
        running, connections = self.running, self.connections
        self.__init__()  # type: ignore[misc]  # the same object: others hold it
        self.running, self.connections = running, connections

    def as_json(self) -> bytes:
        counters = (
            "requests",
            "running",
            "completed",
            "failed",
            "cancelled",
            "refused",
            "connections",
            "connections_total",
        )
        told = {name: getattr(self, name) for name in counters}
        shown = [entry | {"body": _body(entry["body"])} for entry in self.history]
        told |= {"last_request": shown[-1] if shown else None, "history": shown}
        return orjson.dumps(told)


def _body(body: bytes) -> Any:
    """JSON as it is, else text."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")
