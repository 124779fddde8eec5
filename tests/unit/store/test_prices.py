"""Prices by version, aliases and coefficients: what is refused, what stays, and the same after a restart."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select
from tests.unit.store.working import NOW_MS

from filature.errors import InvalidRequest, NotFound, StoreError
from filature.store import prices
from filature.store.prices import (
    COEFFICIENT_MAX,
    NAME_CHARS_MAX,
    PRICE_MAX,
    TOKENS_MAX,
    ModelPrice,
    PriceBook,
)
from filature.store.schema import tariffs
from filature.store.store import Store
from filature.units import BASIS_POINTS_ONE

QWEN = "Qwen/Qwen3-8B"


@pytest.fixture
def book(store: Store) -> PriceBook:
    return store.prices


async def reread(store: Store) -> PriceBook:
    """The prices as a process that starts now reads them."""
    return await PriceBook.load(store.reader, store.writer, lambda: NOW_MS)


async def priced(book: PriceBook, model: str = QWEN, **more: int) -> ModelPrice:
    return await book.set(model, **({"prompt": 200, "cached": 20, "completion": 800} | more))


class TestVersions:
    async def test_reasoning_costs_what_the_completion_does(self, book: PriceBook) -> None:
        assert await priced(book) == ModelPrice(
            model=QWEN,
            version=1,
            prompt=200,
            cached=20,
            completion=800,
            reasoning=800,
            request=0,
            fee_bp=0,
            template_tokens=512,
            media_tokens=2048,
            created_ms=NOW_MS,
        )
        assert (await priced(book, reasoning=0)).reasoning == 0

    async def test_each_price_is_a_new_version_and_none_changes(self, store: Store) -> None:
        book = store.prices
        first = await priced(book)
        second = await priced(book, completion=900)
        assert (first.version, second.version) == (1, 2)
        assert (first.completion, book.in_force.get(QWEN)) == (800, second)
        query = select(tariffs.c.version, tariffs.c.completion).order_by(tariffs.c.version)
        stored = await store.reader.read(lambda c: c.execute(query).all())
        assert [tuple(row) for row in stored] == [(1, 800), (2, 900)]

    async def test_models_have_versions_of_their_own(self, book: PriceBook) -> None:
        await priced(book)
        assert (await priced(book, "a")).version == 1
        assert [price.model for price in book.current()] == [QWEN, "a"]
        assert book.in_force.get("b") is None

    async def test_a_restart_keeps_what_is_in_force(self, store: Store) -> None:
        await priced(store.prices)
        names = ("prompt", "cached", "completion", "reasoning", "request")
        most: dict[str, Any] = dict.fromkeys(names, PRICE_MAX)
        most |= {"template_tokens": TOKENS_MAX, "media_tokens": TOKENS_MAX}
        price = await priced(store.prices, **most, fee_bp=BASIS_POINTS_ONE)
        assert (await reread(store)).current() == [price]

    async def test_a_withdrawn_price_is_not_in_force_and_its_version_not_used_again(
        self, store: Store
    ) -> None:
        await priced(store.prices)
        await priced(store.prices)
        await store.prices.withdraw(QWEN)
        assert store.prices.in_force.get(QWEN) is None
        again = await reread(store)
        assert again.current() == []
        price = await priced(again)
        assert price.version == 3
        assert (await reread(store)).in_force.get(QWEN) == price

    async def test_what_has_no_price_cannot_be_withdrawn(self, book: PriceBook) -> None:
        await priced(book)
        await book.withdraw(QWEN)
        for model in (QWEN, "b"):
            with pytest.raises(NotFound, match=model) as refused:
                await book.withdraw(model)
            assert refused.value.code == "price_not_found"

    async def test_prices_set_at_once_are_versions_each(self, book: PriceBook) -> None:
        made = await asyncio.gather(*(priced(book, prompt=number) for number in range(5)))
        assert [price.version for price in made] == [1, 2, 3, 4, 5]
        assert book.in_force.get(QWEN) == made[-1]

    async def test_a_version_that_was_stored_unseen_stands_in_nobodys_way(
        self, store: Store
    ) -> None:
        """Its commit took too long: whoever set it was told that it failed."""
        other = await reread(store)
        await priced(other)
        assert store.prices.in_force.get(QWEN) is None
        assert (await priced(store.prices)).version == 2

    async def test_what_cannot_be_stored_is_not_in_force(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*given: Any) -> None:
            raise StoreError

        book = store.prices
        price = await priced(book)
        await book.set_alias("a", QWEN)
        monkeypatch.setattr(store.writer, "call", fail)
        monkeypatch.setattr(store.writer, "execute", fail)
        for change in (
            priced(book, prompt=1),
            book.withdraw(QWEN),
            book.set_alias("b", QWEN),
            book.remove_alias("a"),
            book.set_coefficient("e", "*", 5),
        ):
            with pytest.raises(StoreError):
                await change
        assert (book.in_force.get(QWEN), book.aliases) == (price, {"a": QWEN})
        assert book.coefficients() == []


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"prompt": -1}, "prompt"),
        ({"cached": PRICE_MAX + 1}, "cached"),
        ({"completion": 0.5}, "completion"),
        ({"reasoning": True}, "reasoning"),
        ({"request": -1}, "request"),
        ({"fee_bp": BASIS_POINTS_ONE + 1}, "fee_bp"),
        ({"template_tokens": TOKENS_MAX + 1}, "template_tokens"),
        ({"media_tokens": -1}, "media_tokens"),
        ({"model": ""}, "model"),
        ({"model": "m" * (NAME_CHARS_MAX + 1)}, "model"),
        ({"model": "a\0b"}, "model"),
    ],
)
async def test_a_wrong_price_is_named(store: Store, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await priced(store.prices, **wrong)
    assert refused.value.param == param
    if param in {"prompt", "cached", "completion", "reasoning", "request"}:
        assert refused.value.message == f"{param} must be 0 to 1000000 credits."
    assert (await reread(store)).current() == store.prices.current() == []


class TestTariffs:
    async def test_the_same_price_and_coefficient_is_the_same_object(self, book: PriceBook) -> None:
        price = await priced(book, reasoning=900, request=7)
        tariff = book.tariff(price, 1500)
        assert (tariff.prompt, tariff.cached, tariff.completion) == (200, 20, 800)
        assert (tariff.reasoning, tariff.request, tariff.coefficient) == (900, 7, 1500)
        assert book.tariff(price, 1500) is tariff
        assert book.tariff(price, 1000) is not tariff

    async def test_a_new_version_makes_another(self, book: PriceBook) -> None:
        first = await priced(book)
        before = book.tariff(first, 1000)
        after = book.tariff(await priced(book, prompt=300), 1000)
        assert (before.prompt, after.prompt) == (200, 300)
        assert book.tariff(first, 1000) is before

    async def test_they_are_bounded(self, book: PriceBook, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prices, "TARIFFS_MAX", 3)
        price = await priced(book)
        made = [book.tariff(price, coefficient) for coefficient in range(10)]
        assert len(book._tariffs) <= 3
        assert [tariff.coefficient for tariff in made] == list(range(10))
        assert book.tariff(price, 0) == made[0]  # made anew

    async def test_the_settings_price_of_all_models_is_not_mixed_up(self, book: PriceBook) -> None:
        default = replace(await priced(book, "a"), version=0)
        other = replace(default, model="b", prompt=1)
        assert book.tariff(default, 1000).prompt == 200
        assert book.tariff(other, 1000).prompt == 1


class TestAliases:
    async def test_they_are_set_replaced_and_removed(self, store: Store) -> None:
        book = store.prices
        await book.set_alias("gpt-4o-mini", QWEN)
        await book.set_alias("gpt-4o", QWEN)
        await book.set_alias("gpt-4o", "other")
        await book.remove_alias("gpt-4o-mini")
        assert (await reread(store)).aliases == book.aliases == {"gpt-4o": "other"}
        with pytest.raises(NotFound) as refused:
            await book.remove_alias("gpt-4o-mini")
        assert refused.value.code == "alias_not_found"

    @pytest.mark.parametrize(
        ("alias", "model", "param"),
        [
            ("a", "a", "model"),
            ("b", "known", "model"),  # a chain, which could become a loop
            (QWEN, "known", "alias"),  # a loop
            (QWEN, "b", "alias"),  # it is what another alias means
            ("priced", "b", "alias"),  # it would hide a price
            ("", "b", "alias"),
            ("b", "m" * (NAME_CHARS_MAX + 1), "model"),
            ("a\nb", "b", "alias"),
        ],
    )
    async def test_wrong_ones_are_refused(
        self, store: Store, alias: str, model: str, param: str
    ) -> None:
        await priced(store.prices, "priced")
        await store.prices.set_alias("known", QWEN)
        with pytest.raises(InvalidRequest) as refused:
            await store.prices.set_alias(alias, model)
        assert refused.value.param == param
        assert (await reread(store)).aliases == store.prices.aliases == {"known": QWEN}

    async def test_an_alias_is_not_priced(self, book: PriceBook) -> None:
        await book.set_alias("known", QWEN)
        with pytest.raises(InvalidRequest, match=QWEN) as refused:
            await priced(book, "known")
        assert refused.value.param == "model"
        await book.remove_alias("known")
        await priced(book, "known")

    async def test_of_an_alias_and_a_price_asked_for_at_once_one_is_refused(
        self, book: PriceBook
    ) -> None:
        done = await asyncio.gather(
            priced(book, "x"), book.set_alias("x", QWEN), return_exceptions=True
        )
        assert isinstance(done[1], InvalidRequest)
        assert book.aliases == {}


class TestCoefficients:
    async def test_the_nearest_one_counts(self, store: Store) -> None:
        book = store.prices
        assert book.coefficient("e", QWEN) == 1000
        await book.set_coefficient("e", "*", 1500)
        await book.set_coefficient("e", QWEN, 900)
        await book.set_coefficient("f", QWEN, 0)
        await book.set_coefficient("e", QWEN, 800)
        for each in (book, await reread(store)):
            assert each.coefficient("e", QWEN) == 800
            assert each.coefficient("e", "other") == 1500
            assert each.coefficient("f", QWEN) == 0
            assert each.coefficient("f", "other") == 1000
            assert each.coefficients() == [
                ("e", "*", 1500),
                ("e", QWEN, 800),
                ("f", QWEN, 0),
            ]

    @pytest.mark.parametrize(
        ("engine", "model", "value", "param"),
        [
            ("e", "*", -1, "coefficient"),
            ("e", "*", COEFFICIENT_MAX + 1, "coefficient"),
            ("", "*", 1, "engine"),
            ("e", "a\0", 1, "model"),
        ],
    )
    async def test_wrong_ones_are_refused(
        self, book: PriceBook, engine: str, model: str, value: int, param: str
    ) -> None:
        with pytest.raises(InvalidRequest) as refused:
            await book.set_coefficient(engine, model, value)
        assert refused.value.param == param
        assert book.coefficients() == []
