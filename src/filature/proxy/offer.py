"""What a model costs a caller at one moment, and from whom. Made by ``admission``, kept by what it admits."""

from filature.answer.pricing import Tariff
from filature.relay.engines import Engine
from filature.request.quote import PromptRules
from filature.store.prices import ModelPrice


class Offer:
    """What a model costs now: engines that may be asked at a coefficient that is accepted, each with its tariff.

    ``own``: the same without the workers of the network; None where nothing is left then.
    """

    __slots__ = (
        "context_length",
        "dearest",
        "engines",
        "has_remote",
        "own",
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
        self.own: Offer | None = None

    def only(self, engine: Engine) -> "Offer":
        """The same from one engine and no other."""
        name = engine.name
        length = engine.models[self.price.model].context_length
        return Offer(self.price, [engine], {name: self.tariffs[name]}, length)


def _coefficient(tariff: Tariff) -> int:
    return tariff.coefficient
