"""Who is asked how many tokens a prompt is, and for whom the answer holds."""

from collections.abc import Callable

import pytest
from tests.unit.request.asking import parse

from filature.answer.pricing import Tariff
from filature.proxy import counting
from filature.proxy.counting import WORKERS_ASKED_MAX, count_prompt
from filature.proxy.offer import Offer
from filature.relay.clock import CoarseClock
from filature.relay.engines import Engine, EngineAddress, ServedModel
from filature.relay.limits import RelayLimits
from filature.relay.tokenize import MISUNDERSTANDINGS_MAX
from filature.relay.tunnel import TunnelPool
from filature.request.parse import ParsedRequest
from filature.store.prices import ModelPrice
from filature.wire.dialect import Dialect

NOW = 5.0
ASKED = parse(Dialect.CHAT)
PRICE = ModelPrice("m", 1, 1, 1, 1, 1, 0, 0, 512, 2048, 0)


def engine(name: str, *, remote: bool = True, running: int = 0) -> Engine:
    clock = CoarseClock(lambda: 0.0)
    limits = RelayLimits()
    address = EngineAddress(name, False, "worker", 80, "", {})
    made = Engine(address, clock, limits, pool=TunnelPool(clock, limits) if remote else None)
    made.models["m"] = ServedModel("m", context_length=len(name))
    made.running = running
    return made


def offer(*engines: Engine) -> Offer:
    tariffs = {
        each.name: Tariff(1, 1, 1, 1, coefficient=number) for number, each in enumerate(engines)
    }
    return Offer(PRICE, list(engines), tariffs, None)


class Told:
    """Stands for the question itself: says what each engine counts, and who was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **counts: int) -> None:
        self.counts = counts
        self.asked: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None
        monkeypatch.setattr(counting, "exact_prompt_tokens", self)

    async def __call__(
        self, engine: Engine, model: ServedModel, request: ParsedRequest, timeout_s: float
    ) -> int | None:
        assert 0 < timeout_s <= counting.TOKENIZE_S
        self.asked.append(engine.name)
        self.meanwhile()
        return self.counts.get(engine.name)


async def test_an_engine_of_ones_own_is_asked_first_and_believed_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told(monkeypatch, own=9)
    given = offer(engine("worker"), engine("own", remote=False, running=7))
    counted = await count_prompt(given, ASKED, NOW)
    assert counted is not None
    assert (counted.tokens, counted.offer) == (9, given)
    assert told.asked == ["own"]


async def test_a_workers_count_holds_for_that_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, second=9)
    first, second, third = engine("first"), engine("second", running=1), engine("3", running=2)
    given = offer(third, second, first)
    counted = await count_prompt(given, ASKED, NOW)
    assert counted is not None
    assert told.asked == ["first", "second"]
    assert counted.tokens == 9
    assert counted.offer.engines == [second]
    assert counted.offer.tariffs == {"second": given.tariffs["second"]}
    assert counted.offer.dearest is given.tariffs["second"]
    assert counted.offer.context_length == len("second")
    assert counted.offer.has_remote


async def test_only_the_least_busy_of_those_that_can_be_asked_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told(monkeypatch)
    busy = [engine(f"busy{running}", running=running) for running in range(9, 0, -1)]
    full, aside, unable, gone = map(engine, ("full", "aside", "unable", "gone"))
    full.capacity = 0
    aside.set_aside_until = NOW + 1
    unable.models["m"].abilities.misunderstood = dict.fromkeys(
        ("tokenize messages", "apply-template"), MISUNDERSTANDINGS_MAX
    )
    gone.models.clear()
    given = offer(*busy, full, aside, unable, gone)
    assert await count_prompt(given, ASKED, NOW) is None
    assert told.asked == ["busy1", "busy2", "busy3"]
    assert len(told.asked) == WORKERS_ASKED_MAX


async def test_the_count_of_a_worker_that_left_meanwhile_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told(monkeypatch, left=9, stays=10)
    left, stays = engine("left"), engine("stays", running=1)
    told.meanwhile = left.models.clear
    counted = await count_prompt(offer(left, stays), ASKED, NOW)
    assert counted is not None
    assert (counted.tokens, counted.offer.engines) == (10, [stays])


async def test_all_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, second=9)
    monkeypatch.setattr(counting, "COUNT_S", 0.0)
    assert await count_prompt(offer(engine("first"), engine("second")), ASKED, NOW) is None
    assert told.asked == []
