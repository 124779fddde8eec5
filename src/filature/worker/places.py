"""How many requests a worker answers, over all proxies, and could still take; how busy its engines are."""

from filature.relay.engines import EngineDirectory
from filature.relay.waiting import WaitingRoom
from filature.worker.terms import Terms


class Places:
    """As many as the terms say; ``draining``: it takes none any more."""

    def __init__(self, engines: EngineDirectory, waiting: WaitingRoom, terms: Terms) -> None:
        self._engines = engines
        self._waiting = waiting
        self._terms = terms
        self.draining = False

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        running = self._waiting.count
        for engine in self._engines.engines:
            running += engine.running
        return running

    @property
    def load(self) -> int:
        """Answers that are being made or waited for, for all proxies and whoever else asks the engines."""
        load = self._waiting.count
        for engine in self._engines.engines:
            load += engine.answers + engine.elsewhere
        return load

    def free(self) -> int:
        """How many more could be; below zero where the capacity was lowered meanwhile."""
        return 0 if self.draining else self._terms.max_requests - self.running
