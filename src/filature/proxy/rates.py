"""What each key may do per minute, at once, and of its budget. Counted in memory, in integers, by injected clocks."""

from bisect import insort
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from filature.admin.amounts import credits_of
from filature.errors import BudgetExceeded, RateLimited
from filature.store.keys import PERIODS_KEPT, ApiKey, Period

STATES_SWEPT_FROM: Final = 1000
"""Keys that are counted for; from here on those at rest are forgotten each time their number has doubled."""
RUNNING_RETRY_S: Final = 1
"""Nobody knows when a running request ends."""
_PARTS: Final = 60_000
"""Of one request or token, as there are milliseconds in a minute: a limit's number of parts comes back in each."""
_FORMATS: Final[dict[Period, str]] = {
    "day": "%Y-%m-%d",
    "month": "%Y-%m",
    "year": "%Y",
    "total": "total",
}


class _Bucket:
    """A token bucket: full it holds ``limit``, and a minute fills it.

    What is more than the limit by itself is let in when the bucket is full, and leaves it below
    zero. So does what used more than was reserved.
    """

    __slots__ = ("_parts", "_since_ms", "limit")

    def __init__(self, limit: int, now_ms: int) -> None:
        self.limit = limit
        self._parts = limit * _PARTS
        self._since_ms = now_ms

    def fill(self, now_ms: int) -> None:
        passed_ms = now_ms - self._since_ms
        if passed_ms > 0:
            self._since_ms = now_ms
            self._parts = min(self._parts + passed_ms * self.limit, self.limit * _PARTS)

    def wait_ms(self, amount: int) -> int:
        """Until ``amount`` may be taken; 0 when it may be now."""
        missing = min(amount, self.limit) * _PARTS - self._parts
        return -(-missing // self.limit) if missing > 0 else 0

    def take(self, amount: int) -> None:
        self._parts -= amount * _PARTS

    def give_back(self, amount: int) -> None:
        """What was taken and not needed; a negative one takes more."""
        self._parts = min(self._parts + amount * _PARTS, self.limit * _PARTS)

    @property
    def left(self) -> int:
        """Whole ones; 0 when it is below zero."""
        return max(self._parts // _PARTS, 0)

    @property
    def full_ms(self) -> int:
        """Until it is full again."""
        return self.wait_ms(self.limit)


class _KeyState:
    """What a key used of its limits."""

    __slots__ = ("requests", "running", "tokens")

    def __init__(self, key: ApiKey, now_ms: int) -> None:
        rpm, tpm = key.limits.requests_per_minute, key.limits.tokens_per_minute
        self.running = 0
        self.requests = None if rpm is None else _Bucket(rpm, now_ms)
        self.tokens = None if tpm is None else _Bucket(tpm, now_ms)

    def fill(self, now_ms: int) -> None:
        if self.requests is not None:
            self.requests.fill(now_ms)
        if self.tokens is not None:
            self.tokens.fill(now_ms)

    def wait_ms(self, tokens: int) -> int:
        """Until a request of so many tokens may be let in."""
        requests_ms = 0 if self.requests is None else self.requests.wait_ms(1)
        return max(requests_ms, 0 if self.tokens is None else self.tokens.wait_ms(tokens))

    def is_at_rest(self, now_ms: int) -> bool:
        """Whether a new state would be the same."""
        self.fill(now_ms)
        return (
            not self.running
            and (self.requests is None or not self.requests.full_ms)
            and (self.tokens is None or not self.tokens.full_ms)
        )


class Slot:
    """An admitted request's place in its key's limits; given back once, by ``finish`` or ``cancel``."""

    __slots__ = ("_amount", "_limiter", "_state", "_tokens", "budget_period", "header_lines")

    def __init__(
        self,
        limiter: "RateLimiter",
        state: _KeyState,
        tokens: int,
        amount: int,
        budget_period: tuple[str, str] | None,
        header_lines: bytes,
    ) -> None:
        self._limiter = limiter
        self._state = state
        self._tokens = tokens
        self._amount = amount
        self.budget_period = budget_period
        """The key and the period whose budget the charge uses up; None without a budget."""
        self.header_lines = header_lines
        """``x-ratelimit-…`` of the answer."""

    def finish(self, tokens: int, spent: int) -> None:
        """It ended: it used ``tokens`` and costs ``spent`` nano-credits."""
        state = self._state
        state.running -= 1
        if state.tokens is not None:
            state.tokens.fill(self._limiter.now_ms())  # time pays for nothing that comes after it
            state.tokens.give_back(self._tokens - tokens)
        if self.budget_period is not None:
            self._limiter.let_go(self.budget_period, self._amount)
            if spent:
                self._limiter.spend(self.budget_period, spent)

    def cancel(self) -> None:
        """It never began."""
        self.finish(0, 0)
        if self._state.requests is not None:
            self._state.requests.give_back(1)

    def reverse(self, spent: int) -> None:
        """What it had cost was given back."""
        if self.budget_period is not None and spent:
            self._limiter.spend(self.budget_period, -spent)


class RateLimiter:
    """Limits of all keys.

    ``spending`` is what was spent before, by key and period (``store.keys.read_spending``); it is
    kept up here, for the latest PERIODS_KEPT periods of each key. What is spent is stored elsewhere.
    """

    def __init__(
        self,
        spending: dict[tuple[str, str], int],
        *,
        monotonic_s: Callable[[], float],
        wall_ms: Callable[[], int],
    ) -> None:
        self._spending = spending
        self._monotonic_s = monotonic_s
        self._wall_ms = wall_ms
        self._states: dict[str, _KeyState] = {}  # of keys with limits beside their budgets
        self._sweep_from = STATES_SWEPT_FROM
        self._held: dict[tuple[str, str], int] = {}  # by running requests, as in spending
        self._periods: dict[str, list[str]] = {}  # of each key in spending, the earliest first
        for key_id, period in spending:
            insort(self._periods.setdefault(key_id, []), period)

    def now_ms(self) -> int:
        """Of the clock by which minutes are counted."""
        return int(self._monotonic_s() * 1000)

    def spend(self, budget_period: tuple[str, str], amount: int) -> None:
        """More of a budget is used up; less, when it is negative."""
        spending = self._spending
        if budget_period in spending:
            spending[budget_period] += amount
            return
        spending[budget_period] = amount
        key_id, period = budget_period
        periods = self._periods.setdefault(key_id, [])
        insort(periods, period)
        while len(periods) > PERIODS_KEPT:
            del spending[key_id, periods.pop(0)]

    def spent(self, budget_period: tuple[str, str]) -> int:
        """Nano-credits."""
        return self._spending.get(budget_period, 0)

    def let_go(self, budget_period: tuple[str, str], amount: int) -> None:
        """A running request's hold on a budget is over."""
        held = self._held.pop(budget_period, 0) - amount
        assert held >= 0, "a budget's holds are let go once"
        if held:
            self._held[budget_period] = held

    def admit(self, key: ApiKey, tokens: int, amount: int) -> Slot:
        """A place for a request of so many tokens at most, for which ``amount`` will be held.

        Raises RateLimited or BudgetExceeded, which says which limit it was and when to come again.
        Nothing is counted then.
        """
        limits, now_ms = key.limits, self.now_ms()
        state = self._states.get(key.id)
        if state is None:
            state = self._new_state(key, now_ms)
        else:
            state.fill(now_ms)
        if limits.concurrency is not None and state.running >= limits.concurrency:
            raise _limited(
                f"This key may run {limits.concurrency} requests at the same time, and as many run "
                "now; one of them has to end.",
                RUNNING_RETRY_S,
                state,
                tokens,
            )
        period = self._check_budget(key, amount, state)
        if state.requests is not None:
            _check(state.requests, 1, "requests", "", state, tokens)
        if state.tokens is not None:
            need = f" of the {tokens} that this request may use; a smaller max_tokens needs less"
            _check(state.tokens, tokens, "tokens", need, state, tokens)
            state.tokens.take(tokens)
        if state.requests is not None:
            state.requests.take(1)
        state.running += 1
        if period is not None and amount:
            self._held[period] = self._held.get(period, 0) + amount
        return Slot(self, state, tokens, amount, period, _lines(state))

    def _new_state(self, key: ApiKey, now_ms: int) -> _KeyState:
        states = self._states
        if len(states) >= self._sweep_from:
            for key_id in [name for name, each in states.items() if each.is_at_rest(now_ms)]:
                del states[key_id]
            self._sweep_from = max(STATES_SWEPT_FROM, 2 * len(states))
        state = states[key.id] = _KeyState(key, now_ms)
        return state

    def _check_budget(self, key: ApiKey, amount: int, state: _KeyState) -> tuple[str, str] | None:
        limits = key.limits
        period = limits.budget_period
        if limits.budget is None or period is None:
            return None
        wall_ms = self._wall_ms()
        place = (key.id, period_name(period, wall_ms))
        held = self._held.get(place, 0)
        left = limits.budget - self.spent(place) - held
        if amount <= left:
            return place
        span = "" if period == "total" else f" for the {period}"
        error = BudgetExceeded(
            f"This key's budget of {credits_of(limits.budget)} credits{span} has {credits_of(max(left, 0))} left "
            f"({credits_of(held)} are held by running requests), and this request may cost up to "
            f"{credits_of(amount)}. A smaller max_tokens needs less."
        )
        if amount <= left + held:
            error.retry_after_s = RUNNING_RETRY_S
            error.should_retry = True
        elif amount <= limits.budget and period != "total":
            error.retry_after_s = _left_s(period, wall_ms)
        error.header_lines = _lines(state)
        raise error


def period_name(period: Period, wall_ms: int) -> str:
    """The period of a moment, by UTC: ``2026-11-24``, ``2026-11``, ``2026`` or ``total``."""
    return datetime.fromtimestamp(wall_ms // 1000, UTC).strftime(_FORMATS[period])


def _left_s(period: Period, wall_ms: int) -> int:
    """Seconds until the next period begins, rounded up; of one that ends."""
    now = datetime.fromtimestamp(wall_ms // 1000, UTC)
    midnight = now.replace(hour=0, minute=0, second=0)
    if period == "day":
        end = midnight + timedelta(days=1)
    elif period == "month":
        end = (midnight.replace(day=1) + timedelta(days=31)).replace(day=1)
    else:
        end = midnight.replace(year=now.year + 1, month=1, day=1)
    return int((end - now).total_seconds())


def _check(
    bucket: _Bucket, amount: int, what: str, need: str, state: _KeyState, tokens: int
) -> None:
    if bucket.wait_ms(amount):
        message = (
            f"This key may use {bucket.limit} {what} per minute, and {bucket.left} are left{need}."
        )
        raise _limited(message, 1, state, tokens)


def _limited(message: str, least_s: int, state: _KeyState, tokens: int) -> RateLimited:
    """To come again when both limits per minute let the request in."""
    wait_s = max(least_s, -(-state.wait_ms(tokens) // 1000))
    error = RateLimited(f"{message} Try again in {wait_s} s.")
    error.retry_after_s = wait_s
    error.header_lines = _lines(state)
    return error


def _lines(state: _KeyState) -> bytes:
    lines = b""
    for name, bucket in ((b"requests", state.requests), (b"tokens", state.tokens)):
        if bucket is not None:
            lines += (
                b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n"
            ) % (name, bucket.limit, name, bucket.left, name, _span(bucket.full_ms))
    return lines


def _span(ms: int) -> bytes:
    """As OpenAI writes it, which is as Go does: ``0s``, ``120ms``, ``6s``, ``1m30s``; rounded up to seconds."""
    if 0 < ms < 1000:
        return b"%dms" % ms
    minutes, seconds = divmod(-(-ms // 1000), 60)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds
