"""What models cost: prices by version, aliases, coefficients of engines. All held in memory; nothing is computed.

A price is a new version each time it is set, and versions stay: a request keeps the one that it was
admitted under.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from sqlalchemy import Connection, delete, func, insert, select, update

from filature.answer.pricing import Tariff
from filature.errors import InvalidRequest, NotFound
from filature.store.reader import Reader
from filature.store.schema import aliases, coefficients, tariffs
from filature.store.writer import GroupWriter
from filature.units import BASIS_POINTS_ONE, COEFFICIENT_ONE, NANO_PER_CREDIT

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
        _check_name(self.model, "model")
        bounds = dict.fromkeys(_PRICES, PRICE_MAX)
        bounds |= {
            "fee_bp": BASIS_POINTS_ONE,
            "template_tokens": TOKENS_MAX,
            "media_tokens": TOKENS_MAX,
        }
        for name, most in bounds.items():
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= most:
                said = f"{most}, not {value}"
                if name in _PRICES:
                    said = f"{most // NANO_PER_CREDIT} credits"
                raise InvalidRequest(f"{name} must be 0 to {said}.", param=name)


_PRICES: Final = ("prompt", "cached", "completion", "reasoning", "request")


class PriceBook:
    """The prices in force. Changes are done when they are stored, one after another.

    Where one raises StoreError it may still be stored later, and would then be in force from the
    next start on: make it again.
    """

    def __init__(self, writer: GroupWriter, wall_ms: Callable[[], int]) -> None:
        self._writer = writer
        self._wall_ms = wall_ms
        self._changing = (
            asyncio.Lock()
        )  # what a change was checked against holds until it is stored
        self.in_force: dict[str, ModelPrice] = {}
        """By model, of those that have a price of their own. To be read only."""
        self._coefficients: dict[tuple[str, str], int] = {}
        self._tariffs: dict[tuple[str, int, int], Tariff] = {}
        self.aliases: dict[str, str] = {}
        """What clients may call a model, and the model. To be read only."""
        self.changes = 0
        """Grows with each change of what is in force."""

    @classmethod
    async def load(cls, reader: Reader, writer: GroupWriter, wall_ms: Callable[[], int]) -> Self:
        book = cls(writer, wall_ms)
        await reader.read(book._read)
        return book

    def _read(self, connection: Connection) -> None:
        query = select(tariffs).order_by(tariffs.c.model, tariffs.c.version)
        for row in connection.execute(query):
            if row.withdrawn_ms is None:
                self.in_force[row.model] = price_of(row)
            else:
                self.in_force.pop(row.model, None)
        for row in connection.execute(select(aliases)):
            self.aliases[row.alias] = row.model
        for row in connection.execute(select(coefficients)):
            self._coefficients[row.engine, row.model] = row.coefficient

    # prices

    def current(self) -> list[ModelPrice]:
        """The prices in force, by model."""
        return [self.in_force[model] for model in sorted(self.in_force)]

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
        wanted = ModelPrice(
            model=model,
            version=1,
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
        async with self._changing:
            if model in self.aliases:
                raise InvalidRequest(
                    f"{model!r} is an alias of {self.aliases[model]!r}; set that model's price.",
                    param="model",
                )
            price = await self._writer.call(lambda connection: _insert_price(connection, wanted))
            self.in_force[model] = price
            self.changes += 1
        return price

    async def withdraw(self, model: str) -> None:
        """The model has no price of its own any more. Raises NotFound when it had none."""
        async with self._changing:
            if model not in self.in_force:
                raise NotFound(f"{model!r} has no price.", param="model", code="price_not_found")
            now_ms = self._wall_ms()
            await self._writer.call(lambda connection: _withdraw(connection, model, now_ms))
            del self.in_force[model]
            self.changes += 1

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
        _check_name(alias, "alias")
        _check_name(model, "model")
        async with self._changing:
            if alias in self.in_force or alias in self.aliases.values():
                raise InvalidRequest(
                    f"{alias!r} is a model itself: an alias would hide it.", param="alias"
                )
            if model in self.aliases or model == alias:
                raise InvalidRequest(f"{model!r} is an alias; name the model.", param="model")
            await self._writer.call(lambda connection: _set_alias(connection, alias, model))
            self.aliases[alias] = model
            self.changes += 1

    async def remove_alias(self, alias: str) -> None:
        """Raises NotFound."""
        async with self._changing:
            if alias not in self.aliases:
                raise NotFound(
                    f"There is no alias {alias!r}.", param="alias", code="alias_not_found"
                )
            await self._writer.execute(delete(aliases).where(aliases.c.alias == alias))
            del self.aliases[alias]
            self.changes += 1

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
        _check_name(engine, "engine")
        _check_name(model, "model")
        if not 0 <= coefficient <= COEFFICIENT_MAX:
            raise InvalidRequest(
                f"coefficient must be 0 to {COEFFICIENT_MAX} thousandths.", param="coefficient"
            )
        async with self._changing:
            await self._writer.call(
                lambda connection: _set_coefficient(connection, engine, model, coefficient)
            )
            self._coefficients[engine, model] = coefficient
            self.changes += 1


def _check_name(name: str, param: str) -> None:
    if not (1 <= len(name) <= NAME_CHARS_MAX and name.isprintable()):
        raise InvalidRequest(
            f"{param} must be 1 to {NAME_CHARS_MAX} printable characters.", param=param
        )


def _insert_price(connection: Connection, price: ModelPrice) -> ModelPrice:
    """Under the version after the latest, be that withdrawn or one that nobody was told of."""
    latest = select(func.max(tariffs.c.version)).where(tariffs.c.model == price.model)
    version = connection.execute(latest).scalar_one()
    price = replace(price, version=1 if version is None else version + 1)
    values = {name: getattr(price, name) for name in ModelPrice.__slots__}
    connection.execute(insert(tariffs).values(values))
    return price


def _withdraw(connection: Connection, model: str, now_ms: int) -> None:
    latest = select(func.max(tariffs.c.version)).where(tariffs.c.model == model)
    place = (tariffs.c.model == model) & (tariffs.c.version == latest.scalar_subquery())
    connection.execute(update(tariffs).where(place).values(withdrawn_ms=now_ms))


def price_of(row: Any) -> ModelPrice:
    """Of a row of ``tariffs``."""
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
