"""Limits per key: what is let in, what is refused and until when, and what the headers say."""

from datetime import UTC, datetime
from typing import Any

import pytest

from filature.errors import BudgetExceeded, RateLimited
from filature.ledger.accounts import client_account
from filature.proxy.rates import STATES_SWEPT_FROM, RateLimiter, Slot, period_name
from filature.store.keys import ApiKey, KeyLimits, Period

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def key(id_: str = "key_1", **limits: Any) -> ApiKey:
    return ApiKey(
        id=id_,
        hint="",
        digest=b"",
        created_ms=0,
        account=client_account("alice"),
        name="",
        limits=KeyLimits(**limits),
    )


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


class Clocks:
    """Both, moved by hand."""

    def __init__(self) -> None:
        self.monotonic_s = 1000.0
        self.wall = NOON


class Limits:
    """A limiter with its clocks."""

    def __init__(self, spending: dict[tuple[str, str], int] | None = None) -> None:
        self.clocks = Clocks()
        self.limiter = RateLimiter(
            {} if spending is None else spending,
            monotonic_s=lambda: self.clocks.monotonic_s,
            wall_ms=lambda: ms(self.clocks.wall),
        )

    def wait(self, seconds: float) -> None:
        self.clocks.monotonic_s += seconds

    def admit(self, key: ApiKey, tokens: int = 1, amount: int = 0) -> Slot:
        return self.limiter.admit(key, tokens, amount)

    def refused(self, key: ApiKey, tokens: int = 1) -> RateLimited:
        with pytest.raises(RateLimited) as refused:
            self.limiter.admit(key, tokens, 0)
        assert refused.value.status == 429
        return refused.value

    def over_budget(self, key: ApiKey, amount: int) -> BudgetExceeded:
        with pytest.raises(BudgetExceeded) as refused:
            self.limiter.admit(key, 1, amount)
        return refused.value


@pytest.fixture
def limits() -> Limits:
    return Limits()


def headers(lines: bytes) -> dict[str, str]:
    """Of complete header lines, in short."""
    assert lines.endswith(b"\r\n")
    pairs = [line.partition(": ") for line in lines.decode().splitlines()]
    return {name.removeprefix("x-ratelimit-"): value for name, _, value in pairs}


class TestRequestsPerMinute:
    def test_as_many_at_once_and_then_one_by_one(self, limits: Limits) -> None:
        three = key(requests_per_minute=3)
        for _ in range(3):
            limits.admit(three)
        error = limits.refused(three)
        assert error.retry_after_s == 20
        assert "3 requests per minute" in error.message
        assert "20 s" in error.message
        assert (error.code, error.type) == ("rate_limit_exceeded", "rate_limit_error")
        limits.wait(19)
        assert limits.refused(three).retry_after_s == 1
        limits.wait(1)
        limits.admit(three)
        limits.refused(three)

    def test_a_wait_is_rounded_up(self, limits: Limits) -> None:
        many = key(requests_per_minute=7)
        for _ in range(7):
            limits.admit(many)
        assert limits.refused(many).retry_after_s == 9  # of 8.57
        limits.wait(8.5)
        assert limits.refused(many).retry_after_s == 1

    def test_a_minute_fills_it_and_more_does_not_help(self, limits: Limits) -> None:
        two = key(requests_per_minute=2)
        for _ in range(2):
            limits.admit(two)
        limits.wait(3600)
        for _ in range(2):
            limits.admit(two)
        limits.refused(two)

    def test_a_clock_that_stands_still_or_goes_back_gives_nothing(self, limits: Limits) -> None:
        one = key(requests_per_minute=1)
        limits.admit(one)
        limits.wait(-500)
        assert limits.refused(one).retry_after_s == 60

    def test_a_finished_request_was_one_all_the_same(self, limits: Limits) -> None:
        one = key(requests_per_minute=1)
        limits.admit(one).finish(1, 0)
        limits.refused(one)

    def test_one_that_never_began_was_none(self, limits: Limits) -> None:
        one = key(requests_per_minute=1)
        limits.admit(one).cancel()
        limits.admit(one)
        limits.refused(one)

    def test_cancelling_late_gives_no_more_than_the_limit(self, limits: Limits) -> None:
        two = key(requests_per_minute=2)
        slot = limits.admit(two)
        limits.wait(60)
        slots = [slot, limits.admit(two)]
        for each in slots:
            each.cancel()
        for _ in range(2):
            limits.admit(two)
        limits.refused(two)

    def test_keys_do_not_share(self, limits: Limits) -> None:
        limits.admit(key("key_1", requests_per_minute=1))
        limits.admit(key("key_2", requests_per_minute=1))


class TestTokensPerMinute:
    def test_the_most_is_reserved_and_what_was_not_used_comes_back(self, limits: Limits) -> None:
        tpm = key(tokens_per_minute=600)
        slot = limits.admit(tpm, 500)
        error = limits.refused(tpm, 200)
        assert error.retry_after_s == 10
        assert "600 tokens per minute, and 100 are left of the 200" in error.message
        assert "smaller max_tokens" in error.message
        slot.finish(150, 0)
        limits.admit(tpm, 450)
        limits.refused(tpm)

    def test_who_is_over_both_limits_is_told_the_longer_wait(self, limits: Limits) -> None:
        both = key(requests_per_minute=60, tokens_per_minute=60, concurrency=61)
        for _ in range(60):
            limits.admit(both, 1)
        error = limits.refused(both, 30)
        assert error.retry_after_s == 30
        assert "60 requests per minute" in error.message
        assert error.message.endswith("Try again in 30 s.")
        limits.wait(1)
        limits.admit(both, 1)
        error = limits.refused(both, 60)
        assert "may run 61 requests" in error.message
        assert error.retry_after_s == 60

    def test_what_was_used_beyond_is_waited_for(self, limits: Limits) -> None:
        tpm = key(tokens_per_minute=600)
        limits.admit(tpm, 600).finish(1200, 0)
        assert limits.refused(tpm, 10).retry_after_s == 61
        assert limits.refused(tpm, 0).retry_after_s == 60  # though it would use none

    def test_time_pays_for_nothing_that_comes_after_it(self, limits: Limits) -> None:
        tpm = key(tokens_per_minute=600)
        slot = limits.admit(tpm, 10)
        limits.wait(60)
        slot.finish(610, 0)
        assert limits.refused(tpm, 1).retry_after_s == 1

    def test_more_than_the_limit_runs_alone_and_is_paid_off(self, limits: Limits) -> None:
        tpm = key(tokens_per_minute=600)
        limits.admit(tpm, 10).finish(10, 0)
        assert limits.refused(tpm, 1800).retry_after_s == 1
        limits.wait(1)
        slot = limits.admit(tpm, 1800)
        slot.finish(1800, 0)
        assert limits.refused(tpm, 1).retry_after_s == 121

    def test_late_returns_give_no_more_than_the_limit(self, limits: Limits) -> None:
        tpm = key(tokens_per_minute=600)
        slot = limits.admit(tpm, 600)
        limits.wait(60)
        running = limits.admit(tpm, 100)
        slot.finish(0, 0)
        running.finish(0, 0)
        limits.admit(tpm, 600)
        limits.refused(tpm)

    def test_of_two_limits_neither_is_used_up_by_a_refusal(self, limits: Limits) -> None:
        both = key(requests_per_minute=2, tokens_per_minute=600)
        limits.admit(both, 600)
        for _ in range(5):
            assert "tokens" in limits.refused(both, 600).message
        limits.wait(60)
        limits.admit(both, 1)
        limits.admit(both, 1)
        assert "requests" in limits.refused(both, 598).message
        limits.wait(30)
        limits.admit(both, 598)

    def test_huge_limits_are_exact(self, limits: Limits) -> None:
        huge = key(tokens_per_minute=2**63 - 1)
        limits.admit(huge, 2**63 - 2)
        limits.admit(huge, 1)
        assert limits.refused(huge, 1).retry_after_s == 1


class TestConcurrency:
    def test_so_many_run_at_once(self, limits: Limits) -> None:
        two = key(concurrency=2)
        first, second = limits.admit(two), limits.admit(two)
        error = limits.refused(two)
        assert error.retry_after_s == 1
        assert "2 requests at the same time" in error.message
        first.finish(1, 1)
        limits.admit(two)
        limits.refused(two)
        second.cancel()
        limits.admit(two)

    def test_a_refusal_uses_nothing_up(self, limits: Limits) -> None:
        one = key(concurrency=1, requests_per_minute=2, tokens_per_minute=60)
        slot = limits.admit(one, 10)
        told = headers(limits.refused(one, 10).header_lines)
        assert (told["remaining-requests"], told["remaining-tokens"]) == ("1", "50")
        slot.finish(10, 0)
        limits.admit(one, 50)


class TestBudget:
    def test_spent_held_and_asked_for_fit_exactly(self, limits: Limits) -> None:
        budget = key(budget=100, budget_period="day")
        limits.admit(budget, amount=30).finish(1, 25)
        limits.admit(budget, amount=70)
        error = limits.over_budget(budget, 6)
        assert (error.status, error.type, error.code) == (
            429,
            "insufficient_quota",
            "budget_exceeded",
        )
        assert "for the day has 0.000000005 left" in error.message
        assert "0.00000007 are held" in error.message
        assert "up to 0.000000006" in error.message
        limits.admit(budget, amount=5)
        limits.over_budget(budget, 1)
        free = [limits.admit(budget, amount=0) for _ in range(2)]
        for slot in free:
            slot.finish(1, 0)
        limits.over_budget(budget, 1)

    @pytest.mark.parametrize(
        ("period", "day", "seconds"),
        [
            ("day", 24, 12 * 3600),
            ("month", 24, 6 * 86400 + 12 * 3600),
            ("month", 1, 29 * 86400 + 12 * 3600),
            ("year", 24, 37 * 86400 + 12 * 3600),
        ],
    )
    def test_when_to_come_again(self, limits: Limits, period: str, day: int, seconds: int) -> None:
        """When what runs may have left some, else when there is a new one; never where it is too much."""
        limits.clocks.wall = NOON.replace(day=day)
        budget = key(budget=100, budget_period=period, requests_per_minute=9)
        slot = limits.admit(budget, amount=60)
        error = limits.over_budget(budget, 100)
        assert (error.retry_after_s, error.should_retry) == (1, True)
        slot.finish(1, 30)
        error = limits.over_budget(budget, 71)
        assert (error.retry_after_s, error.should_retry) == (seconds, False)
        assert headers(error.header_lines)["remaining-requests"] == "8"
        error = limits.over_budget(budget, 101)
        assert (error.retry_after_s, error.should_retry) == (None, False)

    def test_a_budget_in_total_is_not_renewed(self, limits: Limits) -> None:
        budget = key(budget=100, budget_period="total")
        limits.admit(budget, amount=60).finish(1, 60)
        error = limits.over_budget(budget, 41)
        assert (error.retry_after_s, error.should_retry) == (None, False)

    def test_a_refused_or_cancelled_request_holds_nothing(self, limits: Limits) -> None:
        budget = key(budget=100, budget_period="total", requests_per_minute=1)
        limits.over_budget(budget, 101)
        limits.admit(budget, amount=100).cancel()
        limits.admit(budget, amount=40)
        limits.refused(budget)  # by the other limit
        limits.wait(60)
        limits.admit(budget, amount=60)

    def test_what_was_spent_before_counts(self) -> None:
        limits = Limits({("key_1", "2026-11"): 90, ("key_1", "2026-10"): 50, ("k", "2026-11"): 9})
        budget = key(budget=100, budget_period="month")
        limits.over_budget(budget, 11)
        slot = limits.admit(budget, amount=10)
        assert slot.budget_period == ("key_1", "2026-11")
        slot.finish(1, 10)
        assert limits.limiter.spent(("key_1", "2026-11")) == 100

    def test_what_is_given_back_may_be_spent_again(self, limits: Limits) -> None:
        budget = key(budget=100, budget_period="year")
        slot = limits.admit(budget, amount=100)
        slot.finish(1, 100)
        limits.over_budget(budget, 1)
        slot.reverse(100)
        limits.admit(budget, amount=100)

    def test_a_new_period_has_a_budget_of_its_own(self, limits: Limits) -> None:
        """A request that runs over midnight belongs to the day on which it was admitted."""
        budget = key(budget=100, budget_period="day")
        limits.clocks.wall = NOON.replace(hour=23, minute=59, second=59)
        slot = limits.admit(budget, amount=80)
        limits.over_budget(budget, 21)
        limits.clocks.wall = NOON.replace(day=25, hour=0)
        running = limits.admit(budget, amount=100)
        slot.finish(1, 70)
        limits.over_budget(budget, 1)
        limits.clocks.wall = NOON  # set back
        limits.over_budget(budget, 31)
        limits.admit(budget, amount=30)
        running.finish(1, 5)
        assert limits.limiter.spent(("key_1", "2026-11-24")) == 70
        assert limits.limiter.spent(("key_1", "2026-11-25")) == 5

    def test_old_periods_are_forgotten(self) -> None:
        spending = {("key_1", f"2026-11-{day}"): 1 for day in (21, 22)} | {("other", "total"): 7}
        limits = Limits(spending)
        budget = key(budget=100, budget_period="day")
        old = limits.admit(budget, amount=10)
        for day in (25, 26, 27):
            limits.clocks.wall = NOON.replace(day=day)
            limits.admit(budget, amount=2).finish(1, 2)
        old.finish(1, 10)
        kept = {("key_1", "2026-11-26"): 2, ("key_1", "2026-11-27"): 2, ("other", "total"): 7}
        assert spending == kept

    def test_a_key_without_one_has_no_period(self, limits: Limits) -> None:
        slot = limits.admit(key(concurrency=1), amount=5)
        assert slot.budget_period is None
        slot.finish(1, 5)
        slot.reverse(5)


@pytest.mark.parametrize(
    ("moment", "names"),
    [
        (NOON, ("2026-11-24", "2026-11", "2026", "total")),
        (
            datetime(2027, 1, 1, tzinfo=UTC),
            ("2027-01-01", "2027-01", "2027", "total"),
        ),
        (
            datetime(2026, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
            ("2026-12-31", "2026-12", "2026", "total"),
        ),
    ],
)
def test_periods_are_named_by_utc(moment: datetime, names: tuple[str, ...]) -> None:
    periods: tuple[Period, ...] = ("day", "month", "year", "total")
    assert tuple(period_name(period, ms(moment)) for period in periods) == names


class TestHeaders:
    def test_of_an_answer(self, limits: Limits) -> None:
        both = key(requests_per_minute=60, tokens_per_minute=60_000)
        assert headers(limits.admit(both, 1500).header_lines) == {
            "limit-requests": "60",
            "remaining-requests": "59",
            "reset-requests": "1s",
            "limit-tokens": "60000",
            "remaining-tokens": "58500",
            "reset-tokens": "2s",  # of 1.5
        }

    def test_of_a_refusal(self, limits: Limits) -> None:
        one = key(requests_per_minute=1)
        limits.admit(one)
        assert headers(limits.refused(one).header_lines) == {
            "limit-requests": "1",
            "remaining-requests": "0",
            "reset-requests": "1m0s",
        }

    @pytest.mark.parametrize(
        ("tokens", "reset"),
        [(0, "0s"), (1, "1ms"), (999, "999ms"), (1000, "1s"), (60_000, "1m0s"), (600_000, "10m0s")],
    )
    def test_spans(self, limits: Limits, tokens: int, reset: str) -> None:
        slot = limits.admit(key(tokens_per_minute=60_000), tokens)
        assert headers(slot.header_lines)["reset-tokens"] == reset

    def test_nothing_is_left_below_zero(self, limits: Limits) -> None:
        slot = limits.admit(key(tokens_per_minute=10), 500)
        assert headers(slot.header_lines)["remaining-tokens"] == "0"

    def test_limits_of_other_kinds_have_none(self, limits: Limits) -> None:
        slot = limits.admit(key(concurrency=1, budget=1, budget_period="day"))
        assert slot.header_lines == b""


class TestForgetting:
    def test_keys_at_rest_are_forgotten(self, limits: Limits) -> None:
        for number in range(STATES_SWEPT_FROM):
            limits.admit(key(f"key_{number}", requests_per_minute=1)).finish(1, 0)
        assert len(limits.limiter._states) == STATES_SWEPT_FROM
        limits.wait(60)
        limits.admit(key("another", requests_per_minute=1))
        assert len(limits.limiter._states) == 1

    def test_what_counts_is_not(self, limits: Limits) -> None:
        busy = key("busy", concurrency=1)
        slot = limits.admit(busy)
        used = key("used", requests_per_minute=1, tokens_per_minute=100)
        limits.wait(-30)
        for number in range(STATES_SWEPT_FROM - 2):
            limits.admit(key(f"key_{number}", requests_per_minute=1)).finish(1, 0)
        limits.wait(60)
        limits.admit(used, 50)
        limits.admit(key("another", requests_per_minute=1))
        assert len(limits.limiter._states) == 3
        limits.refused(busy)
        limits.refused(used)
        slot.finish(1, 0)
        limits.admit(busy)

    def test_many_busy_keys_are_not_looked_through_each_time(self, limits: Limits) -> None:
        for number in range(3 * STATES_SWEPT_FROM):
            limits.admit(key(f"key_{number}", concurrency=1))
        assert len(limits.limiter._states) == 3 * STATES_SWEPT_FROM
        assert limits.limiter._sweep_from == 4 * STATES_SWEPT_FROM
