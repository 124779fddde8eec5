"""Limits per key against a model that remembers everything: never more than a limit, never less than it allows."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from filature.errors import BudgetExceeded, RateLimited
from filature.ledger.accounts import client_account
from filature.proxy.rates import RateLimiter, Slot, period_name
from filature.store.keys import PERIODS, ApiKey, KeyLimits
from filature.units import Nano

START = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)
LIMIT = st.none() | st.integers(1, 5) | st.integers(1, 1000)


@st.composite
def some_limits(draw: st.DrawFn) -> KeyLimits:
    budget = draw(st.none() | st.integers(0, 100))
    return KeyLimits(
        budget=None if budget is None else Nano(budget),
        budget_period=None if budget is None else draw(st.sampled_from(PERIODS)),
        requests_per_minute=draw(LIMIT),
        tokens_per_minute=draw(LIMIT),
        concurrency=draw(LIMIT),
    )


class Meter:
    """What is left of a limit per minute, by fractions. It is full at ``limit``."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.left = Fraction(limit or 0)

    def wait(self, seconds: Fraction) -> None:
        if self.limit is not None:
            self.left = min(self.left + seconds * self.limit / 60, Fraction(self.limit))

    def take(self, amount: int) -> None:
        if self.limit is not None:
            self.left = min(self.left - amount, Fraction(self.limit))

    def allows(self, amount: int) -> bool:
        return self.limit is None or self.left >= min(amount, self.limit)


@dataclass
class Running:
    """A request that was admitted."""

    slot: Slot
    tokens: int
    amount: int
    day: datetime


@dataclass
class Spent:
    """What one moment's request cost."""

    at: datetime
    amount: int


@dataclass
class Kept:
    """The requests of a key."""

    running: list[Running] = field(default_factory=list)
    spent: list[Spent] = field(default_factory=list)


def key_with(limits: KeyLimits) -> ApiKey:
    return ApiKey(
        id="k",
        hint="",
        digest=b"",
        created_ms=0,
        account=client_account("alice"),
        name="",
        limits=limits,
    )


class Rates(RuleBasedStateMachine):
    """One key. Its clocks are moved apart: one counts minutes, the other names the budget's period."""

    @initialize(limits=some_limits())
    def start(self, limits: KeyLimits) -> None:
        self.key = key_with(limits)
        self.now_s = Fraction(0)
        self.wall = START
        self.limiter = RateLimiter(
            {}, monotonic_s=lambda: float(self.now_s), wall_ms=lambda: self.wall_ms(self.wall)
        )
        self.requests = Meter(limits.requests_per_minute)
        self.tokens = Meter(limits.tokens_per_minute)
        self.kept = Kept()

    @staticmethod
    def wall_ms(moment: datetime) -> int:
        return int(moment.timestamp()) * 1000

    def used_of_budget(self) -> int:
        """Spent and held in the period of this moment."""
        period = self.key.limits.budget_period
        assert period is not None
        name = period_name(period, self.wall_ms(self.wall))

        def is_now(moment: datetime) -> bool:
            return period_name(period, self.wall_ms(moment)) == name

        spent = sum(each.amount for each in self.kept.spent if is_now(each.at))
        return spent + sum(each.amount for each in self.kept.running if is_now(each.day))

    def expected(self, tokens: int, amount: int) -> type[Exception] | None:
        limits = self.key.limits
        if limits.concurrency is not None and len(self.kept.running) >= limits.concurrency:
            return RateLimited
        if limits.budget is not None and self.used_of_budget() + amount > limits.budget:
            return BudgetExceeded
        if not self.requests.allows(1) or not self.tokens.allows(tokens):
            return RateLimited
        return None

    @rule(tokens=st.integers(0, 1500) | st.integers(0, 5), amount=st.integers(0, 40))
    def ask(self, tokens: int, amount: int) -> None:
        expected = self.expected(tokens, amount)
        if expected is not None:
            with pytest.raises(expected) as refused:
                self.limiter.admit(self.key, tokens, amount)
            assert refused.type is expected
            return
        slot = self.limiter.admit(self.key, tokens, amount)
        self.requests.take(1)
        self.tokens.take(tokens)
        self.kept.running.append(Running(slot, tokens, amount, self.wall))

    @precondition(lambda self: self.kept.running)
    @rule(data=st.data(), used=st.integers(0, 1600), share=st.fractions(0, 1))
    def finish(self, data: st.DataObject, used: int, share: Fraction) -> None:
        each = self.chosen(data)
        spent = int(each.amount * share)
        each.slot.finish(used, spent)
        self.tokens.take(used - each.tokens)
        self.kept.spent.append(Spent(each.day, spent))

    @precondition(lambda self: self.kept.running)
    @rule(data=st.data())
    def finish_and_reverse(self, data: st.DataObject) -> None:
        each = self.chosen(data)
        each.slot.finish(each.tokens, each.amount)
        each.slot.reverse(each.amount)

    @precondition(lambda self: self.kept.running)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        each = self.chosen(data)
        each.slot.cancel()
        self.requests.take(-1)
        self.tokens.take(-each.tokens)

    def chosen(self, data: st.DataObject) -> Running:
        running = self.kept.running
        return running.pop(data.draw(st.integers(0, len(running) - 1)))

    @rule(eighths=st.integers(0, 8 * 90))
    def wait(self, eighths: int) -> None:
        seconds = Fraction(eighths, 8)
        self.now_s += seconds
        self.requests.wait(seconds)
        self.tokens.wait(seconds)

    @rule(late=st.booleans())
    def set_the_wall_clock(self, late: bool) -> None:
        self.wall = START + timedelta(hours=1) * late  # over the ends of a day, a month and a year

    @invariant()
    def budgets_hold(self) -> None:
        budget = self.key.limits.budget
        if budget is not None:
            assert self.used_of_budget() <= budget


TestRates = Rates.TestCase


@given(some_limits(), st.lists(st.integers(0, 1500), max_size=20))
def test_after_the_waits_that_were_told_a_request_is_let_in(
    limits: KeyLimits, requests: list[int]
) -> None:
    now_s = 0
    limiter = RateLimiter({}, monotonic_s=lambda: float(now_s), wall_ms=lambda: 0)
    key = key_with(limits)
    for tokens in requests:
        for _ in ("requests", "tokens"):  # each limit per minute says once how long
            now_s += told_wait_s(limiter, key, tokens)
        limiter.admit(key, tokens, 0).finish(tokens, 0)


def told_wait_s(limiter: RateLimiter, key: ApiKey, tokens: int) -> int:
    """What a refusal says now; 0 when there is none."""
    try:
        slot = limiter.admit(key, tokens, 0)
    except RateLimited as error:
        return error.retry_after_s or 0
    slot.cancel()
    return 0
