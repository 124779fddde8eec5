"""What each key may do per minute, at once, and of its budget. Counted in memory, by injected clocks."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from filature.answer.pricing import credits_text
from filature.errors import BudgetExceeded, RateLimited
from filature.store.keys import ApiKey, Period

_FORMATS: Final[dict[Period, str]] = {
    "day": "%Y-%m-%d",
    "month": "%Y-%m",
    "year": "%Y",
    "total": "total",
}


class _Bucket:
    """A token bucket: ``limit`` at most, filled up within a minute. Below zero by what was reserved too low."""

    __slots__ = ("left", "limit", "since")

    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self.left = float(limit)
        self.since = now

    def fill(self, now: float) -> None:
        if now > self.since:
            self.left = min(self.left + (now - self.since) * self.limit / 60, float(self.limit))
            self.since = now

    def wait_s(self, amount: float) -> float:
        """Until ``amount`` is there; 0 when it is."""
        missing = min(amount, self.limit) - self.left
        return max(missing * 60 / self.limit, 0.0)

    @property
    def full_s(self) -> float:
        """Until it is full again."""
        return (self.limit - self.left) * 60 / self.limit


class _KeyState:
    __slots__ = ("held", "requests", "running", "tokens")

    def __init__(self, key: ApiKey, now: float) -> None:
        limits = key.limits
        self.running = 0
        self.held = 0  # nano-credits of requests that run
        rpm, tpm = limits.requests_per_minute, limits.tokens_per_minute
        self.requests = None if rpm is None else _Bucket(rpm, now)
        self.tokens = None if tpm is None else _Bucket(tpm, now)


class Slot:
    """An admitted request's place in its key's limits; given back once by ``finish`` or ``cancel``."""

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
        state.held -= self._amount
        if state.tokens is not None:
            state.tokens.left += self._tokens - tokens
        if self.budget_period is not None and spent:
            self._limiter.spend(self.budget_period, spent)

    def cancel(self) -> None:
        """It never began."""
        self.finish(0, 0)
        if self._state.requests is not None:
            self._state.requests.left += 1

    def reverse(self, spent: int) -> None:
        """What it had cost was given back."""
        if self.budget_period is not None and spent:
            self._limiter.spend(self.budget_period, -spent)


class RateLimiter:
    """Limits of all keys. ``spending`` is what was spent before, by key and period, and is kept up here."""

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
        self._states: dict[str, _KeyState] = {}  # at most one per key that exists

    def spend(self, budget_period: tuple[str, str], amount: int) -> None:
        self._spending[budget_period] = self._spending.get(budget_period, 0) + amount

    def spent(self, budget_period: tuple[str, str]) -> int:
        """Nano-credits."""
        return self._spending.get(budget_period, 0)

    def admit(self, key: ApiKey, tokens: int, amount: int) -> Slot:
        """A place for a request of so many tokens at most, for which ``amount`` will be held.

        Raises RateLimited or BudgetExceeded, which says which limit it was and when to come again.
        """
        limits, now = key.limits, self._monotonic_s()
        state = self._states.get(key.id)
        if state is None:
            state = self._states[key.id] = _KeyState(key, now)
        if limits.concurrency is not None and state.running >= limits.concurrency:
            raise _limited(
                f"This key may run {limits.concurrency} requests at once, and they run.", 1.0, b""
            )
        period = self._check_budget(key, state, amount)
        if state.requests is not None:
            state.requests.fill(now)
            self._check(state.requests, 1, "requests", state)
        if state.tokens is not None:
            state.tokens.fill(now)
            self._check(state.tokens, tokens, "tokens", state)
            state.tokens.left -= tokens
        if state.requests is not None:
            state.requests.left -= 1
        state.running += 1
        state.held += amount
        return Slot(self, state, tokens, amount, period, _lines(state))

    def _check(self, bucket: _Bucket, amount: int, what: str, state: _KeyState) -> None:
        wait_s = bucket.wait_s(amount)
        if wait_s > 0:
            message = (
                f"This key may use {bucket.limit} {what} per minute; come again in {wait_s:.0f} s."
            )
            raise _limited(message, wait_s, _lines(state))

    def _check_budget(self, key: ApiKey, state: _KeyState, amount: int) -> tuple[str, str] | None:
        limits = key.limits
        if limits.budget is None or limits.budget_period is None:
            return None
        name = period_name(limits.budget_period, self._wall_ms())
        place = (key.id, name)
        left = limits.budget - self.spent(place) - state.held
        if amount > left:
            raise BudgetExceeded(
                f"This key's budget for the {limits.budget_period} has {_text(max(left, 0))} credits left "
                f"({_text(state.held)} are held by running requests), and this request needs "
                f"{_text(amount)}. A smaller max_tokens needs less."
            )
        return place


def period_name(period: Period, wall_ms: int) -> str:
    """The period of a moment, by UTC: ``2026-11-24``, ``2026-11``, ``2026`` or ``total``."""
    return datetime.fromtimestamp(wall_ms / 1000, UTC).strftime(_FORMATS[period])


def _limited(message: str, wait_s: float, lines: bytes) -> RateLimited:
    error = RateLimited(message)
    error.retry_after_s = max(int(wait_s + 0.999), 1)
    error.header_lines = lines
    return error


def _lines(state: _KeyState) -> bytes:
    lines = b""
    for name, bucket in ((b"requests", state.requests), (b"tokens", state.tokens)):
        if bucket is not None:
            lines += (
                b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n"
            ) % (
                name,
                bucket.limit,
                name,
                max(int(bucket.left), 0),
                name,
                _span(bucket.full_s),
            )
    return lines


def _span(seconds: float) -> bytes:
    """As OpenAI writes it: ``120ms``, ``6s``, ``1m30s``."""
    if seconds < 1:
        return b"%dms" % int(seconds * 1000)
    minutes, rest = divmod(int(seconds + 0.999), 60)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest


def _text(nano: int) -> str:
    return credits_text(nano).decode("ascii")
