"""Which engine a request goes to, by price, load and the beginning of its prompt."""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import SupportsIndex

import pytest

from filature.errors import Unavailable
from filature.relay.clock import CoarseClock
from filature.relay.engines import Engine, EngineAddress, ServedModel
from filature.relay.limits import RelayLimits
from filature.relay.routing import DRAWS_MAX, PLACES_MAX, PRICE_WINS_S, SCAN_MAX, Router

SEED = 20261
MANY = pytest.mark.parametrize("count", [10, 200])


class Asked:
    """A request, as far as a choice looks at it."""

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        prefix: int = 0,
        model: str = "m",
        prices: dict[Engine, int] | None = None,
    ) -> None:
        self.engines = engines
        self.prefix = prefix
        self.model = model
        self.prices = prices or {}

    def allows(self, engine: Engine) -> bool:
        return engine in list(self.engines)

    def coefficient(self, engine: Engine) -> int:
        return self.prices.get(engine, 1000)


class Looked(list[Engine]):
    """Counts how many of it were looked at."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        super().__init__(engines)
        self.looks = 0

    def __getitem__(self, index: SupportsIndex | slice) -> Engine:  # type: ignore[override]
        self.looks += 1
        assert not isinstance(index, slice)
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Engine]:
        for engine in super().__iter__():
            self.looks += 1
            yield engine


@pytest.fixture
def clock() -> CoarseClock:
    made = CoarseClock(lambda: 0.0)
    made.now = 1000.0
    return made


def engines_at(
    clock: CoarseClock, count: int, *, capacity: int | None = 8, models: Sequence[str] = ("m",)
) -> list[Engine]:
    made = []
    for number in range(count):
        address = EngineAddress.parse(f"http://engine-{number}:8000")
        engine = Engine(address, clock, RelayLimits())
        engine.capacity = capacity
        engine.models = {model: ServedModel(model) for model in models}
        made.append(engine)
    return made


def router_at(clock: CoarseClock) -> Router:
    return Router(clock, random.Random(SEED).randrange)


def drawn(*numbers: int) -> Callable[[int], int]:
    """Those numbers in turn and no more; as a number below ``count`` each."""
    left = iter(numbers)
    return lambda count: next(left) % count


# price and load


@pytest.mark.parametrize("count", [2, SCAN_MAX])
def test_the_cheapest_is_taken_however_the_engines_are_ordered(
    clock: CoarseClock, count: int
) -> None:
    router = router_at(clock)
    for cheap in range(count):
        engines = engines_at(clock, count)
        asked = Asked(engines, prices={engines[cheap]: 999})
        assert router.pick(asked, []) is engines[cheap]


@pytest.mark.parametrize("cheap", [0, 1])
@pytest.mark.parametrize(("more_s", "wins"), [(-5.0, True), (0.0, True), (0.1, False)])
def test_the_cheaper_one_is_taken_unless_it_is_busy_for_longer(
    clock: CoarseClock, cheap: int, more_s: float, wins: bool
) -> None:
    engines = engines_at(clock, 2, capacity=None)
    busy, idle = engines[cheap], engines[1 - cheap]
    idle.running, idle.mean_s = 1, 1.0
    busy.running, busy.mean_s = 2, (1.0 + PRICE_WINS_S + more_s) / 2
    if busy.mean_s < 0:  # it is the other that is busy for long
        busy.running, busy.mean_s, idle.mean_s = 0, 0.0, PRICE_WINS_S - more_s
    picked = router_at(clock).pick(Asked(engines, prices={busy: 1}), [])
    assert picked is (busy if wins else idle)


@pytest.mark.parametrize("cheap", [0, 1])
def test_one_with_much_room_is_not_busy(clock: CoarseClock, cheap: int) -> None:
    """Answers that run side by side do not wait for each other."""
    engines = engines_at(clock, 2, capacity=64)
    engines[cheap].running, engines[cheap].mean_s = 10, 5.0
    picked = router_at(clock).pick(Asked(engines, prices={engines[cheap]: 999}), [])
    assert picked is engines[cheap]
    engines[cheap].running = 20
    picked = router_at(clock).pick(Asked(engines, prices={engines[cheap]: 999}), [])
    assert picked is engines[1 - cheap]


@pytest.mark.parametrize("free", [0, 1])
def test_of_equally_dear_ones_the_less_busy_one_is_taken(clock: CoarseClock, free: int) -> None:
    for capacity in (8, None):
        engines = engines_at(clock, 2, capacity=capacity)
        engines[1 - free].running = 1
        assert router_at(clock).pick(Asked(engines), []) is engines[free]


@pytest.mark.parametrize("large", [0, 1])
def test_busy_is_measured_by_an_engine_s_own_capacity(clock: CoarseClock, large: int) -> None:
    engines = engines_at(clock, 2, capacity=4)
    engines[large].capacity = 64
    engines[large].running, engines[1 - large].running = 31, 2
    assert router_at(clock).pick(Asked(engines), []) is engines[large]
    engines[large].running = 33
    assert router_at(clock).pick(Asked(engines), []) is engines[1 - large]


@pytest.mark.parametrize("fast", [0, 1])
def test_of_equally_busy_ones_the_faster_one_is_taken(clock: CoarseClock, fast: int) -> None:
    engines = engines_at(clock, 2)
    for engine in engines:
        engine.running, engine.mean_s = 2, 3.0
    engines[fast].mean_s = 2.9
    assert router_at(clock).pick(Asked(engines), []) is engines[fast]


@pytest.mark.parametrize("numbers", [(3, 7), (7, 3), (3, 3, 7)])
def test_of_many_two_are_drawn_and_the_better_one_taken(
    clock: CoarseClock, numbers: tuple[int, ...]
) -> None:
    engines = engines_at(clock, 10)
    engines[3].running = 1
    assert Router(clock, drawn(*numbers)).pick(Asked(engines), []) is engines[7]
    engines[7].running = 2
    assert Router(clock, drawn(*numbers)).pick(Asked(engines), []) is engines[3]


# those that cannot be asked


@pytest.mark.parametrize("count", [1, 3, 30])
def test_when_all_are_full_there_is_none_now(clock: CoarseClock, count: int) -> None:
    engines = engines_at(clock, count, capacity=2)
    router = router_at(clock)
    for engine in engines:
        engine.running = 2
    assert router.pick(Asked(engines), []) is None
    engines[-1].running = 1
    assert router.pick(Asked(engines), []) is engines[-1]


def test_one_that_said_it_is_full_is_not_asked_until_then(clock: CoarseClock) -> None:
    (engine,) = engines = engines_at(clock, 1, capacity=None)
    engine.full_until = clock.now + 0.5
    assert router_at(clock).pick(Asked(engines), []) is None
    clock.now += 0.5
    assert router_at(clock).pick(Asked(engines), []) is engine


@pytest.mark.parametrize("count", [1, 3, 30])
def test_when_all_were_tried_none_is_left(clock: CoarseClock, count: int) -> None:
    engines = engines_at(clock, count)
    router = router_at(clock)
    tried: list[Engine] = []
    for _ in range(count):
        picked = router.pick(Asked(engines), tried)
        assert picked is not None
        tried.append(picked)
    assert set(tried) == set(engines)
    with pytest.raises(Unavailable, match="'m'"):
        router.pick(Asked(engines), tried)


def test_one_that_is_full_is_left_where_the_others_were_tried(clock: CoarseClock) -> None:
    engines = engines_at(clock, 2, capacity=1)
    engines[0].running = 1
    assert router_at(clock).pick(Asked(engines), engines[1:]) is None


@pytest.mark.parametrize("count", [3, 30])
def test_one_that_no_longer_serves_the_model_is_not_asked(clock: CoarseClock, count: int) -> None:
    engines = engines_at(clock, count)
    for engine in engines[1:]:
        engine.models = {"other": ServedModel("other")}
    router = router_at(clock)
    engines[0].running = 7
    assert router.pick(Asked(engines), []) is engines[0]
    with pytest.raises(Unavailable):
        router.pick(Asked(engines), engines[:1])


@pytest.mark.parametrize("count", [2, 30])
@pytest.mark.parametrize("prefix", [0, 7])
def test_one_that_failed_of_late_is_asked_last(clock: CoarseClock, count: int, prefix: int) -> None:
    engines = engines_at(clock, count)
    well = engines[-1]
    for engine in engines[:-1]:
        engine.failed(clock.now)
    well.running = 7
    # neither price nor load nor what is cached counts for as much
    asked = Asked(engines, prefix=prefix, prices={well: 5000})
    router = router_at(clock)
    for _ in range(3):
        assert router.pick(asked, []) is well
    for engine in engines[1:-1]:
        engine.running = 1
    assert router.pick(asked, [well]) is engines[0]  # among them load decides again


def test_but_no_longer_than_it_is_set_aside(clock: CoarseClock) -> None:
    engines = engines_at(clock, 2)
    engines[0].failed(clock.now)
    asked = Asked(engines, prices={engines[0]: 1})
    router = router_at(clock)
    assert router.pick(asked, []) is engines[1]
    clock.now = engines[0].set_aside_until
    assert router.pick(asked, []) is engines[0]


# beginnings of prompts


@MANY
def test_what_begins_alike_goes_to_the_same_engine_while_it_has_room(
    clock: CoarseClock, count: int
) -> None:
    engines = engines_at(clock, count, capacity=3)
    router = router_at(clock)
    first = router.pick(Asked(engines, prefix=7), [])
    assert first is not None
    cheap = {engine: 1 for engine in engines if engine is not first}
    for _ in range(3):
        assert router.pick(Asked(engines, prefix=7, prices=cheap), []) is first
        first.running += 1
    second = router.pick(Asked(engines, prefix=7), [])
    assert second is not None
    assert second is not first
    first.running = 0
    assert router.pick(Asked(engines, prefix=7), []) is second  # it is cached there now


def leave_nothing(engine: Engine) -> None:
    engine.models = {}


def fail(engine: Engine) -> None:
    engine.set_aside_until = 2000.0


def say_full(engine: Engine) -> None:
    engine.full_until = 2000.0


@pytest.mark.parametrize("change", [leave_nothing, fail, say_full])
@pytest.mark.parametrize("count", [2, 10])
def test_and_elsewhere_when_that_cannot_be_asked(
    clock: CoarseClock, change: Callable[[Engine], None], count: int
) -> None:
    engines = engines_at(clock, count)
    router = router_at(clock)
    first = router.pick(Asked(engines, prefix=7), [])
    assert first is not None
    assert router.pick(Asked(engines, prefix=7), []) is first
    change(first)
    second = router.pick(Asked(engines, prefix=7), [])
    assert second is not None
    assert second is not first


@pytest.mark.parametrize("count", [3, 10])
def test_and_elsewhere_when_that_is_gone_too_dear_or_was_tried(
    clock: CoarseClock, count: int
) -> None:
    engines = engines_at(clock, count)
    for without, tried in ((True, False), (False, True)):
        router = router_at(clock)
        first = router.pick(Asked(engines, prefix=7), [])
        assert first is not None
        others = [engine for engine in engines if engine is not first]
        asked = Asked(others if without else engines, prefix=7)
        assert router.pick(asked, [first] if tried else []) in others


def test_without_a_prefix_nothing_is_remembered(clock: CoarseClock) -> None:
    engines = engines_at(clock, 2)
    router = router_at(clock)
    first = router.pick(Asked(engines), [])
    assert first is not None
    first.running = 1
    assert router.pick(Asked(engines), []) is not first


@MANY
def test_where_room_is_not_known_the_same_engine_only_while_none_is_less_busy(
    clock: CoarseClock, count: int
) -> None:
    engines = engines_at(clock, count, capacity=None)
    router = router_at(clock)
    first = router.pick(Asked(engines, prefix=7), [])
    assert first is not None
    for engine in engines:
        engine.running = 5
    assert router.pick(Asked(engines, prefix=7), []) is first
    others = [engine for engine in engines if engine is not first]
    others[-1].running = 4
    first.running = 6
    assert router.pick(Asked(engines, prefix=7), []) is not first


def test_only_the_latest_beginnings_are_remembered(clock: CoarseClock) -> None:
    engines = engines_at(clock, 2)
    router = router_at(clock)
    kept, forgotten = 1, 2
    first = router.pick(Asked(engines, prefix=kept), [])
    assert first is router.pick(Asked(engines, prefix=forgotten), [])
    assert first is not None
    first.running = 1  # a new beginning goes to the other one
    for prefix in range(3, PLACES_MAX + 1):
        router.pick(Asked(engines, prefix=prefix), [])
    assert len(router._places) == PLACES_MAX
    assert router.pick(Asked(engines, prefix=kept), []) is first  # and is the latest now
    for prefix in range(PLACES_MAX + 1, PLACES_MAX + 10):
        router.pick(Asked(engines, prefix=prefix), [])
    assert len(router._places) == PLACES_MAX
    assert router.pick(Asked(engines, prefix=kept), []) is first
    assert router.pick(Asked(engines, prefix=forgotten), []) is not first


# what a choice costs


@MANY
def test_a_choice_looks_at_few_engines(clock: CoarseClock, count: int) -> None:
    engines = Looked(engines_at(clock, count))
    draws = 0
    random_number = random.Random(SEED).randrange

    def draw(below: int) -> int:
        nonlocal draws
        draws += 1
        assert below == count
        return random_number(below)

    router = Router(clock, draw)
    for number in range(500):
        before = draws, engines.looks
        picked = router.pick(Asked(engines, prefix=number % 100 and number), [])
        assert picked is not None
        picked.running = (picked.running + 1) % 5
        assert draws - before[0] <= DRAWS_MAX
        assert engines.looks - before[1] <= DRAWS_MAX
    assert draws >= 1000


@MANY
def test_and_at_all_when_the_drawn_ones_cannot_be_asked(clock: CoarseClock, count: int) -> None:
    engines = Looked(engines_at(clock, count))
    for engine in engines[0], engines[1]:
        engine.running = 8
    numbers = [0, 1] * (DRAWS_MAX // 2)
    engines.looks = 0
    picked = Router(clock, drawn(*numbers)).pick(Asked(engines), [])
    assert picked is not None
    assert picked.running == 0
    assert engines.looks == DRAWS_MAX + count


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
