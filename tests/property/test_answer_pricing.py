"""Prices: rounded once, in nobody's favour but by less than one nano-credit, and never to nothing."""

import json
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filature.answer.pricing import Tariff, cost_members, cost_of, credits_text
from filature.answer.usage import Usage

PRICES = st.one_of(st.integers(0, 20), st.integers(0, 10**13))
TARIFFS = st.builds(
    Tariff,
    prompt=PRICES,
    cached=PRICES,
    completion=PRICES,
    reasoning=PRICES,
    request=PRICES,
    coefficient=st.integers(0, 5000),
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    prompt = draw(st.integers(0, 10**6))
    completion = draw(st.integers(0, 10**6))
    return Usage(prompt, draw(st.integers(0, prompt)), completion, draw(st.integers(0, completion)))


def exact(usage: Usage, tariff: Tariff) -> Fraction:
    """The price without rounding, and without the price per request."""
    priced = (
        (usage.prompt - usage.cached) * tariff.prompt
        + usage.cached * tariff.cached
        + (usage.completion - usage.reasoning) * tariff.completion
        + usage.reasoning * tariff.reasoning
    )
    return Fraction(priced * tariff.coefficient, 10**9)


@given(usages(), TARIFFS)
def test_rounded_up_once(usage: Usage, tariff: Tariff) -> None:
    cost = cost_of(usage, tariff)
    above = cost.total - tariff.request - exact(usage, tariff)
    assert 0 <= above < 1
    assert (cost.total > tariff.request) == (exact(usage, tariff) > 0)


@given(usages(), TARIFFS)
def test_the_parts_add_up(usage: Usage, tariff: Tariff) -> None:
    cost = cost_of(usage, tariff)
    assert cost.prompt + cost.completion + tariff.request == cost.total
    assert cost.prompt >= 0
    assert cost.completion >= 0


@pytest.mark.parametrize(
    "name", ["prompt", "cached", "completion", "reasoning", "request", "coefficient"]
)
def test_no_price_is_negative(name: str) -> None:
    prices = {"prompt": 0, "cached": 0, "completion": 0, "reasoning": 0}
    with pytest.raises(ValueError, match="negative"):
        Tariff(**(prices | {name: -1}))


@given(usages(), usages(), TARIFFS)
def test_two_pieces_are_never_cheaper_than_one(one: Usage, other: Usage, tariff: Tariff) -> None:
    both = Usage(
        one.prompt + other.prompt,
        one.cached + other.cached,
        one.completion + other.completion,
        one.reasoning + other.reasoning,
    )
    pieces = cost_of(one, tariff).total + cost_of(other, tariff).total
    assert cost_of(both, tariff).total <= pieces


@given(st.lists(usages(), min_size=1, max_size=40), TARIFFS)
def test_nor_are_many(pieces: list[Usage], tariff: Tariff) -> None:
    whole = Usage(
        sum(piece.prompt for piece in pieces),
        sum(piece.cached for piece in pieces),
        sum(piece.completion for piece in pieces),
        sum(piece.reasoning for piece in pieces),
    )
    apart = sum(cost_of(piece, tariff).total for piece in pieces)
    assert cost_of(whole, tariff).total + (len(pieces) - 1) * tariff.request <= apart


@given(st.data(), st.integers(1, 5000), PRICES, PRICES, PRICES, PRICES)
def test_one_answer_cut_token_by_token(
    data: st.DataObject, coefficient: int, prompt: int, cached: int, completion: int, reasoning: int
) -> None:
    tariff = Tariff(prompt, cached, completion, reasoning, coefficient=coefficient)
    tokens = data.draw(st.integers(1, 300))
    thought = data.draw(st.integers(0, tokens))
    each = [cost_of(Usage(completion=1, reasoning=int(n < thought)), tariff) for n in range(tokens)]
    whole = cost_of(Usage(completion=tokens, reasoning=thought), tariff)
    assert whole.total <= sum(cost.total for cost in each)


@given(usages(), TARIFFS)
def test_nothing_priced_is_free(usage: Usage, tariff: Tariff) -> None:
    amounts = (
        (usage.prompt - usage.cached, tariff.prompt),
        (usage.cached, tariff.cached),
        (usage.completion - usage.reasoning, tariff.completion),
        (usage.reasoning, tariff.reasoning),
    )
    priced = tariff.coefficient > 0 and any(tokens and price for tokens, price in amounts)
    assert cost_of(usage, tariff).total >= tariff.request + priced


@given(usages(), TARIFFS)
def test_more_tokens_never_cost_less(usage: Usage, tariff: Tariff) -> None:
    more = Usage(usage.prompt + 1, usage.cached, usage.completion + 1, usage.reasoning)
    assert cost_of(more, tariff).total >= cost_of(usage, tariff).total


@given(st.integers(-(2**63), 2**63))
def test_credits_are_exact(nano: int) -> None:
    assert Decimal(credits_text(nano).decode()) * 10**9 == nano


@given(usages(), TARIFFS)
def test_members_are_json(usage: Usage, tariff: Tariff) -> None:
    cost = cost_of(usage, tariff)
    written = json.loads(b"{" + cost_members(cost)[1:] + b"}", parse_float=Decimal)
    assert written == {
        "prompt_total_cost": cost.prompt,
        "completion_total_cost": cost.completion,
        "total_cost": cost.total,
        "cost": Decimal(cost.total) / 10**9,
    }
