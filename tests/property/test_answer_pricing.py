"""Prices: rounded once, in nobody's favour but by less than one nano-credit, and never to nothing."""

import json
from decimal import Decimal
from fractions import Fraction

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
