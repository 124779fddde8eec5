"""What models cost: prices by version, aliases, coefficients of engines. All held in memory; nothing is computed.

A price is a new version each time it is set, and versions stay: a request keeps the one that it was
admitted under.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Self

from sqlalchemy import Connection, delete, insert, select, update

from filature.answer.pricing import Tariff
from filature.errors import InvalidRequest, NotFound
from filature.store.reader import Reader
from filature.store.schema import aliases, coefficients, tariffs
from filature.store.writer import GroupWriter
from filature.units import BASIS_POINTS_ONE, COEFFICIENT_ONE, NANO_PER_CREDIT, Nano

NAME_CHARS_MAX: Final = 256
PRICE_MAX: Final = 1_000_000 * NANO_PER_CREDIT
"""Nano-credits per million tokens, and per request."""
TOKENS_MAX: Final = 10_000_000
COEFFICIENT_MAX: Final = 1_000_000
TARIFFS_MAX: Final = 10_000
"""Of versions and coefficients in use; above it those made so far are forgotten and made anew."""
ALL_MODELS: Final = "*"


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """One version of a model's price: nano-credits per million tokens of each class, and per request."""

    model: str
    version: int
    """From 1 on; 0 is the settings' price of models that have none of their own."""
    prompt: int
    cached: int
    completion: int
    reasoning: int
    request: int
    fee_bp: int
    """The operator's share of a charge, in basis points."""
    template_tokens: int
    """Held for beside the text of a prompt, for what a chat template adds."""
    media_tokens: int
    """Held for, for each image or audio part."""
    created_ms: int

    def __post_init__(self) -> None:
        """Raises InvalidRequest, which names the number."""
        if not 1 <= len(self.model) <= NAME_CHARS_MAX:
            raise InvalidRequest(
                f"A model's name has 1 to {NAME_CHARS_MAX} characters.", param="model"
            )
        bounds = dict.fromkeys(_PRICES, PRICE_MAX)
        bounds |= {
            "fee_bp": BASIS_POINTS_ONE,
            "template_tokens": TOKENS_MAX,
            "media_tokens": TOKENS_MAX,
        }
        for name, most in bounds.items():
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= most:
                raise InvalidRequest(f"{name} must be 0 to {most}, not {value}.", param=name)


_PRICES: Final = ("prompt", "cached", "completion", "reasoning", "request")


class PriceBook:
    """The prices in force. Changes are done when they are stored."""

    def __init__(self, writer: GroupWriter, wall_ms: Callable[[], int]) -> None:
        self._writer = writer
        self._wall_ms = wall_ms
        self._prices: dict[str, ModelPrice] = {}
        self._versions: dict[str, int] = {}  # the latest, of withdrawn prices too
        self._coefficients: dict[tuple[str, str], int] = {}
        self._tariffs: dict[tuple[str, int, int], Tariff] = {}
        self.aliases: dict[str, str] = {}
        """What clients may call a model, and the model. To be read only."""

    @classmethod
    async def load(cls, reader: Reader, writer: GroupWriter, wall_ms: Callable[[], int]) -> Self:
        book = cls(writer, wall_ms)
        await reader.read(book._read)
        return book

    def _read(self, connection: Connection) -> None:
        query = select(tariffs).order_by(tariffs.c.model, tariffs.c.version)
        for row in connection.execute(query):
            self._versions[row.model] = row.version
            if row.withdrawn_ms is None:
                self._prices[row.model] = _price(row)
            else:
                self._prices.pop(row.model, None)
        for row in connection.execute(select(aliases)):
            self.aliases[row.alias] = row.model
        for row in connection.execute(select(coefficients)):
            self._coefficients[row.engine, row.model] = row.coefficient

    # prices

    def find(self, model: str) -> ModelPrice | None:
        """The price in force; None of a model that has none of its own."""
        return self._prices.get(model)

    def current(self) -> list[ModelPrice]:
        """The prices in force, by model."""
        return [self._prices[model] for model in sorted(self._prices)]

    async def set(  # noqa: PLR0913 - a price has as many numbers
        self,
        model: str,
        *,
        prompt: int,
        cached: int,
        completion: int,
        reasoning: int | None = None,
        request: int = 0,
        fee_bp: int = 0,
        template_tokens: int = 512,
        media_tokens: int = 2048,
    ) -> ModelPrice:
        """A new version of the model's price. Raises InvalidRequest."""
        if model in self.aliases:
            raise InvalidRequest(
                f"{model!r} is an alias of {self.aliases[model]!r}; set that model's price.",
                param="model",
            )
        price = ModelPrice(
            model=model,
            version=self._versions.get(model, 0) + 1,
            prompt=prompt,
            cached=cached,
            completion=completion,
            reasoning=completion if reasoning is None else reasoning,
            request=request,
            fee_bp=fee_bp,
            template_tokens=template_tokens,
            media_tokens=media_tokens,
            created_ms=self._wall_ms(),
        )
        values = {name: getattr(price, name) for name in ModelPrice.__slots__}
        await self._writer.execute(insert(tariffs).values(values))
        self._versions[model] = price.version
        self._prices[model] = price
        return price

    async def withdraw(self, model: str) -> None:
        """The model has no price of its own any more. Raises NotFound when it had none."""
        price = self._prices.get(model)
        if price is None:
            raise NotFound(f"{model!r} has no price.", param="model", code="price_not_found")
        statement = (
            update(tariffs)
            .where(tariffs.c.model == model, tariffs.c.version == price.version)
            .values(withdrawn_ms=self._wall_ms())
        )
        await self._writer.execute(statement)
        del self._prices[model]

    def tariff(self, price: ModelPrice, coefficient: int) -> Tariff:
        """The price at a coefficient; the same object for the same version."""
        key = (price.model, price.version, coefficient)
        tariff = self._tariffs.get(key)
        if tariff is None:
            if len(self._tariffs) >= TARIFFS_MAX:
                self._tariffs.clear()
            tariff = self._tariffs[key] = Tariff(
                prompt=price.prompt,
                cached=price.cached,
                completion=price.completion,
                reasoning=price.reasoning,
                request=price.request,
                coefficient=coefficient,
            )
        return tariff

    # aliases

    async def set_alias(self, alias: str, model: str) -> None:
        """Let clients call ``model`` by ``alias``. Raises InvalidRequest."""
        for name, param in ((alias, "alias"), (model, "model")):
            if not 1 <= len(name) <= NAME_CHARS_MAX:
                raise InvalidRequest(f"{param} has 1 to {NAME_CHARS_MAX} characters.", param=param)
        if alias in self._prices or alias in self.aliases.values():
            raise InvalidRequest(
                f"{alias!r} is a model itself: an alias would hide it.", param="alias"
            )
        if model in self.aliases or model == alias:
            raise InvalidRequest(f"{model!r} is an alias; name the model.", param="model")
        await self._writer.call(lambda connection: _set_alias(connection, alias, model))
        self.aliases[alias] = model

    async def remove_alias(self, alias: str) -> None:
        """Raises NotFound."""
        if alias not in self.aliases:
            raise NotFound(f"There is no alias {alias!r}.", param="alias", code="alias_not_found")
        statement = delete(aliases).where(aliases.c.alias == alias)
        await self._writer.execute(statement)
        del self.aliases[alias]

    # coefficients

    def coefficient(self, engine: str, model: str) -> int:
        """Thousandths by which the price is multiplied when ``engine`` serves ``model``."""
        found = self._coefficients.get((engine, model))
        if found is None:
            found = self._coefficients.get((engine, ALL_MODELS), COEFFICIENT_ONE)
        return found

    def coefficients(self) -> list[tuple[str, str, int]]:
        """Engine, model (``*``: all of them) and coefficient, of those that were set."""
        return [(*place, value) for place, value in sorted(self._coefficients.items())]

    async def set_coefficient(self, engine: str, model: str, coefficient: int) -> None:
        """``model`` may be ``*``. Running requests keep what they were admitted under."""
        if not 0 <= coefficient <= COEFFICIENT_MAX:
            raise InvalidRequest(
                f"coefficient must be 0 to {COEFFICIENT_MAX} thousandths.", param="coefficient"
            )
        await self._writer.call(
            lambda connection: _set_coefficient(connection, engine, model, coefficient)
        )
        self._coefficients[engine, model] = coefficient


def nano_per_million(text: str | int | Decimal, param: str) -> Nano:
    """Credits per million tokens, as a person writes them, in nano-credits. Raises InvalidRequest."""
    try:
        amount = Decimal(text)
    except (InvalidOperation, ValueError):
        raise InvalidRequest(f"{param} must be a number of credits.", param=param) from None
    if not amount.is_finite() or not 0 <= amount * NANO_PER_CREDIT <= PRICE_MAX:
        raise InvalidRequest(f"{param} must be 0 to 1000000 credits.", param=param)
    nano = amount * NANO_PER_CREDIT
    if nano % 1:
        raise InvalidRequest(f"{param} has at most nine decimals.", param=param)
    return Nano(int(nano))


def _price(row: Any) -> ModelPrice:
    return ModelPrice(**{name: getattr(row, name) for name in ModelPrice.__slots__})


def _set_alias(connection: Connection, alias: str, model: str) -> None:
    connection.execute(delete(aliases).where(aliases.c.alias == alias))
    connection.execute(insert(aliases).values(alias=alias, model=model))


def _set_coefficient(connection: Connection, engine: str, model: str, coefficient: int) -> None:
    place = (coefficients.c.engine == engine) & (coefficients.c.model == model)
    connection.execute(delete(coefficients).where(place))
    connection.execute(
        insert(coefficients).values(engine=engine, model=model, coefficient=coefficient)
    )
