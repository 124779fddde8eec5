"""What a usage costs: integers in, integers out, rounded once. No balances, no ledger."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from filature.answer.usage import Usage, usage_members
from filature.units import COEFFICIENT_ONE, NANO_PER_CREDIT
from filature.wire.dialect import Dialect

_TOKENS_PER_PRICE: Final = 1_000_000
_DIVISOR: Final = _TOKENS_PER_PRICE * COEFFICIENT_ONE
COST_KEYS: Final = ("prompt_total_cost", "completion_total_cost", "total_cost", "cost")
"""The members that ``cost_members`` writes."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """The prices of one model: nano-credits per million tokens of each of the four classes.

    ``prompt`` is for prompt tokens that were not cached, ``completion`` for those that are not
    reasoning. ``request`` is in nano-credits per request, whatever the coefficient.
    ``coefficient`` is in thousandths: 1000 is 1.0. Raises ValueError on a negative number.
    """

    prompt: int
    cached: int
    completion: int
    reasoning: int
    request: int = 0
    coefficient: int = COEFFICIENT_ONE

    def __post_init__(self) -> None:
        prices = (self.prompt, self.cached, self.completion, self.reasoning, self.request)
        if min(prices) < 0 or self.coefficient < 0:
            raise ValueError(f"a price is negative: {self}")


@dataclass(slots=True)
class Cost:
    """Nano-credits. ``total`` = ``prompt`` + ``completion`` + the price per request."""

    prompt: int
    completion: int
    total: int

    # spelt out, for the __init__ that a dataclass makes is not compiled
    def __init__(self, prompt: int, completion: int, total: int) -> None:
        self.prompt = prompt
        self.completion = completion
        self.total = total

    def __iter__(self) -> Iterator[int]:
        """For ``prompt, completion, total = cost``."""
        return iter((self.prompt, self.completion, self.total))


def cost_of(usage: Usage, tariff: Tariff) -> Cost:
    """The cost of a usage: multiplied first, rounded up once.

    So nothing priced is free, and an answer cut in pieces is never cheaper than in one. The
    prompt's part is rounded up by itself and the completion's is what remains.
    """
    prompt = (usage.prompt - usage.cached) * tariff.prompt + usage.cached * tariff.cached
    completion = (
        usage.completion - usage.reasoning
    ) * tariff.completion + usage.reasoning * tariff.reasoning
    prompt_nano = _rounded_up(prompt, tariff.coefficient)
    both_nano = _rounded_up(prompt + completion, tariff.coefficient)
    return Cost(prompt_nano, both_nano - prompt_nano, tariff.request + both_nano)


def _rounded_up(amount: int, coefficient: int) -> int:
    if coefficient == COEFFICIENT_ONE:  # the same, without a product that needs a large integer
        return -(-amount // _TOKENS_PER_PRICE)
    return -(-amount * coefficient // _DIVISOR)


def credits_text(nano: int) -> bytes:
    """An amount in credits as an exact decimal, which is a JSON number: ``0.000000123``."""
    if nano < 0:
        return b"-" + credits_text(-nano)
    whole, part = nano // NANO_PER_CREDIT, nano % NANO_PER_CREDIT
    if part == 0:
        return b"%d" % whole
    digits = b"%d" % (NANO_PER_CREDIT + part)  # a one, and the nine digits
    return b"%d.%b" % (whole, digits[1:].rstrip(b"0"))


def cost_members(cost: Cost) -> bytes:
    """The cost as members of a usage object, with a comma before each."""
    total = cost.total
    return b',"prompt_total_cost":%d,"completion_total_cost":%d,"total_cost":%d,"cost":%b' % (
        cost.prompt,
        cost.completion,
        total,
        credits_text(total),
    )


def usage_object(dialect: Dialect, usage: Usage, cost: Cost | None) -> bytes:
    """A whole usage object of the dialect, with the cost where there is one."""
    costs = b"" if cost is None else cost_members(cost)
    return b"{" + usage_members(dialect, usage) + costs + b"}"
