"""Failures that cost nothing: an account is slowed, then refused, and served again when time has passed."""

import pytest

from filature.errors import RateLimited
from filature.ledger.accounts import client_account
from filature.proxy.free_failures import (
    DELAY_MAX_S,
    HALF_LIFE_S,
    REFUSED_ABOVE,
    SLOWED_ABOVE,
    FreeFailures,
)

ALICE, BOB = client_account("alice"), client_account("bob")


class Clock:
    """Moved by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failures(clock: Clock) -> FreeFailures:
    return FreeFailures(clock)


def fail(failures: FreeFailures, times: float) -> None:
    for _ in range(int(times)):
        failures.failed(ALICE)


def test_a_few_cost_nothing(failures: FreeFailures) -> None:
    assert failures.check(ALICE) == 0.0
    fail(failures, SLOWED_ABOVE)
    assert failures.check(ALICE) == 0.0


def test_more_slow_the_account_ever_more(failures: FreeFailures) -> None:
    fail(failures, SLOWED_ABOVE)
    delays = []
    for _ in range(int(REFUSED_ABOVE - SLOWED_ABOVE)):
        failures.failed(ALICE)
        delays.append(failures.check(ALICE))
    assert delays == sorted(set(delays))
    assert delays[0] > 0.0
    assert delays[-1] == DELAY_MAX_S
    assert failures.check(BOB) == 0.0


def test_many_have_it_refused_until_they_are_old_enough(
    failures: FreeFailures, clock: Clock
) -> None:
    fail(failures, 4 * REFUSED_ABOVE)
    with pytest.raises(RateLimited) as refused:
        failures.check(ALICE)
    error = refused.value
    assert (error.status, error.code) == (429, "too_many_failures")
    assert error.retry_after_s == 2 * HALF_LIFE_S
    assert "120 s" in error.message
    assert error.should_retry
    assert failures.check(BOB) == 0.0
    clock.now_s = 10.5
    with pytest.raises(RateLimited) as refused:
        failures.check(ALICE)
    assert refused.value.retry_after_s == 2 * HALF_LIFE_S - 10  # of 109.5
    clock.now_s = 2 * HALF_LIFE_S - 0.5
    with pytest.raises(RateLimited) as refused:
        failures.check(ALICE)
    assert refused.value.retry_after_s == 1
    clock.now_s += 0.5
    assert failures.check(ALICE) == DELAY_MAX_S


def test_a_refusal_tells_of_a_second_at_least(failures: FreeFailures, clock: Clock) -> None:
    fail(failures, REFUSED_ABOVE + 1)
    clock.now_s = 1.43  # just before it is served again
    with pytest.raises(RateLimited) as refused:
        failures.check(ALICE)
    assert refused.value.retry_after_s == 1


def test_time_heals(failures: FreeFailures, clock: Clock) -> None:
    fail(failures, REFUSED_ABOVE)
    clock.now_s = HALF_LIFE_S
    assert 0.0 < failures.check(ALICE) < DELAY_MAX_S
    clock.now_s = 2 * HALF_LIFE_S
    assert failures.check(ALICE) == 0.0
    clock.now_s = 1e9
    fail(failures, SLOWED_ABOVE)
    assert failures.check(ALICE) == 0.0


def test_a_clock_that_goes_back_changes_nothing(failures: FreeFailures, clock: Clock) -> None:
    clock.now_s = 1000.0
    fail(failures, REFUSED_ABOVE)
    clock.now_s = 0.0
    assert failures.check(ALICE) == DELAY_MAX_S


def test_paid_answers_make_up_for_them(failures: FreeFailures) -> None:
    fail(failures, REFUSED_ABOVE)
    for _ in range(int(REFUSED_ABOVE - SLOWED_ABOVE)):
        failures.succeeded(ALICE)
    assert failures.check(ALICE) == 0.0
    failures.failed(ALICE)
    assert failures.check(ALICE) > 0.0


def test_paid_answers_are_not_saved_up(failures: FreeFailures) -> None:
    for _ in range(100):
        failures.succeeded(ALICE)
    fail(failures, SLOWED_ABOVE + 1)
    assert failures.check(ALICE) > 0.0


def test_an_account_that_made_up_for_all_is_forgotten(failures: FreeFailures) -> None:
    fail(failures, 2)
    for _ in range(2):
        failures.succeeded(ALICE)
    assert len(failures._scores) == 0


def test_of_too_many_accounts_the_one_that_failed_longest_ago_is_forgotten(clock: Clock) -> None:
    failures = FreeFailures(clock, accounts_max=3)
    fail(failures, REFUSED_ABOVE)
    others = [client_account(f"other{number}") for number in range(2)]
    for other in others:
        failures.failed(other)
    failures.failed(ALICE)  # so that it is not the one
    failures.failed(BOB)
    assert len(failures._scores) == 3
    with pytest.raises(RateLimited):
        failures.check(ALICE)
    for number in range(3):
        failures.failed(client_account(f"more{number}"))
    assert len(failures._scores) == 3
    assert failures.check(ALICE) == 0.0
