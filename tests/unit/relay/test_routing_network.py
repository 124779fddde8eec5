"""Routing over 200 simulated workers: load evens out, conversations stay, the cheaper ones serve more."""

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field
from statistics import fmean, pstdev

import pytest
from tests.unit.relay.choosing import SEED, Asked, engines_at

from filature.relay.clock import CoarseClock
from filature.relay.engines import Engine, ServedModel
from filature.relay.routing import Router


@pytest.fixture
def clock() -> CoarseClock:
    made = CoarseClock(lambda: 0.0)
    made.now = 1000.0
    return made


# a network


@dataclass
class Network:
    """Workers that serve requests for some time each; time is made up."""

    clock: CoarseClock
    workers: list[Engine]
    router: Router
    rng: random.Random
    prices: dict[Engine, int] = field(default_factory=dict)
    ends: list[tuple[float, int, float]] = field(default_factory=list)
    served: Counter[Engine] = field(default_factory=Counter)
    turned_away = 0
    places: dict[int, Engine] = field(default_factory=dict)
    repeated = 0
    same = 0

    def run(self, requests: int, *, per_s: float, mean_s: float, talks: int) -> None:
        """``talks``: beginnings of prompts for each model, from which each request draws one."""
        rng = self.rng
        models = sorted({model for worker in self.workers for model in worker.models})
        offers = {m: [w for w in self.workers if m in w.models] for m in models}
        for _ in range(requests):
            self.clock.now += rng.expovariate(per_s)
            self._end()
            number = rng.randrange(len(models))
            prefix = 1 + number * talks + rng.randrange(talks)
            self._ask(offers[models[number]], models[number], prefix, rng.expovariate(1 / mean_s))

    def _end(self) -> None:
        while self.ends and self.ends[0][0] <= self.clock.now:
            _, number, seconds = heapq.heappop(self.ends)
            self.workers[number].running -= 1
            self.workers[number].succeeded(seconds)

    def _ask(self, offer: list[Engine], model: str, prefix: int, seconds: float) -> None:
        place = self.places.get(prefix)
        had_room = place is not None and place.has_room(self.clock.now)
        asked = Asked(offer, prefix=prefix, model=model, prices=self.prices)
        worker = self.router.pick(asked, [])
        if worker is None:
            assert not any(each.has_room(self.clock.now) for each in offer)
            self.turned_away += 1
            return
        if had_room:
            self.repeated += 1
            self.same += worker is place
        self.places[prefix] = worker
        worker.running += 1
        assert worker.capacity is not None
        assert worker.running <= worker.capacity
        assert model in worker.models
        self.served[worker] += 1
        end = self.clock.now + seconds, self.workers.index(worker), seconds
        heapq.heappush(self.ends, end)

    def variation(self) -> float:
        counts = [self.served[worker] for worker in self.workers]
        return pstdev(counts) / fmean(counts)


@pytest.fixture
def network(clock: CoarseClock) -> Network:
    """200 workers of capacity 8, each with 3 of 10 models."""
    rng = random.Random(SEED)
    workers = engines_at(clock, 200)
    for number, worker in enumerate(workers):
        first = number % 10  # each model has as many workers
        worker.models = {f"m{(first + more) % 10}": ServedModel("m") for more in (0, 1, 3)}
    return Network(clock, workers, Router(clock, rng.randrange), rng)


def test_a_network_of_equals_evens_out(network: Network) -> None:
    network.run(20_000, per_s=110, mean_s=10, talks=1_000_000)
    assert network.turned_away == 0
    assert network.variation() < 0.2


def test_a_network_keeps_conversations_where_they_are_cached(network: Network) -> None:
    network.run(20_000, per_s=110, mean_s=10, talks=400)
    assert network.turned_away == 0
    assert network.repeated > 10_000
    assert network.same >= 0.9 * network.repeated
    assert network.variation() < 0.35


def test_a_network_under_more_load_than_it_has_room_for_is_full_and_no_fuller(
    network: Network,
) -> None:
    network.run(20_000, per_s=250, mean_s=10, talks=400)
    assert network.turned_away > 1000
    assert network.same >= 0.9 * network.repeated
    assert max(worker.running for worker in network.workers) == 8
    assert network.variation() < 0.2


def test_in_a_network_cheaper_workers_serve_more(network: Network) -> None:
    cheap = network.workers[::2]
    network.prices = dict.fromkeys(cheap, 900)
    for first in range(10):  # each model has cheap and dear workers
        for worker in network.workers[first * 20 : first * 20 + 20]:
            worker.models = {f"m{first}": ServedModel("m")}
    network.run(20_000, per_s=500, mean_s=0.3, talks=1_000_000)
    theirs = sum(network.served[worker] for worker in cheap)
    assert theirs > 1.5 * (network.served.total() - theirs)
