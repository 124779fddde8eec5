"""Which engine a request goes to, by price, load and the beginning of its prompt."""

import random
from collections import OrderedDict
from collections.abc import Callable

import pytest
from tests.unit.relay.choosing import MANY, SEED, Asked, Looked, drawn, engines_at, router_at

from filature.errors import Unavailable
from filature.relay.clock import CoarseClock
from filature.relay.engines import Engine, ServedModel
from filature.relay.routing import DRAWS_MAX, PLACES_MAX, PRICE_WINS_S, SCAN_MAX, Router


@pytest.fixture
def clock() -> CoarseClock:
    made = CoarseClock(lambda: 0.0)
    made.now = 1000.0
    return made


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
    assert Router(clock, drawn(*numbers, count=10)).pick(Asked(engines), []) is engines[7]
    engines[7].running = 2
    assert Router(clock, drawn(*numbers, count=10)).pick(Asked(engines), []) is engines[3]


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


def test_forgetting_the_oldest_beginning_costs_the_same_however_many_there_are(
    clock: CoarseClock,
) -> None:
    """A plain dict would pass over all those forgotten before: twenty times a choice's cost, once it is full."""
    assert isinstance(router_at(clock)._places, OrderedDict)


@MANY
def test_a_choice_looks_at_few_engines(clock: CoarseClock, count: int) -> None:
    engines = Looked(engines_at(clock, count))
    draws = 0
    random_number = random.Random(SEED).random

    def draw() -> float:
        nonlocal draws
        draws += 1
        return random_number()

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
    picked = Router(clock, drawn(*numbers, count=count)).pick(Asked(engines), [])
    assert picked is not None
    assert picked.running == 0
    assert engines.looks == DRAWS_MAX + count
