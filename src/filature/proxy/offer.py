"""What a model costs a caller at one moment, and from whom. Made by ``admission``, kept by what it admits."""

from filature.answer.pricing import Tariff
from filature.errors import InvalidRequest
from filature.relay.engines import Engine
from filature.request.allowance import Allowance
from filature.request.boundary import check_boundary
from filature.request.parse import ParsedRequest
from filature.request.quote import PromptRules
from filature.store.prices import ModelPrice


class Offer:
    """What a model costs now: engines that may be asked at a coefficient that is accepted, each with its tariff."""

    __slots__ = (
        "context_length",
        "dearest",
        "engines",
        "has_remote",
        "price",
        "rules",
        "tariffs",
    )

    def __init__(
        self,
        price: ModelPrice,
        engines: list[Engine],
        tariffs: dict[str, Tariff],
        context_length: int | None,
    ) -> None:
        self.price = price
        self.rules = PromptRules(price.template_tokens, media_tokens=price.media_tokens)
        self.engines = engines
        self.tariffs = tariffs
        self.dearest = max(tariffs.values(), key=_coefficient)
        self.context_length = context_length
        self.has_remote = any(engine.is_remote for engine in engines)

    def of(self, engines: list[Engine]) -> "Offer":
        """The same from some of its engines."""
        tariffs = {engine.name: self.tariffs[engine.name] for engine in engines}
        return Offer(self.price, engines, tariffs, context_length(engines, self.price.model))

    def taking(self, request: ParsedRequest) -> "Offer | None":
        """The same from those that take a request which does not keep the boundary's rules; None: nobody does."""
        takes: dict[int, bool] = {}
        engines: list[Engine] = []
        for engine in self.engines:
            allowance = engine.allowance
            if engine.is_remote and allowance is not None:
                if id(allowance) not in takes:
                    takes[id(allowance)] = _takes(request, allowance)
                if not takes[id(allowance)]:
                    continue
            elif engine.is_remote:
                continue
            engines.append(engine)
        return self.of(engines) if engines else None


def context_length(engines: list[Engine], model: str) -> int | None:
    """The longest that one of them has; None where one does not tell."""
    longest = 0
    for engine in engines:
        served = engine.models.get(model)
        if served is None:
            continue  # it stopped serving it a moment ago
        if served.context_length is None:
            return None
        longest = max(longest, served.context_length)
    return longest or None


def _takes(request: ParsedRequest, allowance: Allowance) -> bool:
    try:
        check_boundary(request, allowance)
    except InvalidRequest:
        return False
    return True


def _coefficient(tariff: Tariff) -> int:
    return tariff.coefficient
