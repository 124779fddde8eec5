"""A network of workers in made-up time, for tests of routing and its benchmark: who serves what, for how long."""

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Protocol

from tests.unit.relay.choosing import SEED, Asked, engines_at

from filature.relay.clock import CoarseClock
from filature.relay.engines import Engine, ServedModel
from filature.relay.routing import Router

MODELS = 10


class Chooses(Protocol):
    """A router, or what stands before one."""

    def pick(self, wanted: Asked, tried: list[Engine]) -> Engine | None: ...


class Offer:
    """Who serves a model."""

    def __init__(self, model: str, workers: list[Engine]) -> None:
        self.model = model
        self.workers = workers
        self.allowed = frozenset(workers)


@dataclass
class Network:
    """Workers that serve requests for some time each; time is made up."""

    clock: CoarseClock
    workers: list[Engine]
    router: Chooses
    rng: random.Random
    prices: dict[Engine, int] = field(default_factory=dict)
    ends: list[tuple[float, int, float]] = field(default_factory=list)
    served: Counter[Engine] = field(default_factory=Counter)
    turned_away = 0
    places: dict[int, Engine] = field(default_factory=dict)
    again = 0  # beginnings that were served before
    back = 0  # of these, on the same worker
    repeated = 0  # those whose worker had room
    same = 0

    def run(self, requests: int, *, per_s: float, mean_s: float, talks: int) -> None:
        """``talks``: beginnings of prompts for each model, from which each request draws one."""
        rng = self.rng
        models = sorted({model for worker in self.workers for model in worker.models})
        offers = {m: Offer(m, [w for w in self.workers if m in w.models]) for m in models}
        for _ in range(requests):
            self.clock.now += rng.expovariate(per_s)
            self._end()
            number = rng.randrange(len(models))
            prefix = 1 + number * talks + rng.randrange(talks)
            self._ask(offers[models[number]], prefix, rng.expovariate(1 / mean_s))

    def _end(self) -> None:
        while self.ends and self.ends[0][0] <= self.clock.now:
            _, number, seconds = heapq.heappop(self.ends)
            self.workers[number].running -= 1
            self.workers[number].succeeded(seconds)

    def _ask(self, offer: Offer, prefix: int, seconds: float) -> None:
        place = self.places.get(prefix)
        had_room = place is not None and place.has_room(self.clock.now)
        asked = Asked(
            offer.workers,
            prefix=prefix,
            model=offer.model,
            prices=self.prices,
            allowed=offer.allowed,
        )
        worker = self.router.pick(asked, [])
        if worker is None:
            assert not any(each.has_room(self.clock.now) for each in offer.workers)
            self.turned_away += 1
            return
        if place is not None:
            self.again += 1
            self.back += worker is place
        if had_room:
            self.repeated += 1
            self.same += worker is place
        self.places[prefix] = worker
        worker.running += 1
        assert worker.capacity is not None
        assert worker.running <= worker.capacity
        assert offer.model in worker.models
        self.served[worker] += 1
        end = self.clock.now + seconds, self.workers.index(worker), seconds
        heapq.heappush(self.ends, end)

    def variation(self) -> float:
        counts = [self.served[worker] for worker in self.workers]
        return pstdev(counts) / fmean(counts)


def network_of(workers: int) -> Network:
    """Workers of capacity 8, each with 3 of the models; of a multiple of MODELS each model has as many."""
    clock = CoarseClock(lambda: 0.0)
    clock.now = 1000.0
    rng = random.Random(SEED)
    engines = engines_at(clock, workers)
    for number, engine in enumerate(engines):
        first = number % MODELS
        engine.models = {f"m{(first + more) % MODELS}": ServedModel("m") for more in (0, 1, 3)}
    return Network(clock, engines, Router(clock, rng.random), rng)
