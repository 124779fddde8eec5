"""Prices over HTTP: set, withdrawn and imported; aliases; coefficients of engines."""

from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection, select

from filature.admin.amounts import amount_of, needed_amount
from filature.admin.models import Listed, NameInPath, Removed
from filature.admin.price_models import (
    AliasAsked,
    AliasShown,
    CoefficientAsked,
    CoefficientShown,
    ImportAsked,
    ImportShown,
    NamedAliasAsked,
    PriceAsked,
    PriceShown,
)
from filature.admin.workers import Registry
from filature.errors import FilatureError, InvalidRequest, NotFound
from filature.store.prices import ALL_MODELS, COEFFICIENT_MAX, ModelPrice, price_of
from filature.store.schema import tariffs
from filature.store.store import Store

_VERSION_PARTS = ("version", "created_ms", "model")


class Prices:
    """The routes of ``/prices``, ``/aliases`` and ``/coefficients``. ``registry`` None: no proxy runs."""

    def __init__(self, store: Store, registry: Registry | None) -> None:
        self._book = store.prices
        self._tokens = store.worker_tokens
        self._registry = registry
        self._reader = store.reader

    def router(self) -> APIRouter:
        router = APIRouter(tags=["prices"])
        router.add_api_route("/prices", self.index, methods=["GET"])
        router.add_api_route("/prices/import", self.import_, methods=["POST"])
        router.add_api_route("/prices/{model:path}", self.show, methods=["GET"])
        router.add_api_route("/prices/{model:path}", self.set, methods=["PUT"])
        router.add_api_route("/prices/{model:path}", self.withdraw, methods=["DELETE"])
        router.add_api_route("/aliases", self.aliases, methods=["GET"])
        router.add_api_route("/aliases/{alias:path}", self.set_alias, methods=["PUT"])
        router.add_api_route("/aliases/{alias:path}", self.remove_alias, methods=["DELETE"])
        router.add_api_route("/coefficients", self.coefficients, methods=["GET"])
        router.add_api_route("/coefficients", self.set_coefficient, methods=["PUT"])
        return router

    # prices

    async def index(self) -> Listed[PriceShown]:
        """The prices in force, by model."""
        return Listed(data=[PriceShown.of(price) for price in self._book.current()])

    async def show(self, model: NameInPath) -> Listed[PriceShown]:
        """All versions of a model's price, the latest first; a withdrawn one says when it was."""

        def versions(connection: Connection) -> "list[PriceShown]":
            query = select(tariffs).where(tariffs.c.model == model)
            rows = connection.execute(query.order_by(tariffs.c.version.desc()))
            return [PriceShown.of(price_of(row), row.withdrawn_ms) for row in rows]

        data = await self._reader.read(versions)
        if not data:
            raise NotFound(f"{model!r} has no price.", param="model", code="price_not_found")
        return Listed(data=data)

    async def set(self, model: NameInPath, asked: PriceAsked) -> PriceShown:
        """A new version of the model's price, for requests that are admitted from now on."""
        return PriceShown.of(await self._book.set(model, **_amounts(asked)))

    async def withdraw(self, model: NameInPath) -> Removed:
        """The model has no price of its own any more."""
        await self._book.withdraw(model)
        return Removed(id=model)

    async def import_(self, asked: ImportAsked) -> ImportShown:
        """Many prices, aliases and coefficients. All are looked at before the first is set.

        Prices that are what they were make no new version. What is not named stays.
        """
        wanted = self._checked(asked)
        changed, unchanged = [], []
        for price in wanted:
            current = self._book.in_force.get(price.model)
            if current is not None and _content(current) == _content(price):
                unchanged.append(price.model)
            else:
                await self._book.set(price.model, **_content(price))
                changed.append(price.model)
        for alias in asked.aliases:
            await self._book.set_alias(alias.alias, alias.model)
        for each in asked.coefficients:
            await self._book.set_coefficient(each.engine, each.model, each.coefficient)
        doubts = [self._doubt(each.engine, each.model) for each in asked.coefficients]
        return ImportShown(
            set=changed,
            unchanged=unchanged,
            aliases=len(asked.aliases),
            coefficients=len(asked.coefficients),
            warnings=[each for each in doubts if each is not None],
        )

    def _checked(self, asked: ImportAsked) -> "list[ModelPrice]":
        """The prices of an import of which nothing will be refused. Raises InvalidRequest."""
        wanted = {}
        for number, each in enumerate(asked.prices):
            try:
                amounts = _amounts(each)
                price = ModelPrice(model=each.model, version=1, created_ms=0, **amounts)
            except FilatureError as error:
                param = f"prices.{number}.{error.param}"
                raise InvalidRequest(f"{each.model}: {error.message}", param=param) from None
            if each.model in wanted:
                raise InvalidRequest(
                    f"{each.model} is there twice.", param=f"prices.{number}.model"
                )
            wanted[each.model] = price
        aliases = self._book.aliases | {each.alias: each.model for each in asked.aliases}
        models = {price.model for price in self._book.current()} | wanted.keys()
        _check_aliases(asked.aliases, aliases, models)
        for number, coefficient in enumerate(asked.coefficients):
            if not 0 <= coefficient.coefficient <= COEFFICIENT_MAX:
                raise InvalidRequest(
                    f"coefficient must be 0 to {COEFFICIENT_MAX} thousandths.",
                    param=f"coefficients.{number}.coefficient",
                )
        return [*wanted.values()]

    # aliases

    async def aliases(self) -> Listed[AliasShown]:
        named = sorted(self._book.aliases.items())
        return Listed(data=[AliasShown(alias=alias, model=model) for alias, model in named])

    async def set_alias(self, alias: NameInPath, asked: AliasAsked) -> AliasShown:
        """Let clients call a model by this name."""
        await self._book.set_alias(alias, asked.model)
        return AliasShown(alias=alias, model=asked.model)

    async def remove_alias(self, alias: NameInPath) -> Removed:
        await self._book.remove_alias(alias)
        return Removed(id=alias)

    # coefficients

    async def coefficients(self) -> Listed[CoefficientShown]:
        """Those that were set; of all others it is 1000."""
        data = [
            CoefficientShown(engine=engine, model=model, coefficient=value)
            for engine, model, value in self._book.coefficients()
        ]
        return Listed(data=data)

    async def set_coefficient(self, asked: CoefficientAsked) -> CoefficientShown:
        """What prices are multiplied by where this engine serves."""
        await self._book.set_coefficient(asked.engine, asked.model, asked.coefficient)
        return CoefficientShown(
            engine=asked.engine,
            model=asked.model,
            coefficient=asked.coefficient,
            warning=self._doubt(asked.engine, asked.model),
        )

    def _doubt(self, engine: str, model: str) -> str | None:
        """Why a coefficient may have no effect: it is set all the same, for an engine may come later."""
        if any(token.worker == engine for token in self._tokens.list()):
            return f"{engine} is a worker: it names a coefficient of its own, and this one is not used."
        engines = None if self._registry is None else self._registry.own_engines()
        if engines is None:
            if not engine.startswith(("http://", "https://")):
                return f"No engine has the name {engine!r}: names are URLs as given by --engine."
            if model != ALL_MODELS and self._book.in_force.get(model) is None:
                return f"{model!r} has no price of its own: is it a name that engines know?"
            return None
        if engine not in engines:
            there = ", ".join(sorted(engines)) or "none"
            return f"The proxy has no engine {engine!r} now. Those that it has: {there}."
        served = engines[engine]
        if model != ALL_MODELS and served and model not in served:
            there = ", ".join(sorted(served))
            return f"{engine} does not serve {model!r} now. What it serves: {there}."
        return None


def _amounts(asked: PriceAsked) -> dict[str, Any]:
    """The arguments of ``PriceBook.set``. Raises InvalidRequest."""
    prompt = needed_amount(asked.prompt, asked.prompt_nano, "prompt")
    completion = needed_amount(asked.completion, asked.completion_nano, "completion")
    cached = amount_of(asked.cached, asked.cached_nano, "cached")
    reasoning = amount_of(asked.reasoning, asked.reasoning_nano, "reasoning")
    return {
        "prompt": prompt,
        "cached": prompt if cached is None else cached,
        "completion": completion,
        "reasoning": completion if reasoning is None else reasoning,
        "request": amount_of(asked.request, asked.request_nano, "request") or 0,
        "fee_bp": asked.fee_bp,
        "template_tokens": asked.template_tokens,
        "media_tokens": asked.media_tokens,
    }


def _content(price: ModelPrice) -> dict[str, Any]:
    """All but the name and what makes it a version."""
    names = (name for name in ModelPrice.__slots__ if name not in _VERSION_PARTS)
    return {name: getattr(price, name) for name in names}


def _check_aliases(asked: list[NamedAliasAsked], aliases: dict[str, str], models: set[str]) -> None:
    """No alias hides a model that is priced or aliased, and none names another alias."""
    targets = set(aliases.values())
    for number, each in enumerate(asked):
        if each.alias in models or each.alias in targets:
            raise InvalidRequest(
                f"{each.alias!r} is a model itself: an alias would hide it.",
                param=f"aliases.{number}.alias",
            )
        if each.model in aliases:
            raise InvalidRequest(
                f"{each.model!r} is an alias; name the model.", param=f"aliases.{number}.model"
            )
    for model in models & aliases.keys():
        raise InvalidRequest(
            f"{model!r} is an alias of {aliases[model]!r}; set that model's price.", param="prices"
        )
