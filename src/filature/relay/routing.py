"""Which engine a request goes to: the beginning of its prompt, load and price decide. Nothing is sent here.

What begins like an earlier request goes where that went, while there is room: the engine has its beginning
cached. Where room is not known (one's own engines), it does while no other is less busy. Otherwise two are
drawn at random and the better one is taken, so that a choice among thousands costs as much as one among ten;
a handful are all looked at.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from filature.errors import Unavailable
from filature.relay.clock import CoarseClock
from filature.relay.engines import Engine
from filature.relay.settlement import Wanted

SCAN_MAX: Final = 4
"""So many engines are all compared."""
DRAWS_MAX: Final = 8
"""For two that can be asked; then all are looked at."""
PRICE_WINS_S: Final = 1.0
"""The cheaper one is taken unless it is expected to be busy for so much longer."""
PLACES_MAX: Final = 65_536
"""Beginnings of prompts that are remembered, the latest."""


class Router:
    """Chooses engines. ``draw`` gives a random number from 0 up to 1, which is not included."""

    def __init__(self, clock: CoarseClock, draw: Callable[[], float]) -> None:
        self._clock = clock
        self._draw = draw
        # ordered: a dict's first key is found by passing over all that were deleted before it
        self._places: OrderedDict[int, Engine] = OrderedDict()  # the latest used last

    def pick(self, wanted: Wanted, tried: list[Engine]) -> Engine | None:
        """An engine that was not tried, one that failed of late only when there is no other; None: all are full.

        Raises Unavailable when none is left that was not tried.
        """
        now = self._clock.now
        prefix = wanted.prefix
        engines = wanted.engines
        few = len(engines) <= SCAN_MAX
        if prefix and len(engines) > 1:
            place = self._places.pop(prefix, None)
            if place is not None and wanted.allows(place):
                self._places[prefix] = place
                if _is_well(place, wanted, tried, now) and _is_not_crowded(place, engines):
                    return place
        best = None if few else self._draw_two(wanted, tried, now)
        if best is None:
            best = self._scan(wanted, tried, now)
        if best is not None and prefix and len(engines) > 1:
            places = self._places
            places.pop(prefix, None)
            if len(places) >= PLACES_MAX:
                places.popitem(last=False)
            places[prefix] = best
        return best

    def _draw_two(self, wanted: Wanted, tried: list[Engine], now: float) -> Engine | None:
        engines = wanted.engines
        count = len(engines)
        first: Engine | None = None
        for _ in range(DRAWS_MAX):
            engine = engines[int(self._draw() * count)]
            if engine is first or not _is_well(engine, wanted, tried, now):
                continue
            if first is None:
                first = engine
            else:
                return _better(first, engine, wanted)
        return first

    @staticmethod
    def _scan(wanted: Wanted, tried: list[Engine], now: float) -> Engine | None:
        best: Engine | None = None
        aside: Engine | None = None  # the best of those that failed of late
        is_left = is_full = False
        for engine in wanted.engines:
            if wanted.model not in engine.models or engine in tried:
                continue
            is_left = True
            if _is_aside(engine, wanted, now):
                if not engine.has_room(now):
                    continue
                aside = engine if aside is None else _better(aside, engine, wanted)
            elif engine.has_room(now):
                best = engine if best is None else _better(best, engine, wanted)
            else:
                is_full = True  # worth waiting for
        if not is_left:
            raise Unavailable(f"Every engine that serves {wanted.model!r} failed on this request.")
        return aside if best is None and not is_full else best


def _is_well(engine: Engine, wanted: Wanted, tried: list[Engine], now: float) -> bool:
    """Whether it can be asked, and did not fail of late."""
    return (
        wanted.model in engine.models
        and not _is_aside(engine, wanted, now)
        and engine.has_room(now)
        and engine not in tried
    )


def _is_aside(engine: Engine, wanted: Wanted, now: float) -> bool:
    """Whether it failed of late, or does not have what is asked for."""
    if engine.set_aside_until > now:
        return True
    lacks = engine.lacks
    return bool(lacks) and lacks.get(wanted.dialect, 0.0) > now


def _is_not_crowded(place: Engine, engines: Sequence[Engine]) -> bool:
    """Where room is known others leave it some; another engine has to be among the least busy."""
    load = place.load
    if place.capacity is not None:
        return load < place.capacity
    return all(engine.load >= load for engine in engines)


def _expected_wait_s(engine: Engine) -> float:
    """How much longer an answer takes for those that are running: as many at once as there is room for."""
    return engine.load * engine.mean_s / (engine.capacity or 1)


def _better(first: Engine, second: Engine, wanted: Wanted) -> Engine:
    """The cheaper one, or the one that is sooner done where the difference is large or they cost the same."""
    wait = _expected_wait_s(first) - _expected_wait_s(second)
    if -PRICE_WINS_S <= wait <= PRICE_WINS_S:
        dearer = wanted.coefficient(first) - wanted.coefficient(second)
        if dearer:
            return second if dearer > 0 else first
    if first.capacity is not None and second.capacity is not None:
        # the fuller one by its own measure, where both have one
        fuller = first.load * second.capacity - second.load * first.capacity
        if fuller:
            return second if fuller > 0 else first
    elif first.load != second.load:
        return second if first.load > second.load else first
    return second if wait > 0 else first
