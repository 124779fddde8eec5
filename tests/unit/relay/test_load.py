"""What others make an engine do: told from our own requests, and heeded in choosing, without being waited for."""

import pytest
from tests.unit.relay.choosing import MANY, Asked, engines_at, router_at

from filature.relay.clock import CoarseClock
from filature.relay.engines import Engine
from filature.relay.routing import PRICE_WINS_S


@pytest.fixture
def clock() -> CoarseClock:
    made = CoarseClock(lambda: 0.0)
    made.now = 1000.0
    return made


@pytest.fixture
def engine(clock: CoarseClock) -> Engine:
    (made,) = engines_at(clock, 1)
    return made


# ours and others'


def test_what_an_engine_tells_beyond_our_own_is_others(engine: Engine) -> None:
    engine.began(1)
    engine.began(4)
    engine.told(12)
    assert (engine.running, engine.elsewhere, engine.load) == (2, 7, 9)
    engine.told(5)
    assert engine.elsewhere == 0
    engine.told(4)  # it has not seen all of them
    assert engine.elsewhere == 0


def test_it_is_forgotten_when_the_engine_tells_it_no_more(engine: Engine) -> None:
    engine.told(3)
    assert engine.elsewhere == 3
    engine.told(None)
    assert engine.elsewhere == 0


def test_what_is_told_late_of_our_own_is_not_others(engine: Engine) -> None:
    """Gauges may stand still after the last answer, and the end of a request be known here first."""
    engine.told(0)
    engine.began(3)
    engine.ended(3)
    assert engine.running == 0
    for _ in range(2):
        engine.told(3)
        assert engine.elsewhere == 0
    engine.told(3)  # by now it cannot be ours
    assert engine.elsewhere == 3


def test_what_runs_for_long_stays_ours(engine: Engine) -> None:
    engine.began(2)
    for _ in range(4):
        engine.told(3)
        assert engine.elsewhere == 1


# which engine


@pytest.mark.parametrize("free", [0, 1])
@pytest.mark.parametrize("capacity", [8, None])
def test_of_equally_dear_ones_that_which_others_use_less_is_taken(
    clock: CoarseClock, free: int, capacity: int | None
) -> None:
    engines = engines_at(clock, 2, capacity=capacity)
    engines[1 - free].told(2)
    engines[free].running = 1
    assert router_at(clock).pick(Asked(engines), []) is engines[free]
    engines[free].running = 3
    assert router_at(clock).pick(Asked(engines), []) is engines[1 - free]


@pytest.mark.parametrize("cheap", [0, 1])
@pytest.mark.parametrize(("others", "wins"), [(1, True), (2, False)])
def test_the_cheaper_one_is_taken_unless_others_keep_it_busy_for_longer(
    clock: CoarseClock, cheap: int, others: int, wins: bool
) -> None:
    engines = engines_at(clock, 2, capacity=None)
    engines[cheap].told(others)
    engines[cheap].mean_s = PRICE_WINS_S
    picked = router_at(clock).pick(Asked(engines, prices={engines[cheap]: 1}), [])
    assert picked is engines[cheap if wins else 1 - cheap]


@MANY
@pytest.mark.parametrize("capacity", [8, None])
def test_what_begins_alike_goes_elsewhere_when_others_take_the_room(
    clock: CoarseClock, count: int, capacity: int | None
) -> None:
    engines = engines_at(clock, count, capacity=capacity)
    router = router_at(clock)
    first = router.pick(Asked(engines, prefix=7), [])
    assert first is not None
    assert router.pick(Asked(engines, prefix=7), []) is first
    first.told(8)
    assert router.pick(Asked(engines, prefix=7), []) is not first


@pytest.mark.parametrize("count", [1, 3, 30])
@pytest.mark.parametrize("prefix", [0, 7])
def test_no_request_waits_because_of_others(clock: CoarseClock, count: int, prefix: int) -> None:
    engines = engines_at(clock, count)
    for engine in engines:
        engine.told(1000)
    for engine in engines[1:]:
        engine.running = 8
    router = router_at(clock)
    for _ in range(3):
        assert router.pick(Asked(engines, prefix=prefix), []) is engines[0]
