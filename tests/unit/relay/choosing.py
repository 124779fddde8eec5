"""What the tests of routing share: requests as a choice sees them, engines, a router without chance."""

import random
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import SupportsIndex

import pytest

from filature.relay.clock import CoarseClock
from filature.relay.engines import Engine, EngineAddress, ServedModel
from filature.relay.limits import RelayLimits
from filature.relay.routing import Router
from filature.wire.dialect import Dialect

SEED = 20261
MANY = pytest.mark.parametrize("count", [10, 200])


class Asked:
    """A request, as far as a choice looks at it. ``allowed``: the set of ``engines``, where it is at hand."""

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        prefix: int = 0,
        model: str = "m",
        dialect: Dialect = Dialect.CHAT,
        prices: dict[Engine, int] | None = None,
        allowed: AbstractSet[Engine] | None = None,
    ) -> None:
        self.engines = engines
        self.prefix = prefix
        self.model = model
        self.dialect = dialect
        self.prices = prices or {}
        self._allowed = allowed

    def allows(self, engine: Engine) -> bool:
        return engine in (list(self.engines) if self._allowed is None else self._allowed)

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
    return Router(clock, random.Random(SEED).random)


def drawn(*numbers: int, count: int) -> Callable[[], float]:
    """Of ``count`` engines those, in turn and no more."""
    left = iter(numbers)
    return lambda: (next(left) + 0.5) / count
